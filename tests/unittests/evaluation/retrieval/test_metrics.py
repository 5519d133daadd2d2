"""Retrieval metrics and chance levels against brute force and their definitions."""

import numpy as np
import pytest
import torch

from speechbrain_clsp.evaluation.retrieval import ranking
from speechbrain_clsp.evaluation.retrieval.metrics import (
    MEDIAN,
    caption_pairs,
    chance_levels,
    query_values,
    retrieval_estimates,
    retrieval_metrics,
)
from speechbrain_clsp.evaluation.retrieval.ranking import rank_directions, rank_pairs
from tests.utils.ranking import noisy_pairs, unit


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
def test_ranks_equal_brute_force_for_any_chunk(chunk, monkeypatch):
    monkeypatch.setattr(ranking, "CHUNK", chunk)
    speech, text = embeddings(50)
    assert rank_pairs(speech, text).rank.tolist() == brute_force(speech, text)


def test_ties_count_against_the_model():
    constant = torch.ones(10, 4) / 2
    assert rank_pairs(constant, constant).rank.tolist() == [10] * 10
    assert retrieval_metrics(constant, constant)["speech_to_text_R@5"] == 0.0


def test_metrics_equal_their_definitions():
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
    speech, text = embeddings(2000, dim=16)
    shuffled = retrieval_metrics(speech, text[torch.randperm(2000)])
    chance = chance_levels([1] * 2000, 2000)
    assert abs(shuffled["speech_to_text_R@10"] - chance["R@10"]) < 0.01
    assert retrieval_metrics(speech, text)["speech_to_text_R@10"] > 0.3


def test_chance_is_what_random_vectors_reach():
    generator = torch.Generator().manual_seed(0)
    runs = [
        retrieval_metrics(*torch.randn(2, 50, 8, generator=generator).unbind()) for _ in range(200)
    ]
    for name, chance in chance_levels([1] * 50, 50).items():
        if name == MEDIAN:
            continue
        assert abs(np.mean([run[f"speech_to_text_{name}"] for run in runs]) - chance) < 0.012


def test_bad_embeddings_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        rank_pairs(torch.full((3, 2), torch.nan), torch.ones(3, 2))
    with pytest.raises(ValueError, match="must both be"):
        rank_pairs(torch.ones(3, 2), torch.ones(4, 2))


def test_average_precision_equals_its_definition():
    speech, text, pairs = noisy_pairs(5)
    found = rank_pairs(speech, text, pairs)
    values = query_values(found)
    for query in range(40):
        ranks = sorted(found.rank[found.query == query].tolist())
        precision = sum((n + 1) / r for n, r in enumerate(ranks) if r <= 10) / min(10, len(ranks))
        assert abs(values["mAP@10"][query] - precision) < 1e-12
        assert found.first()[query] == ranks[0]
        assert values["R@5"][query] == (ranks[0] <= 5)


def test_equal_captions_count_both_ways():
    apart = torch.tensor([[0, 0], [1, 1], [2, 2], [3, 3], [3, 4]])  # A, B, A, C and B
    kinds = torch.eye(3)
    meaning = kinds[[0, 1, 0, 2, 1]]
    speech = torch.nn.functional.normalize(
        torch.stack([kinds[0], kinds[1], kinds[0], kinds[1] + kinds[2]]), dim=1
    )
    published = retrieval_estimates(rank_directions(speech, meaning, apart))
    merged_pairs = torch.tensor([[0, 0], [1, 1], [2, 0], [3, 2], [3, 1]])
    merged = retrieval_estimates(rank_directions(speech, kinds, merged_pairs))
    for way in ("speech_to_text", "text_to_speech"):
        assert merged[f"{way}_R@1"].value == 1.0
        assert published[f"{way}_R@1"].value < 0.5
    texts, pairs = caption_pairs(["A", "B", "A", "B"])
    assert texts == ["A", "B"] and pairs.tolist() == [[0, 0], [1, 1], [2, 0], [3, 1]]


def test_chance_of_several_relevant_items_is_what_random_vectors_reach():
    pairs = torch.tensor([(i, j) for i in range(30) for j in range(45) if (i * j) % 11 == 1])
    pairs = torch.unique(
        torch.cat([pairs, torch.stack([torch.arange(45) % 30, torch.arange(45)], 1)]), dim=0
    )
    draw = torch.Generator().manual_seed(0)
    runs = []
    for _ in range(200):
        speech, text = torch.randn(30, 8, generator=draw), torch.randn(45, 8, generator=draw)
        found = rank_directions(speech, text, pairs)["speech_to_text"]
        runs.append({**query_values(found), MEDIAN: found.first().numpy()})
    chance = chance_levels(found.total.tolist(), 45)
    for name in ("R@1", "R@5", "R@10", "mAP@10"):
        assert abs(np.mean([run[name] for run in runs]) - chance[name]) < 0.012, name
    assert abs(np.median([run["median_rank"] for run in runs]) - chance["median_rank"]) <= 1


def test_a_leak_and_a_permuted_pairing_show():
    speech, text = unit(500, 16), unit(500, 16, seed=1)

    def recall(*arguments):
        return retrieval_estimates(rank_directions(*arguments))["speech_to_text_R@1"]

    chance = recall(speech, text)
    assert chance.low <= 1 / 500 <= chance.high + 0.002
    assert recall(speech, speech).value == 1.0
    shuffled = torch.stack([torch.arange(500), torch.randperm(500)], dim=1)
    assert recall(speech, speech, shuffled).value < 0.03
