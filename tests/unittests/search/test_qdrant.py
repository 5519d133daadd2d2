"""Qdrant's engine, in the client's own process: the hits and conditions of the exact engine."""

import sys

import numpy as np
import pytest

from speechbrain_clsp.search.index import StyleIndex
from tests.utils.stores import corpus_store, unit_vectors

SIZE = 200
CONDITIONS = [
    None,
    "gender = 'male'",
    "gender != 'male'",
    "NOT (gender = 'male' OR duration > 3)",
    "gender IS NULL AND duration BETWEEN 2 AND 3",
    "gender IS NOT NULL AND NOT duration IN (2, 3.0)",
    "labels.mood = 'sad' AND NOT array_has(situational_tags, 'loud')",
    "gender NOT IN ('it''s', 'male') OR array_has(situational_tags, 'loud')",
    "id = 'none'",
]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Return the index of both engines of one store."""
    pytest.importorskip("qdrant_client")
    folder = tmp_path_factory.mktemp("corpus")
    store = corpus_store(folder, "store", 0, SIZE)
    return [StyleIndex.create(folder / e, store, engine=e) for e in ("exact", "qdrant")]


@pytest.mark.parametrize("where", CONDITIONS)
def test_it_finds_what_the_exact_engine_does(two, where):
    query = unit_vectors(1, 32, seed=9)[0]
    exact, other = (index.search(query, 20, where) for index in two)
    assert exact.column("id").to_pylist() == other.column("id").to_pylist()
    assert exact.schema.names == other.schema.names
    scores = [found.column("score").to_numpy() for found in (exact, other)]
    np.testing.assert_allclose(*scores, atol=1e-6)
    rows = [[{**row, "score": None} for row in found.to_pylist()] for found in (exact, other)]
    assert rows[0] == rows[1]


def test_what_qdrant_cannot_do_is_said(two):
    with pytest.raises(ValueError, match="Qdrant cannot compare texts by LIKE"):
        two[1].search(unit_vectors(1, 32)[0], 1, "gender LIKE 'm%'")


def test_rows_are_replaced_and_deleted(two, tmp_path):
    index = two[1]
    best = index.search(unit_vectors(1, 32, seed=9)[0], 2).column("id").to_pylist()
    assert index.delete([best[0], "none"]) == 1 and len(index) == SIZE - 1
    again = corpus_store(tmp_path, "again", 0, SIZE)
    assert index.add(again) == SIZE and len(index) == SIZE
    hit = index.search(unit_vectors(1, 32, seed=9)[0], 1).to_pylist()[0]
    assert (hit["id"], hit["source"]) == (best[0], "again")


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    store = corpus_store(tmp_path, "store", 0, 3)
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    with pytest.raises(ValueError, match=r"pip install 'speechbrain-clsp\[qdrant\]'"):
        StyleIndex.create(tmp_path / "index", store, engine="qdrant")
