"""Stores: what is written comes back, and what is wrong is named."""

import json

import numpy as np
import pyarrow as pa
import pytest

from speechbrain_clsp.search.store import (
    EmbeddingStore,
    check_store_folder,
    read_mark,
    vector_column,
    vectors_of,
    write_store,
)
from tests.utils.stores import random_store, unit_vectors


def test_a_store_gives_back_ids_and_vectors(tmp_path):
    ids, vectors = [f"c{n}" for n in range(25)], unit_vectors(25)
    write_store(tmp_path / "s", ids, vectors, shard_rows=10, weights_sha256="ab")
    store = EmbeddingStore(tmp_path / "s")
    assert (len(store), store.ids(), store.provenance.n_shards) == (25, ids, 3)
    np.testing.assert_array_equal(store.vectors(), vectors.astype(np.float16))
    assert [row for table in store.tables() for row in table["row"].to_pylist()] == list(range(25))
    store.check_hashes()


def test_a_slice_of_a_column_gives_its_own_vectors():
    vectors = unit_vectors(9).astype(np.float16)
    column = vector_column(vectors)
    np.testing.assert_array_equal(vectors_of(column.slice(3, 4)), vectors[3:7])
    chunks = pa.chunked_array([column.slice(0, 2), column.slice(5)])
    np.testing.assert_array_equal(vectors_of(chunks), vectors[[0, 1, 5, 6, 7, 8]])


def test_a_million_vectors_are_written_in_seconds_and_mapped(tmp_path):
    vectors = np.tile(unit_vectors(1000, 64), (1000, 1)).astype(np.float16)
    write_store(tmp_path / "s", map(str, range(len(vectors))), vectors)
    store = EmbeddingStore(tmp_path / "s")
    assert len(store) == 1_000_000
    before = pa.total_allocated_bytes()
    last = vectors_of(store.table(15).column("vector"))
    assert not last.flags.owndata and pa.total_allocated_bytes() == before
    np.testing.assert_array_equal(last[-1], vectors[-1])


def test_what_is_wrong_is_named(tmp_path):
    store = random_store(tmp_path / "s", list("abcdef"), shard_rows=2)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    shard = store.folder / "shards" / "00001.arrow"
    content = shard.read_bytes()
    for pattern, act in {
        "no store.json": lambda: EmbeddingStore(tmp_path / "absent"),
        "holds thesis.txt": lambda: check_store_folder(tmp_path / "other"),
        "is a file": lambda: check_store_folder(shard),
        "weights_sha256": lambda: random_store(store.folder, list("abcdef"), weights_sha256="1"),
        "2 ids and 1 vectors": lambda: write_store(tmp_path / "n", "ab", np.eye(1)),
        "'b' has the norm 2": lambda: write_store(tmp_path / "m", "ab", np.diag([1.0, 2.0])),
    }.items():
        with pytest.raises((OSError, ValueError), match=pattern):
            act()
    shard.write_bytes(content[:-1] + b"?")
    with pytest.raises(ValueError, match="00001.arrow was changed"):
        store.check_hashes()
    shard.write_bytes(content[:100])
    with pytest.raises(ValueError, match=r"00001.arrow is damaged"):
        store.ids()
    shard.unlink()
    with pytest.raises(FileNotFoundError, match="00001.arrow is missing"):
        store.ids()
    (store.folder / "complete.json").unlink()
    with pytest.raises(ValueError, match="half built: 2 of 3 shards"):
        EmbeddingStore(store.folder)
    about = json.loads((store.folder / "store.json").read_text())
    (store.folder / "store.json").write_text(json.dumps({**about, "color": "red"}))
    with pytest.raises(ValueError, match="of another version"):
        EmbeddingStore(store.folder)


@pytest.mark.parametrize("content", ["{}", "[]", "null", "[{}, {}]", "[1, 2]"], ids=range(5))
def test_a_damaged_list_of_shards_is_named_with_the_way_out(tmp_path, content):
    store = random_store(tmp_path / "store", ["a", "b", "c"], 8, shard_rows=2).folder
    (store / "complete.json").write_text(content)
    with pytest.raises(ValueError, match=r"complete\.json is damaged.*: remove it, and give the"):
        EmbeddingStore(store)
    (store / "shards" / "00000.json").write_text(content)
    with pytest.raises(ValueError, match=r"00000\.json is damaged.*: remove it, and give the"):
        read_mark(store, 0)
