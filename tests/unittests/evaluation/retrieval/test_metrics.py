"""Retrieval and zero-shot figures against brute force in float64."""

import json

import numpy as np
import pytest
import torch

from speechbrain_clsp.evaluation.retrieval.metrics import (
    retrieval_chance,
    retrieval_metrics,
    retrieval_ranks,
)
from speechbrain_clsp.evaluation.statistics import bootstrap_mean, bootstrap_recall
from speechbrain_clsp.evaluation.zero_shot import accuracy_metrics, classify, read_tasks


def embeddings(size: int, dim: int = 8, noise: float = 0.7) -> tuple[torch.Tensor, torch.Tensor]:
    """Return matching unit vectors [N, D], the second a noisy copy of the first."""
    generator = torch.Generator().manual_seed(size)
    speech = torch.randn(size, dim, generator=generator)
    text = speech + noise * torch.randn(size, dim, generator=generator)
    unit = torch.nn.functional.normalize
    return unit(speech, dim=1), unit(text, dim=1)


def brute_force(queries: torch.Tensor, gallery: torch.Tensor) -> list[int]:
    """Rank in float64 by sorting, one query at a time."""
    scores = queries.double().numpy() @ gallery.double().numpy().T
    return [1 + int((np.delete(row, i) >= row[i]).sum()) for i, row in enumerate(scores)]


@pytest.mark.parametrize("chunk", [1, 7, 50, 64, 1000])
def test_ranks_equal_brute_force_for_any_chunk(chunk):
    """If this fails, figures depend on memory settings, or on an off-by-one at a chunk's edge."""
    speech, text = embeddings(50)
    assert retrieval_ranks(speech, text, chunk).tolist() == brute_force(speech, text)


def test_ties_count_against_the_model():
    """If this fails, a model that maps everything to one point gets a perfect score."""
    constant = torch.ones(10, 4) / 2
    assert retrieval_ranks(constant, constant).tolist() == [10] * 10
    assert retrieval_metrics(constant, constant)["speech_to_text_R@5"] == 0.0


def test_metrics_equal_their_definitions():
    """If this fails, our figures cannot be compared with published ones."""
    speech, text = embeddings(40)
    metrics = retrieval_metrics(speech, text)
    for way, pair in (("speech_to_text", (speech, text)), ("text_to_speech", (text, speech))):
        ranks = np.array(brute_force(*pair))
        for k in (1, 5, 10):
            assert metrics[f"{way}_R@{k}"] == np.mean(ranks <= k)
        precision = np.mean([1 / rank if rank <= 10 else 0 for rank in ranks])
        assert abs(metrics[f"{way}_mAP@10"] - precision) < 1e-12
    assert 0.2 < metrics["speech_to_text_R@1"] < 0.9  # or the test would be vacuous


def test_a_permuted_pairing_falls_to_chance():
    """If this fails, the figures do not depend on who belongs to whom."""
    speech, text = embeddings(2000, dim=16)
    shuffled = retrieval_metrics(speech, text[torch.randperm(2000)])
    chance = retrieval_chance(2000)
    assert abs(shuffled["speech_to_text_R@10"] - chance["R@10"]) < 0.01
    assert retrieval_metrics(speech, text)["speech_to_text_R@10"] > 0.3


def test_chance_is_what_random_vectors_reach():
    """If this fails, the chance level printed beside a figure is wrong."""
    generator = torch.Generator().manual_seed(0)
    runs = [
        retrieval_metrics(*torch.randn(2, 50, 8, generator=generator).unbind()) for _ in range(200)
    ]
    for name, chance in retrieval_chance(50).items():
        assert abs(np.mean([run[f"speech_to_text_{name}"] for run in runs]) - chance) < 0.012


def test_bad_embeddings_are_refused():
    """If this fails, NaN embeddings get ranks."""
    with pytest.raises(ValueError, match="NaN"):
        retrieval_ranks(torch.full((3, 2), torch.nan), torch.ones(3, 2))
    with pytest.raises(ValueError, match="must both be"):
        retrieval_ranks(torch.ones(3, 2), torch.ones(4, 2))


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """If this fails, an interval of 95 % is none."""
    generator = np.random.default_rng(5)
    covered = 0
    for run in range(200):
        low, high = bootstrap_mean((generator.random(120) < 0.6).astype(float), seed=run)
        covered += low <= 0.6 <= high
    assert 0.90 <= covered / 200 <= 0.99


def test_recall_interval_keeps_classes_apart():
    """If this fails, a rare class makes the interval of UAR collapse or explode."""
    labels = np.array([0] * 190 + [1] * 10)
    predicted = labels.copy()
    predicted[190:195] = 0
    low, high = bootstrap_recall(predicted, labels)
    assert low < 0.75 < high
    assert 0.2 < high - low < 0.4  # ten clips decide: 0.5 +- 0.31, halved
    assert bootstrap_recall(labels, labels) == (1.0, 1.0)


def test_accuracy_equals_hand_counts():
    """If this fails, WA and UAR are mixed up or a missing class counts as zero."""
    labels, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 1, 0])
    metrics = accuracy_metrics(predicted, labels, n_classes=4)
    assert metrics["WA"] == 4 / 6
    assert abs(metrics["UAR"] - (2 / 3 + 1 + 0) / 3) < 1e-12
    assert metrics["confusion"] == [[2, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert (metrics["chance_WA"], metrics["chance_UAR"]) == (0.5, 0.25)


def test_several_prompts_of_a_class_are_averaged():
    """If this fails, prompt ensembles shift classes against each other."""
    speech, prompts = embeddings(6)
    expected = torch.stack([prompts[:4].mean(0), prompts[4:].mean(0)])
    expected = (speech @ torch.nn.functional.normalize(expected, dim=1).T).argmax(1)
    assert torch.equal(classify(speech, prompts, [4, 2]), expected)


def test_prompt_files_are_checked(tmp_path):
    """If this fails, a user's typo in a prompt file ends in a KeyError."""
    with pytest.raises(FileNotFoundError, match="mini"):
        read_tasks(tmp_path / "absent.json")
    (tmp_path / "a.json").write_text(json.dumps({"gender": {"prompts": {}}}))
    with pytest.raises(ValueError, match="column"):
        read_tasks(tmp_path / "a.json")
    task = read_tasks("mini")[0]
    assert task.label_of({"id": "a", "gender": None}) == -1
    with pytest.raises(ValueError, match="'robot'"):
        task.label_of({"id": "a", "gender": "robot"})
