"""The suite end to end on made-up vectors: metrics.json, the table and the page."""

import base64
import io
import json
import re

import pytest
import soundfile
import torch

from speechbrain_clsp.dataio.manifest import Manifest, write_manifest
from speechbrain_clsp.evaluation.report import read_training_log, write_results
from speechbrain_clsp.evaluation.suites import run_suite
from speechbrain_clsp.evaluation.tables import markdown_tables
from tests.utils.small import tone, write

HOSTILE = "<script>alert('x')</script> & co"
LOG = """epoch: 1, lr: 3.50e-02 - train loss: 3.20 - valid loss: 3.00, valid fine_R@1: 1.0e-01
epoch: 2, lr: 3.40e-02 - train loss: 2.20 - valid loss: 2.50, valid fine_R@1: 3.0e-01
Epoch loaded: 2 - test loss: 2.40
"""


class KnownVectors:
    """A model whose embeddings are known: clip i and its captions share axis i."""

    model, revision, is_bound = HOSTILE, "1", False

    def __init__(self, rows: list[dict]) -> None:
        self.axis = {row["audio"]: i for i, row in enumerate(rows)}
        for i, row in enumerate(rows):
            self.axis |= {caption: i for caption in row["fine_captions"] + row["global_captions"]}
        self.size = len(rows)

    def encode_files(self, paths):
        """Return one axis per clip."""
        return torch.eye(self.size)[[self.axis[path] for path in paths]]

    def encode_text(self, texts):
        """Return one axis per known caption, and a point between clips 0 and 1 for a prompt."""
        between = torch.nn.functional.normalize(torch.ones(self.size), dim=0)
        axes = torch.eye(self.size)
        return torch.stack([axes[self.axis[t]] if t in self.axis else between for t in texts])


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Return (evaluation, page, folder) of twelve clips; 3 and 4 have swapped fine captions."""
    folder = tmp_path_factory.mktemp("suite")
    rows = []
    for i in range(12):
        write(folder / f"{i}.wav", tone(0.4, frequency=100 + 20 * i))
        rows.append(
            {
                "id": f"clip{i}",
                "audio": f"{i}.wav",
                "duration": 0.4,
                "gender": "male" if i < 5 else "female",
                "accent": "Scottish",
                "labels": {"whisper": "voiced"},
                "global_captions": [f"global {i}"],
                "fine_captions": [f"fine {i} {HOSTILE}"],
            }
        )
    write_manifest(folder / "test.arrow", rows)
    manifest = Manifest(folder / "test.arrow")
    known = KnownVectors(list(manifest))
    known.axis[rows[3]["fine_captions"][0]], known.axis[rows[4]["fine_captions"][0]] = 4, 3
    (folder / "train_log.txt").write_text(LOG)
    evaluation = run_suite("mini", {HOSTILE: known}, [folder / "test.arrow"])
    write_results(evaluation, folder / "out", folder / "train_log.txt")
    return evaluation, (folder / "out" / "report.html").read_text(encoding="utf-8"), folder


def test_known_vectors_get_known_metrics(evaluated):
    evaluation, _, folder = evaluated
    metrics = json.loads((folder / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics == evaluation.to_dict()
    tables = {name: models[HOSTILE] for name, models in evaluation.tables.items()}
    assert tables["global"]["speech_to_text_R@1"].value == 1.0
    fine = tables["fine"]["text_to_speech_R@1"]
    assert abs(fine.value - 10 / 12) < 1e-12
    assert fine.low < fine.value < fine.high and abs(fine.chance - 1 / 12) < 1e-12
    gender = metrics["confusions"]["gender"][HOSTILE]
    assert gender["n"] == 12 and sum(map(sum, gender["confusion"])) == 12
    assert "loudness" not in tables  # no clip has a label


def test_tables_show_the_metrics_of_the_json(evaluated):
    evaluation, _, folder = evaluated
    table = markdown_tables(evaluation)
    assert table == (folder / "out" / "tables.md").read_text(encoding="utf-8")
    fine = table[table.index("## fine") :]
    row = next(line for line in fine.splitlines() if line.startswith("| text to speech R@1 "))
    assert "83.3" in row and "8.3" in row
    assert "## gender" in table and "loudness" not in table


def test_the_frame_has_a_row_per_metric(evaluated):
    evaluation, _, _ = evaluated
    frame = evaluation.to_frame()
    columns = ["table", "model", "metric", "value", "low", "high", "chance"]
    assert list(frame.columns) == columns
    count = sum(len(metrics) for each in evaluation.tables.values() for metrics in each.values())
    assert len(frame) == count
    row = frame[(frame["table"] == "fine") & (frame["metric"] == "text_to_speech_R@1")].iloc[0]
    assert row["value"] == evaluation.tables["fine"][HOSTILE]["text_to_speech_R@1"].value


def test_page_needs_nothing_from_outside(evaluated):
    _, page, _ = evaluated
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources and all(source.startswith("data:audio/mpeg;base64,") for source in sources)
    assert "http" not in page and "@import" not in page


def test_captions_cannot_inject_code(evaluated):
    _, page, _ = evaluated
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_players_hold_the_clips(evaluated):
    _, page, _ = evaluated
    clips = re.findall(r"data:audio/mpeg;base64,([^\"]+)", page)
    assert len(clips) == 10
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(clips[0])))
    assert rate == 16000 and abs(len(samples) / rate - 0.4) < 0.15 and abs(samples).max() > 0.1


def test_page_shows_metrics_curves_and_swapped_captions(evaluated):
    _, page, _ = evaluated
    assert page.count("<polyline") == 3  # two losses, one recall
    assert "83.3 (" in page and "100.0 (100.0-100.0)" in page
    assert "own caption on rank" in page and "own caption on rank 1<" in page


def test_training_log_is_read_once_per_epoch(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text(LOG + LOG.replace("2.20", "2.10"))
    curves = read_training_log(path)
    assert curves["train loss"] == [(1.0, 3.2), (2.0, 2.1)]
    assert curves["valid fine_R@1"] == [(1.0, 0.1), (2.0, 0.3)]
