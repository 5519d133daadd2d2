"""benchmarks/gpu.py at small sizes on the CPU: the code that runs on a GPU, and how it fails."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
RAISED, ABORTED = "128 clips, plain", "bf16, margin, guards, forward and backward"
PLANTED = (f"loss:{RAISED}", f"reward!{ABORTED}")


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> tuple[dict, str]:
    """Run all parts, of which one has a row that raises and one is killed in its last row."""
    folder = tmp_path_factory.mktemp("gpu")
    command = [sys.executable, SCRIPT, "--output", folder, "--small", "--device", "cpu"]
    command += ["--threads", "1", "--minutes", "12", "--fail", *PLANTED]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=800)
    assert done.returncode == 1, done.stderr[-2000:]  # rows failed: the planted ones
    data = json.loads((folder / "gpu.json").read_text(encoding="utf-8"))
    printed = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert printed == [row for part in data["parts"].values() for row in part["rows"]]
    return data, (folder / "gpu.md").read_text(encoding="utf-8")


def rows_of(results: tuple[dict, str], part: str) -> dict[str, dict]:
    """Return a part's rows by name."""
    return {row["row"]: row for row in results[0]["parts"][part]["rows"]}


def test_every_part_has_its_rows_and_only_planted_ones_fail(results):
    """If this fails, the time of a GPU would be spent on a traceback."""
    least = {"correctness": 15, "encoding": 12, "training": 9, "loss": 7, "reward": 16}
    assert {part: len(found["rows"]) for part, found in results[0]["parts"].items()} == least
    failed = {
        row["row"]: row
        for part in results[0]["parts"].values()
        for row in part["rows"]
        if "error" in row or row.get("passed") is False
    }
    assert failed.keys() == {RAISED, ABORTED}, failed
    assert "planted failure" in failed[RAISED]["error"]
    assert "exit code -6" in failed[ABORTED]["error"]


def test_correctness_rows_are_checks(results):
    """If this fails, a wrong kernel would pass as a row among others."""
    rows = rows_of(results, "correctness")
    assert all(row["passed"] for row in rows.values())
    assert rows["speech tower, every stage"]["largest difference"] > 0
    assert rows["GradCache replays bit for bit"]["random"] is True
    for name in ("tiny: precisions", "full size: precisions"):
        # Clips that are alike in any case would prove nothing.
        between_clips = 1 - rows[name]["cosine of two clips"]
        assert 0 < 1 - rows[name]["bf16"] < between_clips / 4
    step = rows["train_stage2.yaml: step and resume, gloo"]
    first, second, resumed = step["losses"].split()
    assert step["wrapped in"] == "DistributedDataParallel"
    assert first != second and second == resumed
    assert step["resumed, largest difference"] == 0.0


def test_measurements_are_beside_their_limits(results):
    """If this fails, a table gives speeds without saying how far there is to go."""
    encoding, training = rows_of(results, "encoding"), rows_of(results, "training")
    for row in (encoding["fp32, 2 s"], encoding["bf16, 2 s"]):
        nearer = max(row["of the product rate"], row["of the copy rate"])
        assert row["of the nearer limit"] == nearer > 0
        assert row["audio s/s"] == pytest.approx(2 / (row["ms"] / 1e3), rel=1e-3)
    assert encoding["fp32, 2 s"]["TFLOP"] > 1.9 * encoding["fp32, 1 s"]["TFLOP"]
    assert training["plain"]["MFU"] > 0 and training["plain"]["clips/s"] > 0
    assert 0 < training["pieces of a step"]["ScaledAdam, % of a step"] < 100


def test_markdown_shows_what_json_holds(results):
    """If this fails, the documented table is another measurement's."""
    data, page = results
    lines = page.splitlines()
    for part in data["parts"].values():
        for row in part["rows"]:
            assert sum(line.startswith(f"| {row['row']} |") for line in lines) >= 1, row["row"]
    assert f"| commit | {data['environment']['commit'] or '-'} |" in lines
    assert f"| torch | {data['environment']['packages']['torch']} |" in lines


def test_an_overrunning_part_is_stopped_and_the_next_one_told(tmp_path):
    """If this fails, one slow part takes the time of all others."""
    command = [sys.executable, SCRIPT, "--output", tmp_path, "--small", "--device", "cpu"]
    command += ["--parts", "d", "e", "--minutes", "0.05"]
    subprocess.run(list(map(str, command)), capture_output=True, timeout=120)
    parts = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["parts"]
    assert list(parts) == ["loss", "reward"]
    for part in parts.values():
        assert "stopped after" in part["rows"][-1]["error"]
