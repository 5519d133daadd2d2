"""``make serve``: when it embeds and indexes, with a ``clsp`` that only notes what it is asked."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLSP = """#!/bin/sh
echo "$1" >> "$(dirname "$0")/calls"
test "$1" != index || { mkdir -p "$4" && touch "$4/index.json"; }
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_index_to_serve_is_made_anew_if_it_is_half_built_or_older_than_the_model(tmp_path):
    clsp, results = tmp_path / "clsp", tmp_path / "results"
    clsp.write_text(CLSP)
    clsp.chmod(0o755)
    (results / "model").mkdir(parents=True)
    (results / "model" / "model.safetensors").touch()
    (results / "index").mkdir()  # of a run that was killed
    (results / "index" / "building.json").touch()
    os.utime(results / "model" / "model.safetensors", (1e9, 1e9))
    made = ["embed", "index"]
    assert serve(tmp_path) == [*made, "serve"]
    assert not (results / "index" / "building.json").exists()
    assert serve(tmp_path) == ["serve"]
    os.utime(results / "model" / "model.safetensors", (4e9, 4e9))  # trained again
    assert serve(tmp_path) == [*made, "serve"]


def serve(folder: Path) -> list[str]:
    """Run it; returns the commands that were given."""
    words = ["make", "--quiet", "--old-file=.venv/.installed", "serve", f"BIN={folder}"]
    run = subprocess.run(
        [*words, f"RESULTS={folder / 'results'}", f"DATA={folder}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    calls = folder / "calls"
    found = calls.read_text().split()
    calls.unlink()
    return found
