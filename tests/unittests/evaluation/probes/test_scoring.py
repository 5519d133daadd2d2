"""Scores of models whose embeddings are known, on real files."""

import numpy as np
import pytest
import torch

from speechbrain_clsp.dataio.manifest import Manifest, write_manifest
from speechbrain_clsp.evaluation.examples import worst_pairs
from speechbrain_clsp.evaluation.models import CachedModel, open_model
from speechbrain_clsp.evaluation.probes import ProbePair, make_pairs, run_probes
from tests.utils.small import tone, write

UP, DOWN = "It starts softly and ends loudly.", "It starts loudly and ends softly."


class Ramp:
    """A model that measures whether a file grows louder, and knows two captions."""

    model, revision, is_bound = "ramp", "1", False

    def __init__(self, vectors=None):
        self.files, self.texts = [], []
        self.vectors = vectors or {UP: [1.0, 0.0], DOWN: [0.0, 1.0]}

    def encode_files(self, paths):
        """Return the levels of the second and the first half."""
        import soundfile

        self.files += paths
        levels = []
        for path in paths:
            half = np.array_split(soundfile.read(path)[0], 2)
            levels.append([np.sqrt(np.mean(part**2)) for part in reversed(half)])
        return torch.nn.functional.normalize(torch.tensor(levels).float(), dim=1)

    def encode_text(self, texts):
        """Return a known vector, or one between."""
        self.texts += texts
        vectors = [self.vectors.get(text, [1.0, 1.0]) for text in texts]
        return torch.nn.functional.normalize(torch.tensor(vectors), dim=1)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Return clips that grow louder (a, c) and softer (b); c is a part of a recording."""
    folder = tmp_path_factory.mktemp("probes")
    ramp = np.linspace(0.1, 1.0, 16000).astype(np.float32)
    write(folder / "a.wav", tone() * ramp)
    write(folder / "b.wav", tone() * ramp[::-1])
    write(folder / "long.wav", np.concatenate([tone() * ramp[::-1], tone() * ramp]))
    rows = [
        {"id": "a", "audio": "a.wav", "fine_captions": [UP]},
        {"id": "b", "audio": "b.wav", "fine_captions": [DOWN]},
        {"id": "c", "audio": "long.wav", "start": 1.0, "fine_captions": [UP]},
    ]
    common = {"duration": 1.0, "global_captions": ["It speaks."], "source": "own"}
    write_manifest(folder / "test.arrow", [common | row for row in rows])
    return Manifest(folder / "test.arrow")


def order(side, anchor, true, false, attribute="loudness"):
    """Return a pair."""
    return ProbePair("order", attribute, side, anchor, true, false)


def test_clips_and_captions_are_compared_from_both_sides(manifest):
    pairs = [
        order("captions", "a", UP, DOWN),
        order("captions", "b", DOWN, UP),
        order("captions", "c", UP, DOWN),  # only if the part is read, not the recording
        order("clips", UP, "a", "b"),
        order("clips", DOWN, "b", "c"),
        order("texts", UP, "It speaks.", DOWN),
    ]
    scores = run_probes(Ramp(), manifest, pairs)
    assert scores.hits.tolist() == [1] * 6 and (scores.margins > 0.1).all()
    wrong = [order(p.side, p.anchor, p.false, p.true) for p in pairs]
    assert run_probes(Ramp(), manifest, wrong).hits.tolist() == [0] * 6
    np.testing.assert_allclose(run_probes(Ramp(), manifest, wrong).margins, -scores.margins)


def test_ties_are_wrong(manifest):
    pairs = [order("captions", "a", "One.", "Two."), order("clips", "One.", "a", "c")]
    assert run_probes(Ramp(), manifest, pairs).hits.tolist() == [0, 0]
    near = Ramp({"One.": [1.0, 0.0], "Two.": [1.0, 3e-8]})
    assert run_probes(near, manifest, pairs[:1]).hits.tolist() == [0]


def test_nothing_is_embedded_twice(manifest):
    model = Ramp()
    pairs = [order("captions", clip, UP, DOWN) for clip in ("a", "b", "a")]
    run_probes(CachedModel(model), manifest, [*pairs, order("clips", UP, "a", "b")])
    assert len(model.files) == 2 and sorted(model.texts) == sorted([UP, DOWN])


def test_a_kind_is_the_mean_of_its_groups(manifest):
    good, bad = order("captions", "a", UP, DOWN), order("captions", "a", DOWN, UP)
    rate = order("captions", "a", DOWN, UP, attribute="rate")
    place = ProbePair("place", "pause", "captions", "a", UP, DOWN)
    scores = run_probes(Ramp(), manifest, [good, good, good, bad, rate, place])
    accuracies = scores.accuracies()
    assert {name: each.value for name, each in accuracies.items()} == {
        "order": 0.375,
        "order: loudness, captions": 0.75,
        "order: rate, captions": 0.0,
        "place": 1.0,
        "place: pause, captions": 1.0,
    }
    loudness = accuracies["order: loudness, captions"]
    assert loudness.low < 0.75 < loudness.high and loudness.chance == 0.5
    assert scores.counts()["order"] == 5
    margin = scores.margins_of()["place: pause, captions"]
    assert margin.value == pytest.approx(scores.margins[5]) and margin.chance is None


def test_intervals_are_those_of_a_proportion(manifest):
    pairs = [order("captions", "a", UP, DOWN)] * 320 + [order("captions", "a", DOWN, UP)] * 80
    found = run_probes(Ramp(), manifest, pairs).accuracies()["order"]
    half = 1.96 * np.sqrt(0.8 * 0.2 / 400)  # of the normal approximation
    assert found.low == pytest.approx(0.8 - half, abs=0.008)
    assert found.high == pytest.approx(0.8 + half, abs=0.008)


def test_worst_pairs_come_first(manifest):
    pairs = [order("captions", "a", UP, DOWN), *[order("captions", "b", UP, DOWN)] * 4]
    scores = run_probes(Ramp(), manifest, [*pairs, order("clips", DOWN, "a", "b")])
    shown = worst_pairs(scores, list(manifest))
    assert len(shown) == 3 and all(example.true < example.false for example in shown)
    margins = [example.true - example.false for example in shown]
    assert margins == sorted(margins) and margins[0] == scores.margins.min()
    assert {clip for example in shown for clip in example.rows} <= {"a", "b"}


def test_a_bag_of_words_knows_no_order(manifest):
    model = open_model(f"bag-of-words:{manifest.path}")
    pairs = make_pairs(list(manifest))
    scores = run_probes(model, manifest, pairs)
    accuracies = scores.accuracies()
    assert accuracies["order"].value == 0.0 and scores.counts()["order"] == 3
    speech = model.encode_files([row["audio"] for row in manifest][:2])
    assert speech.shape == model.encode_text([UP, "?"]).shape
    with pytest.raises(ValueError, match="lacks 1"):
        model.encode_files(["x.wav"])


def test_clips_that_the_manifest_lacks_are_named(manifest):
    with pytest.raises(ValueError, match=r"lacks 1 clips of the pairs: \['z'\]"):
        run_probes(Ramp(), manifest, [order("captions", "z", UP, DOWN)])
