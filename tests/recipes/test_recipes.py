"""The recipe for MiniFCaps in short runs, as a user starts it; then resumed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from speechbrain_clsp import CLSP
from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.inference import embed_background
from tests.utils.recipes import check_outputs, find_recipe, recipe_command, recipe_folder

MINI = find_recipe("mini")


def command(folder: Path, *flags: str) -> list[str]:
    """Return the recipe's command line, with data and output below a folder."""
    folders = (f"--data_folder={folder / 'data'}", f"--output_folder={folder / 'out'}")
    return recipe_command(MINI, *folders, *flags)


def run(arguments: list[str]) -> str:
    """Run the recipe from its own folder, where users start it; returns what it prints."""
    done = subprocess.run(
        arguments, cwd=recipe_folder(MINI), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_recipe_runs_resumes_and_leaves_what_it_promises(tmp_path):
    table = run(command(tmp_path))
    assert "## fine captions" in table and "speech to text R@1" in table
    check_outputs(MINI, tmp_path / "out")
    log = (tmp_path / "out" / "train_log.txt").read_text(encoding="utf-8")
    assert re.findall(r"^(?:epoch: \d|Epoch loaded)", log, flags=re.M) == [
        "epoch: 1",
        "epoch: 2",
        "Epoch loaded",
    ]
    clsp = CLSP.from_hparams(tmp_path / "out" / "model", run_opts={"device": "cpu"})
    assert clsp.encode_text(["A male speaker."]).isfinite().all()
    valid = embed_background(clsp, Manifest(tmp_path / "data" / "valid.arrow"))
    torch.testing.assert_close(clsp.background, valid, atol=1e-3, rtol=0)

    # The same command again trains no further; --test_only changes nothing but the test lines.
    run(command(tmp_path))
    run(command(tmp_path, "--test_only"))
    again = (tmp_path / "out" / "train_log.txt").read_text(encoding="utf-8")
    assert sum(line.startswith("epoch:") for line in again.splitlines()) == 2
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["data"][0]["rows"] == 6


def test_an_overridden_size_is_what_is_trained_and_published(tmp_path):
    run(command(tmp_path, "--model={joint_dim: 64}", "--number_of_epochs=1"))
    clsp = CLSP.from_hparams(tmp_path / "out" / "model", run_opts={"device": "cpu"})
    assert clsp.encode_text(["A male speaker."]).shape == (1, 64)


def test_a_killed_training_goes_on_where_its_last_checkpoint_was(tmp_path):
    process = subprocess.Popen(
        command(tmp_path, "--number_of_epochs=30"),
        cwd=recipe_folder(MINI),
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
    run(command(tmp_path, f"--number_of_epochs={done + 1}"))
    epochs = [int(e) for e in re.findall(r"^epoch: (\d+)", log.read_text(), flags=re.M)]
    assert epochs[:done] == list(range(1, done + 1))
    assert set(epochs[done:]) <= {done, done + 1} and epochs[-1] == done + 1


def test_two_processes_train_together(tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    printed = run([*launcher, *command(tmp_path, "--distributed_backend=gloo")[1:]])
    assert "## fine captions" in printed and "speech to text R@1" in printed
    log = (tmp_path / "out" / "train_log.txt").read_text(encoding="utf-8")
    assert len(re.findall(r"^epoch: \d", log, flags=re.M)) == 2  # one line per epoch, not per rank


def test_what_a_training_cannot_go_on_with_ends_it_at_once_or_is_said(tmp_path):
    def failing(*flags: str) -> str:
        arguments = command(tmp_path, "--skip_prep=True", *flags)
        done = subprocess.run(
            arguments, cwd=recipe_folder(MINI), capture_output=True, text=True, timeout=600
        )
        assert done.returncode != 0 and not (tmp_path / "out" / "model").exists()
        return done.stderr + done.stdout

    code = "from mini_fcaps_prepare import prepare_mini_fcaps as p;"
    code += f"p({str(tmp_path / 'data')!r}, n_train=24, n_valid=6, n_test=6)"
    prepare = [sys.executable, "-c", code]
    subprocess.run(prepare, cwd=recipe_folder(MINI), check=True, capture_output=True)
    wavs = tmp_path / "data" / "wavs"
    missing = sorted((wavs / "valid").iterdir())[0]
    missing.rename(tmp_path / "kept.wav")
    printed = failing()
    assert "valid.arrow: 1 of 6 clips cannot be read" in printed and missing.name in printed
    assert not (tmp_path / "out" / "train_log.txt").exists()
    (tmp_path / "kept.wav").rename(missing)
    (wavs / "train").rename(wavs / "moved")
    assert "No step was taken in epoch 1: 8 clips" in failing("--max_unreadable_clips=100")
    (wavs / "moved").rename(wavs / "train")
    assert "holds no checkpoint" in failing("--test_only")
    flags = ["--skip_prep=True", "--number_of_epochs=1"]
    run(command(tmp_path, *flags))
    arguments = command(tmp_path, *flags, "--batch_size=3")
    done = subprocess.run(
        arguments, cwd=recipe_folder(MINI), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0
    assert "Resumed with other settings: batch_size was 4 and is 3" in done.stderr + done.stdout
