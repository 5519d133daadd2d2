"""The step log and its watchdog."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from speechbrain_clsp.training.step_log import StepLog, duplicate_rate, geometry
from tests.utils.buzzes import fit, new_brain, write_buzzes


def test_geometry_equals_its_definition():
    """If this fails, alignment and uniformity are not those of the paper."""
    unit = torch.nn.functional.normalize
    speech, text = unit(torch.randn(7, 5).double()), unit(torch.randn(7, 5).double())
    metrics = geometry(speech, text)
    pairs = [(i, j) for i in range(7) for j in range(7) if i != j]
    potential = np.mean([np.exp(-2 * (speech[i] - speech[j]).square().sum()) for i, j in pairs])
    assert metrics["speech_uniformity"] == pytest.approx(np.log(potential), abs=1e-5)
    distances = [(s - t).square().sum() for s, t in zip(speech, text)]
    assert metrics["alignment"] == pytest.approx(float(sum(distances)) / 7, abs=1e-5)


def test_a_caption_twice_for_one_clip_is_no_duplicate():
    """If this fails, the log warns of duplicates where a clip has only one caption."""
    assert duplicate_rate(torch.tensor([[1, 2], [1, 3]])) == 0.0
    assert duplicate_rate(torch.tensor([[1, 2], [3, 1]])) == 0.5


def test_the_step_log_has_a_line_for_every_nth_step(tmp_path):
    """If this fails, a trainer flies blind."""
    brain = new_brain(3, options={"step_log": StepLog(tmp_path / "steps.jsonl", every=2)})
    fit(brain, write_buzzes(tmp_path), batch_size=4)
    lines = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    for line in lines:
        assert line["clips"] == 4 and line["chance"] == pytest.approx(np.log(4) + np.log(2) / 2)
        assert set(line["gradient_norms"]) == {"speech_tower", "text_tower", "logit_scale"}
        assert line["audio_seconds_per_second"] > 0 and line["logit_scale"] > 1


STALL = """
import sys, time, torch
from types import SimpleNamespace
from speechbrain_clsp.training.step_log import StepLog
log = StepLog("unused", every=99, stall_seconds=0.3)
batch = SimpleNamespace(wav_lens=torch.ones(1), wavs=torch.ones(1, 1))
log.update(batch, None, None, step=1, loss=None, logit_scale=None)
def waits_for_a_rank_that_never_comes():
    time.sleep(1.5)
waits_for_a_rank_that_never_comes()
"""


def test_a_stall_shows_where():
    """If this fails, a hanging job of many GPUs is killed without anyone knowing why."""
    done = subprocess.run([sys.executable, "-c", STALL], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "waits_for_a_rank_that_never_comes" in done.stderr


def test_the_watchdog_sleeps_outside_of_training(tmp_path, capfd):
    """If this fails, a long validation fills the log with stacks."""
    log = StepLog(tmp_path / "unused", every=99, stall_seconds=0.2)
    batch = SimpleNamespace(wav_lens=torch.ones(1), wavs=torch.ones(1, 1))
    log.update(batch, None, None, step=1, loss=None, logit_scale=None)
    log.pause()
    subprocess.run([sys.executable, "-c", "import time; time.sleep(0.5)"], check=True)
    assert "Thread" not in capfd.readouterr().err
