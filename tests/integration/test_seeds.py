"""benchmarks/seeds.py on trainings that have ended."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.seeds import PROBES, TASKS

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "seeds.py"


def training(folder, seed, value, pairs="0123"):
    """Write metrics.json of a training: all are ``value``, or 0.1 less with false clips."""

    def rows(*names, less=0.0):
        return {name: {"value": value - less, "chance": 0.25} for name in names}

    ranks = rows(*(f"{way}_R@1" for way in ("speech_to_text", "text_to_speech")))
    probes = rows(*(f"{probe}: rate, captions" for probe in PROBES), *PROBES)
    probes |= rows(*(f"{probe}: rate, clips" for probe in PROBES), less=0.1)
    tables = {"global": ranks, "fine": ranks, "probes": probes}
    tables |= {task: rows("WA", "UAR") for task in TASKS}
    data = [("test.arrow", f"of {folder}"), ("pairs.jsonl", pairs)]
    metrics = {
        "seed": seed,
        "data": [{"name": name, "sha256": sha256, "rows": 300} for name, sha256 in data],
        "tables": {name: {"model": rows} for name, rows in tables.items()},
    }
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    return folder


def seeds(*folders):
    command = [sys.executable, SCRIPT, "--finished", *folders]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_table_has_means_and_standard_deviations(tmp_path):
    values = {1986: 0.5, 1987: 0.7, 1988: 0.6}
    done = seeds(*(training(tmp_path / str(seed), seed, v) for seed, v in values.items()))
    assert done.returncode == 0, done.stderr
    head, _, *lines = done.stdout.splitlines()
    assert "standard deviation, seeds 1986, 1987, 1988 | mini.yaml | chance" in head
    rows = dict(line.strip("| ").split(" | ", 1) for line in lines)
    assert rows["mean R@1"] == "60.0 ± 10.0 | 25.0"
    assert rows["zero-shot change, unweighted recall"] == "60.0 ± 10.0 | 25.0"
    order = rows["probe of order, a false caption / a false clip"]
    assert order == "60.0 ± 10.0 / 50.0 ± 10.0 | 25.0"
    assert len(rows) == 3 + len(TASKS) + len(PROBES)


@pytest.mark.parametrize(
    "seed, pairs, message",
    [(1986, "0123", "different seeds"), (1987, "4567", "tested on different data")],
)
def test_trainings_that_cannot_be_compared_are_refused(tmp_path, seed, pairs, message):
    first = training(tmp_path / "a", 1986, 0.5)
    done = seeds(first, training(tmp_path / "b", seed, 0.6, pairs))
    assert done.returncode == 1 and message in done.stderr and not done.stdout


def test_a_training_that_has_not_ended_is_refused(tmp_path):
    (tmp_path / "half").mkdir()
    done = seeds(training(tmp_path / "a", 1986, 0.5), tmp_path / "half")
    assert done.returncode == 1 and "half has no metrics.json" in done.stderr
