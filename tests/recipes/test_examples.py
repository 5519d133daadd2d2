"""Examples in the docstrings of recipes, which import their neighbors by name."""

import subprocess
import sys
from pathlib import Path

import pytest

RECIPES = Path(__file__).parents[2] / "recipes"
FOLDERS = sorted({path.parent for path in RECIPES.rglob("*.py")})


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_examples_hold(folder):
    """If this fails, a reader copies an example that does not do what it says."""
    command = [sys.executable, "-m", "pytest", "--doctest-modules", "-q", "-p", "no:cacheprovider"]
    # Without the project's settings, so that a folder's modules find each other.
    command += ["-c", "/dev/null", "--rootdir", str(folder), *sorted(map(str, folder.glob("*.py")))]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    # 5: there are no examples in this folder.
    assert done.returncode in (0, 5), done.stdout[-3000:]
