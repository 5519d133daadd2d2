"""The suite end to end on made-up vectors: metrics.json, the table and the page."""

import base64
import io
import json
import re
from itertools import pairwise

import pytest
import soundfile
import torch

from speechbrain_clsp.dataio.manifest import Manifest, write_manifest
from speechbrain_clsp.evaluation.report import read_training_log
from speechbrain_clsp.evaluation.suite import evaluate, format_table
from speechbrain_clsp.utils.html import HEIGHT, line_chart
from tests.utils.small import tone, write

HOSTILE = "<script>alert('x')</script> & co"
LOG = """epoch: 1, lr: 3.50e-02 - train loss: 3.20 - valid loss: 3.00, valid fine_R@1: 1.0e-01
epoch: 2, lr: 3.40e-02 - train loss: 2.20 - valid loss: 2.50, valid fine_R@1: 3.0e-01
Epoch loaded: 2 - test loss: 2.40
"""


class KnownVectors:
    """Stands for a CLSP whose embeddings are known: clip i and its captions share axis i."""

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
    """Return (metrics, page, folder) of twelve clips; clips 3 and 4 have swapped fine captions."""
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
    metrics = evaluate(
        known, manifest, "mini", folder / "out", folder / "train_log.txt", model_name=HOSTILE
    )
    return metrics, (folder / "out" / "report.html").read_text(encoding="utf-8"), folder


def test_known_vectors_get_known_figures(evaluated):
    """If this fails, captions or clips are taken in the wrong order."""
    metrics, _, folder = evaluated
    assert metrics == json.loads((folder / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["retrieval"]["global"]["speech_to_text_R@1"]["value"] == 1.0
    fine = metrics["retrieval"]["fine"]["text_to_speech_R@1"]
    assert abs(fine["value"] - 10 / 12) < 1e-12
    assert fine["low"] < fine["value"] < fine["high"] and abs(fine["chance"] - 1 / 12) < 1e-12
    gender = metrics["zero_shot"]["gender"]
    assert gender["n"] == 12 and sum(map(sum, gender["confusion"])) == 12
    assert metrics["zero_shot"]["loudness"] == {
        "classes": ["quiet", "moderate", "loud"],
        "n": 0,
    }


def test_table_shows_the_figures_of_the_json(evaluated):
    """If this fails, the terminal shows something else than metrics.json."""
    metrics, _, _ = evaluated
    table = format_table(metrics)
    row = next(line for line in table.splitlines() if line.startswith("fine text to speech R@1"))
    assert "83.3" in row and "8.3" in row
    assert "gender UAR (12)" in table and "loudness" not in table


def test_page_needs_nothing_from_outside(evaluated):
    """If this fails, the report is blank on a machine without internet, or leaks to others."""
    _, page, _ = evaluated
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources and all(source.startswith("data:audio/mpeg;base64,") for source in sources)
    assert "http" not in page and "@import" not in page


def test_captions_cannot_inject_code(evaluated):
    """If this fails, a caption from the internet runs script in the reader's browser."""
    _, page, _ = evaluated
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_players_hold_the_clips(evaluated):
    """If this fails, the wrong clip, or nothing, is heard."""
    _, page, _ = evaluated
    clips = re.findall(r"data:audio/mpeg;base64,([^\"]+)", page)
    assert len(clips) == 10
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(clips[0])))
    assert rate == 16000 and abs(len(samples) / rate - 0.4) < 0.15 and abs(samples).max() > 0.1


def test_page_shows_figures_curves_and_swapped_captions(evaluated):
    """If this fails, the page drops a section."""
    _, page, _ = evaluated
    assert page.count("<polyline") == 3  # two losses, one recall
    assert "83.3 (" in page and "100.0 (100.0 - 100.0)" in page
    assert "own caption on rank" in page and "own caption on rank 1<" in page


def test_training_log_is_read_once_per_epoch(tmp_path):
    """If this fails, curves of a resumed training zigzag."""
    path = tmp_path / "log.txt"
    path.write_text(LOG + LOG.replace("2.20", "2.10"))
    curves = read_training_log(path)
    assert curves["train loss"] == [(1.0, 3.2), (2.0, 2.1)]
    assert curves["valid fine_R@1"] == [(1.0, 0.1), (2.0, 0.3)]


@pytest.mark.parametrize("values", [[-0.004], [0.0, 0.0], [-3.0, -1.0], [2.0], [-1.0, 5.0]])
def test_curves_of_any_sign_can_be_drawn(values):
    """If this fails, a report of a run whose figures are all negative, or zero, is not written."""
    chart = line_chart("x", {"x": list(enumerate(values))})
    points = re.search(r'points="([^"]*)"', chart)[1].split()
    heights = [float(point.split(",")[1]) for point in points]
    assert len(heights) == len(values) and all(0 <= height <= HEIGHT for height in heights)
    assert [a > b for a, b in pairwise(values)] == [a < b for a, b in pairwise(heights)]
