"""Examples in the docstrings of recipes, which import their neighbors by name."""

import subprocess
import sys
from pathlib import Path

import pytest

RECIPES = Path(__file__).parents[2] / "recipes"
SCRIPTS = sorted(path for path in RECIPES.rglob("*.py") if not path.is_symlink())
FOLDERS = sorted({path.parent for path in SCRIPTS})


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_examples_hold(folder):
    command = [sys.executable, "-m", "pytest", "--doctest-modules", "-q", "-p", "no:cacheprovider"]
    # Without the project's settings, so that a folder's modules find each other.
    command += ["-c", "/dev/null", "--rootdir", str(folder)]
    command += [str(path) for path in SCRIPTS if path.parent == folder]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    # 5: there are no examples in this folder.
    assert done.returncode in (0, 5), done.stdout[-3000:]
