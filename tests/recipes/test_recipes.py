"""The recipe for MiniFCaps in short runs, as a user starts it; then resumed."""

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from speechbrain_clsp import CLSP

ROOT = Path(__file__).parents[2]
RECIPES = list(csv.DictReader((Path(__file__).parent / "recipes.csv").open(encoding="utf-8")))


def arguments(recipe: dict, folder: Path, *more: str) -> list[str]:
    """Return a recipe's command line; ``more`` overrides the recipe's own flags."""
    given = {flag.split("=")[0] for flag in more}
    flags = [f for f in shlex.split(recipe["test_debug_flags"]) if f.split("=")[0] not in given]
    return [
        sys.executable,
        Path(recipe["Script_file"]).name,
        str(ROOT / recipe["Hparam_file"]),
        f"--data_folder={folder / 'data'}",
        f"--output_folder={folder / 'out'}",
        *flags,
        *more,
    ]


def run(recipe: dict, folder: Path, *more: str) -> subprocess.CompletedProcess:
    """Run a recipe from its own folder, where users start it."""
    done = subprocess.run(
        arguments(recipe, folder, *more),
        cwd=(ROOT / recipe["Script_file"]).parent,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.mark.parametrize("recipe", RECIPES[:1], ids=["mini.yaml"])
def test_recipe_runs_resumes_and_leaves_what_it_promises(recipe, tmp_path):
    """If this fails, a user's first run fails."""
    table = run(recipe, tmp_path).stdout
    assert "fine speech to text R@1" in table
    checks = re.search(r"file_exists=\[(.*)\]", recipe["test_debug_checks"])
    for name in checks.group(1).split(","):
        assert (tmp_path / "out" / name).is_file(), name
    log = (tmp_path / "out" / "train_log.txt").read_text(encoding="utf-8")
    assert re.findall(r"^(?:epoch: \d|Epoch loaded)", log, flags=re.M) == [
        "epoch: 1",
        "epoch: 2",
        "Epoch loaded",
    ]
    clsp = CLSP.from_hparams(tmp_path / "out" / "model", run_opts={"device": "cpu"})
    assert clsp.encode_text(["A male speaker."]).isfinite().all()

    # The same command again trains no further; --test_only changes nothing but the test lines.
    run(recipe, tmp_path)
    run(recipe, tmp_path, "--test_only")
    again = (tmp_path / "out" / "train_log.txt").read_text(encoding="utf-8")
    assert sum(line.startswith("epoch:") for line in again.splitlines()) == 2
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["clips"] == 6


def test_an_overridden_size_is_what_is_trained_and_published(tmp_path):
    """If this fails, --model='{...}' is ignored, or the folder describes another model."""
    run(RECIPES[0], tmp_path, "--model={joint_dim: 64}", "--number_of_epochs=1")
    clsp = CLSP.from_hparams(tmp_path / "out" / "model", run_opts={"device": "cpu"})
    assert clsp.encode_text(["A male speaker."]).shape == (1, 64)


def test_a_killed_training_goes_on_where_its_last_checkpoint_was(tmp_path):
    """If this fails, a preempted job starts over, or cannot start at all."""
    flags = ("--number_of_epochs=30",)
    process = subprocess.Popen(
        arguments(RECIPES[0], tmp_path, *flags),
        cwd=(ROOT / RECIPES[0]["Script_file"]).parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    log = tmp_path / "out" / "train_log.txt"
    deadline = time.time() + 300
    while time.time() < deadline and not (log.exists() and "epoch: 3" in log.read_text()):
        assert process.poll() is None, "the training ended before it could be killed"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = max(int(e) for e in re.findall(r"^epoch: (\d+)", log.read_text(), flags=re.M))
    run(RECIPES[0], tmp_path, f"--number_of_epochs={done + 1}")
    epochs = [int(e) for e in re.findall(r"^epoch: (\d+)", log.read_text(), flags=re.M)]
    assert epochs[:done] == list(range(1, done + 1))
    assert set(epochs[done:]) <= {done, done + 1} and epochs[-1] == done + 1


def test_two_processes_train_together(tmp_path):
    """If this fails, the recipe hangs or dies under torchrun."""
    command = arguments(RECIPES[0], tmp_path, "--distributed_backend=gloo")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launcher, *command[1:]],
        cwd=(ROOT / RECIPES[0]["Script_file"]).parent,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "fine speech to text R@1" in done.stdout
    log = (tmp_path / "out" / "train_log.txt").read_text(encoding="utf-8")
    assert len(re.findall(r"^epoch: \d", log, flags=re.M)) == 2  # one line per epoch, not per rank
