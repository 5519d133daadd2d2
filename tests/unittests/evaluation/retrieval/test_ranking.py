"""Ranks in tiles, pairs of many with many, comparisons and corrections, against brute force."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from speechbrain_clsp.evaluation.compare import paired_comparison
from speechbrain_clsp.evaluation.retrieval import ranking
from speechbrain_clsp.evaluation.retrieval.hubness import dual_softmax_ranks, querybank_ranks
from speechbrain_clsp.evaluation.retrieval.pairing import (
    caption_pairs,
    pair_chance,
    pair_figures,
    query_values,
    rank_both_ways,
)
from speechbrain_clsp.evaluation.retrieval.ranking import rank_pairs
from speechbrain_clsp.evaluation.statistics import bootstrap_mean, median_interval


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return random unit vectors."""
    draw = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=draw), dim=-1)


def brute_force(scores: np.ndarray, pairs: list[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """Rank pairs by looking at one item after the other; scores are float64."""
    ranks = {}
    for query, item in pairs:
        own = [g for q, g in pairs if q == query]
        rank = 1
        for other, score in enumerate(scores[query]):
            ahead = score > scores[query, item] or (other < item and score == scores[query, item])
            wrong = other not in own and score >= scores[query, item]
            rank += wrong or (other in own and ahead)
        ranks[query, item] = rank
    return ranks


def noisy_pairs(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return 40 clips, 60 captions and 90 pairs; dyadic values, so that ties are exact."""
    draw = torch.Generator().manual_seed(seed)
    speech = torch.randint(-2, 3, (40, 6), generator=draw) / 4.0
    text = torch.randint(-2, 3, (60, 6), generator=draw) / 4.0
    pairs = {(i, i) for i in range(40)} | {(i % 40, i) for i in range(60)}
    extra = torch.randint(0, 40, (30, 2), generator=draw).tolist()
    return speech, text, torch.tensor(sorted(pairs | {tuple(pair) for pair in extra}))


@pytest.mark.parametrize("chunk", [1, 7, 40, 1000])
@pytest.mark.parametrize("across", [5, 60, 8192])
def test_many_to_many_equals_brute_force(chunk, across, monkeypatch):
    """If this fails, several captions per clip, ties or tile edges give wrong ranks."""
    monkeypatch.setattr(ranking, "ACROSS", across)
    speech, text, pairs = noisy_pairs(chunk)
    scores = speech.double().numpy() @ text.double().numpy().T
    expected = brute_force(scores, [tuple(pair) for pair in pairs.tolist()])
    found = rank_pairs(speech, text, pairs[torch.randperm(len(pairs))], chunk)
    triples = zip(found.query.tolist(), found.item.tolist(), found.rank.tolist())
    assert {(q, g): rank for q, g, rank in triples} == expected
    assert (np.unique(scores).size < scores.size / 10) and max(expected.values()) > 30


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_scores_that_float32_confuses_are_told_apart(dtype):
    """If this fails, ranks depend on how a library rounds, and differ between machines.

    All items lie within 1e-7 of each other, closer than float32 can tell in a product of 512.
    """
    generator = np.random.default_rng(3)
    query = torch.from_numpy(generator.standard_normal((8, 512))).to(dtype)
    base = generator.standard_normal((1, 512))
    items = torch.from_numpy(base + 1e-7 * generator.standard_normal((300, 512))).to(dtype)
    pairs = torch.stack([torch.arange(8), torch.arange(8) * 30], dim=1)
    scores = query.double().numpy() @ items.double().numpy().T
    own = scores[np.arange(8), pairs[:, 1].numpy()]
    tie = 516 * 2.0**-52 * 512
    expected = (scores >= own[:, None] - tie).sum(axis=1)
    assert rank_pairs(query, items, pairs).rank.tolist() == expected.tolist()
    if dtype == torch.float64:
        rough = query.float() @ items.float().T
        wrong = (rough >= rough[torch.arange(8), pairs[:, 1]][:, None]).sum(dim=1)
        assert wrong.tolist() != expected.tolist()  # or this test would show nothing


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("across", [64, 8192])
def test_both_ways_from_one_pass_equal_two(dtype, across, monkeypatch):
    """If this fails, counting along columns differs from counting along rows."""
    monkeypatch.setattr(ranking, "ACROSS", across)
    speech, text = (3.0 * unit(700, 96)).to(dtype), unit(700, 96, seed=1).to(dtype)
    text[1::2] = (0.4 + 0.01 * text[1::2]).to(dtype)  # half of them close together
    text[:10], speech[:300] = text[0].clone(), speech[0].clone()  # ties; more than a byte counts
    draw = torch.Generator().manual_seed(0)
    own = torch.arange(700)[:, None].expand(700, 2)
    pairs = torch.cat([own, torch.randint(0, 700, (300, 2), generator=draw)])
    scores = (speech.double() @ text.double().T).numpy()
    for found, way in zip(ranking.rank_both(speech, text, pairs, 400), (pairs, pairs.flip(1))):
        alone = rank_pairs(*((speech, text) if way is pairs else (text, speech)), way)
        assert torch.equal(found.rank, alone.rank) and torch.equal(found.order, alone.order)
        few = (found.query < 12) | (found.query > 690)
        matrix = scores if way is pairs else scores.T
        brute = brute_force(np.round(matrix, 9), [tuple(pair) for pair in way.tolist()])
        for q, g, rank in zip(found.query[few], found.item[few], found.rank[few]):
            assert brute[int(q), int(g)] == rank


def test_average_precision_equals_its_definition():
    """If this fails, mAP@10 with several captions per clip is none."""
    speech, text, pairs = noisy_pairs(5)
    found = rank_pairs(speech, text, pairs)
    values = query_values(found)
    for query in range(40):
        ranks = sorted(found.rank[found.query == query].tolist())
        precision = sum((n + 1) / r for n, r in enumerate(ranks) if r <= 10) / min(10, len(ranks))
        assert abs(values["mAP@10"][query] - precision) < 1e-12
        assert values["median_rank"][query] == ranks[0]
        assert values["R@5"][query] == (ranks[0] <= 5)


def test_equal_captions_count_both_ways():
    """If this fails, a perfect model is punished for test sets that repeat captions, unasked."""
    captions = [["A"], ["B"], ["A"], ["C", "B"]]
    texts, pairs = caption_pairs(captions)
    assert texts == ["A", "B", "A", "C", "B"] and len(pairs) == 5
    kinds = torch.eye(3)
    meaning = kinds[[0, 1, 0, 2, 1]]
    speech = torch.nn.functional.normalize(
        torch.stack([kinds[0], kinds[1], kinds[0], kinds[1] + kinds[2]]), dim=1
    )
    published = pair_figures(speech, meaning, pairs)
    texts, pairs = caption_pairs(captions, merge=True)
    assert texts == ["A", "B", "C"] and len(pairs) == 5
    merged = pair_figures(speech, kinds, pairs)
    for way in ("speech_to_text", "text_to_speech"):
        assert merged[f"{way}_R@1"]["value"] == 1.0
        assert published[f"{way}_R@1"]["value"] < 0.5
    with pytest.raises(ValueError, match="Clip 1"):
        caption_pairs([["A"], []])


def test_chance_is_what_random_vectors_reach():
    """If this fails, chance levels beside merged figures are those of unmerged ones."""
    pairs = torch.tensor([(i, j) for i in range(30) for j in range(45) if (i * j) % 11 == 1])
    pairs = torch.unique(
        torch.cat([pairs, torch.stack([torch.arange(45) % 30, torch.arange(45)], 1)]), dim=0
    )
    draw = torch.Generator().manual_seed(0)
    runs = []
    for _ in range(200):
        speech, text = torch.randn(30, 8, generator=draw), torch.randn(45, 8, generator=draw)
        found = rank_both_ways(speech, text, pairs)["speech_to_text"]
        runs.append({name: v for name, v in query_values(found).items()})
    chance = pair_chance(found.total.tolist(), 45)
    for name in ("R@1", "R@5", "R@10", "mAP@10"):
        assert abs(np.mean([run[name] for run in runs]) - chance[name]) < 0.012, name
    assert abs(np.median([run["median_rank"] for run in runs]) - chance["median_rank"]) <= 1


def test_a_leak_and_a_permuted_pairing_show():
    """If this fails, figures do not depend on who belongs to whom."""
    speech, text = unit(500, 16), unit(500, 16, seed=1)
    own = torch.arange(500)[:, None].expand(500, 2)
    chance = pair_figures(speech, text, own)["speech_to_text_R@1"]
    assert chance["low"] <= 1 / 500 <= chance["high"] + 0.002
    assert pair_figures(speech, speech, own)["speech_to_text_R@1"]["value"] == 1.0
    shuffled = torch.stack([torch.arange(500), torch.randperm(500)], dim=1)
    assert pair_figures(speech, speech, shuffled)["speech_to_text_R@1"]["value"] < 0.03


def test_a_paired_test_sees_what_intervals_hide():
    """If this fails, a real difference between models is called luck, or luck a difference."""
    generator = np.random.default_rng(1)
    first = (generator.random(241) < 0.5).astype(float)
    second = first.copy()
    second[np.flatnonzero(first)[:12]] = 0  # right on 12 clips fewer, and on no other
    better = paired_comparison(first, second)
    assert abs(better["difference"] - 12 / 241) < 1e-12 and better["p_value"] < 0.001
    assert 0 < better["low"] < better["high"] and better["worse"] == 0
    low, high = bootstrap_mean(first)
    assert low < second.mean() < high  # their own intervals overlap
    assert paired_comparison(first, first)["p_value"] == 1.0
    one = first.copy()
    one[0] = 1 - one[0]
    assert paired_comparison(first, one)["p_value"] == 1.0  # a coin toss
    with pytest.raises(ValueError, match="same"):
        paired_comparison(first, first[1:])


def test_p_values_of_equal_models_are_uniform():
    """If this fails, one in twenty comparisons is no longer the rate of false alarms."""
    generator = np.random.default_rng(2)
    values = [
        paired_comparison(*generator.random((2, 60)), seed=run)["p_value"] for run in range(200)
    ]
    assert 0.02 < np.mean(np.array(values) < 0.1) < 0.2


def test_captions_of_a_clip_are_resampled_together():
    """If this fails, repeating each query makes intervals shrink."""
    values = (np.random.default_rng(0).random(200) < 0.5).astype(float)
    low, high = bootstrap_mean(values)
    repeated = bootstrap_mean(values.repeat(5), groups=np.arange(200).repeat(5))
    assert abs((repeated[1] - repeated[0]) - (high - low)) < 0.02
    alone = bootstrap_mean(values.repeat(5))
    assert alone[1] - alone[0] < 0.6 * (high - low)
    first, second = values.repeat(5), np.zeros(1000)
    assert (
        paired_comparison(first[:20], second[:20], groups=np.arange(4).repeat(5))["p_value"] > 0.1
    )


def test_large_sets_get_the_same_interval_from_counts():
    """If this fails, a million values take minutes, or another interval."""
    values = (np.random.default_rng(0).random(30_000) < 0.3).astype(float)
    half = np.sqrt(0.21 / 30_000) * 1.96
    low, high = bootstrap_mean(values)
    assert abs((high - low) / 2 - half) < 0.1 * half
    assert median_interval(np.ones(3)) == (1.0, 1.0)


def test_corrections_equal_brute_force():
    """If this fails, querybank normalization or dual softmax is something else than its name."""
    queries, gallery, bank = unit(30, 8), unit(30, 8, seed=1), unit(50, 8, seed=2)
    own = torch.arange(30)[:, None].expand(30, 2)
    wide = [x.double().numpy() for x in (queries, gallery, bank)]
    scores, known = wide[0] @ wide[1].T, wide[2] @ wide[1].T
    pairs = [(i, i) for i in range(30)]

    def ranks(table: np.ndarray) -> list[int]:
        return [brute_force(table, pairs)[pair] for pair in pairs]

    plain, inverted = ranks(scores), ranks(20 * scores - logsumexp(20 * known, axis=0))
    hubs = set(known.argmax(axis=1))
    mixed = [i if s.argmax() in hubs else p for p, i, s in zip(plain, inverted, scores)]
    static = querybank_ranks(queries, gallery, own, bank, dynamic=False).rank.tolist()
    assert static == inverted != plain
    assert querybank_ranks(queries, gallery, own, bank).rank.tolist() == mixed != inverted
    dual = ranks(
        40 * scores - logsumexp(20 * scores, axis=0) - logsumexp(20 * scores, axis=1, keepdims=True)
    )
    assert dual_softmax_ranks(queries, gallery, own).rank.tolist() == dual != plain


def test_a_bank_of_test_queries_is_refused():
    """If this fails, a leaking bank gives better figures under an honest name."""
    queries, own = unit(6, 4), torch.arange(6)[:, None].expand(6, 2)
    with pytest.raises(ValueError, match="2 of the test queries"):
        querybank_ranks(queries, queries, own, torch.cat([unit(3, 4, seed=9), queries[:2]]))
    with pytest.raises(ValueError, match="B > 0"):
        querybank_ranks(queries, queries, own, queries[:0])


def test_memory_does_not_grow_with_the_matrix():
    """If this fails, ranking holds the whole matrix: 100 MiB here, 4 TB for a million pairs."""
    speech, text = unit(5000, 64), unit(5000, 64, seed=1)
    own = torch.arange(5000)[:, None].expand(5000, 2)
    rank_pairs(speech[:2000], text[:2000], own[:2000])  # the matrix library's own buffers

    def peak() -> int:
        return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])

    before = peak()
    rank_pairs(speech, text, own)
    assert (peak() - before) / 1024 < 70


def test_a_collapsed_model_ranks_last_in_every_tile(monkeypatch):
    """If this fails, constant embeddings rank first, or take hours in float64."""
    monkeypatch.setattr(ranking, "ACROSS", 64)
    constant = torch.full((200, 512), 0.1)
    own = torch.arange(200)[:, None].expand(200, 2)
    assert rank_pairs(constant, constant, own, 50).rank.tolist() == [200] * 200


def test_wrong_pairs_are_refused():
    """If this fails, a misaligned test set gets figures."""
    x = torch.eye(3)
    for pairs, reason in (
        ([[0, 0], [1, 3], [2, 2]], "not there"),
        ([[0, 0], [1, 1]], "Query 2 has no item"),
        ([0, 1], "must be"),
    ):
        with pytest.raises(ValueError, match=reason):
            rank_pairs(x, x, torch.tensor(pairs))
    with pytest.raises(ValueError, match="empty"):
        rank_pairs(x[:0], x, torch.tensor([[0, 0]]))
