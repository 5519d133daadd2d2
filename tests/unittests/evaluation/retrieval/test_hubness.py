"""Corrections for hubs against brute force; a bank that leaks is noticed."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from speechbrain_clsp.evaluation.retrieval.hubness import dual_softmax_ranks, querybank_ranks
from tests.utils.ranking import brute_force, unit


def test_corrections_equal_brute_force():
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
    found = querybank_ranks(queries, gallery, own, bank).rank.tolist()
    assert found == mixed and mixed not in (plain, inverted)
    dual = ranks(
        40 * scores - logsumexp(20 * scores, axis=0) - logsumexp(20 * scores, axis=1, keepdims=True)
    )
    assert dual_softmax_ranks(queries, gallery, own).rank.tolist() == dual != plain


def test_a_bank_of_test_queries_is_refused():
    queries, own = unit(6, 4), torch.arange(6)[:, None].expand(6, 2)
    with pytest.raises(ValueError, match="2 of the test queries"):
        querybank_ranks(queries, queries, own, torch.cat([unit(3, 4, seed=9), queries[:2]]))
    with pytest.raises(ValueError, match="B > 0"):
        querybank_ranks(queries, queries, own, queries[:0])
