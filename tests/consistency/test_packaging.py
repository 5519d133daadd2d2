"""What an installed package holds."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "speechbrain_clsp"
FILES = [
    str(path.relative_to(ROOT))
    for path in sorted(PACKAGE.rglob("*"))
    if path.is_file() and "__pycache__" not in path.parts
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Return a wheel built without network, from a copy, so that nothing is left in the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation"]
    command += ["--no-index", "--quiet", "--wheel-dir", "out"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (path,) = (folder / "out").glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_every_file_of_the_package(wheel):
    names = set(wheel.namelist())
    assert not set(FILES) - names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {PACKAGE.name}


def test_the_wheel_declares_the_command_and_extras(wheel):
    (info,) = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    assert (
        "clsp = speechbrain_clsp.cli.main:main" in wheel.read(f"{info}/entry_points.txt").decode()
    )
    metadata = wheel.read(f"{info}/METADATA").decode()
    for line in ("Requires-Python: >=3.10", "Provides-Extra: mini", "License-Expression: Apache-2"):
        assert line in metadata


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".json")])
def test_data_files_are_json(name):
    json.loads((ROOT / name).read_text(encoding="utf-8"))
