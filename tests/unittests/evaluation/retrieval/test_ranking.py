"""Ranks in tiles, one to one and many to many, against brute force in float64."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from speechbrain_clsp.evaluation.retrieval import ranking
from speechbrain_clsp.evaluation.retrieval.ranking import rank_directions, rank_pairs
from tests.utils.ranking import brute_force, noisy_pairs, unit


@pytest.mark.parametrize("chunk", [1, 7, 40, 1000])
@pytest.mark.parametrize("across", [5, 60, 8192])
def test_many_to_many_equals_brute_force(chunk, across, monkeypatch):
    monkeypatch.setattr(ranking, "CHUNK", chunk)
    monkeypatch.setattr(ranking, "ACROSS", across)
    speech, text, pairs = noisy_pairs(chunk)
    scores = speech.double().numpy() @ text.double().numpy().T
    expected = brute_force(scores, [tuple(pair) for pair in pairs.tolist()])
    found = rank_pairs(speech, text, pairs[torch.randperm(len(pairs))])
    triples = zip(found.query.tolist(), found.item.tolist(), found.rank.tolist())
    assert {(q, g): rank for q, g, rank in triples} == expected
    assert (np.unique(scores).size < scores.size / 10) and max(expected.values()) > 30


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_scores_that_float32_confuses_are_told_apart(dtype):
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
    monkeypatch.setattr(ranking, "CHUNK", 400)
    monkeypatch.setattr(ranking, "ACROSS", across)
    speech, text = (3.0 * unit(700, 96)).to(dtype), unit(700, 96, seed=1).to(dtype)
    text[1::2] = (0.4 + 0.01 * text[1::2]).to(dtype)  # half of them close together
    text[:10], speech[:300] = text[0].clone(), speech[0].clone()  # ties; more than a byte counts
    draw = torch.Generator().manual_seed(0)
    own = torch.arange(700)[:, None].expand(700, 2)
    pairs = torch.cat([own, torch.randint(0, 700, (300, 2), generator=draw)])
    scores = (speech.double() @ text.double().T).numpy()
    both = rank_directions(speech, text, pairs).values()
    for found, way in zip(both, (pairs, pairs.flip(1))):
        alone = rank_pairs(*((speech, text) if way is pairs else (text, speech)), way)
        assert torch.equal(found.rank, alone.rank) and torch.equal(found.order, alone.order)
        few = (found.query < 12) | (found.query > 690)
        matrix = scores if way is pairs else scores.T
        brute = brute_force(np.round(matrix, 9), [tuple(pair) for pair in way.tolist()])
        for q, g, rank in zip(found.query[few], found.item[few], found.rank[few]):
            assert brute[int(q), int(g)] == rank


def test_memory_does_not_grow_with_the_matrix():
    speech, text = unit(5000, 64), unit(5000, 64, seed=1)
    own = torch.arange(5000)[:, None].expand(5000, 2)
    rank_pairs(speech[:2000], text[:2000], own[:2000])  # the matrix library's own buffers

    def peak() -> int:
        return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])

    before = peak()
    rank_pairs(speech, text, own)
    assert (peak() - before) / 1024 < 70


def test_a_collapsed_model_ranks_last_in_every_tile(monkeypatch):
    monkeypatch.setattr(ranking, "ACROSS", 64)
    monkeypatch.setattr(ranking, "CHUNK", 50)
    constant = torch.full((200, 512), 0.1)
    assert rank_pairs(constant, constant).rank.tolist() == [200] * 200


def test_wrong_pairs_are_refused():
    x = torch.eye(3)
    for pairs, reason in (
        ([[0, 0], [1, 3], [2, 2]], "do not exist"),
        ([[0, 0], [1, 1]], "Query 2 has no relevant item"),
        ([0, 1], "must be"),
    ):
        with pytest.raises(ValueError, match=reason):
            rank_pairs(x, x, torch.tensor(pairs))
    with pytest.raises(ValueError, match="empty"):
        rank_pairs(x[:0], x, torch.tensor([[0, 0]]))
