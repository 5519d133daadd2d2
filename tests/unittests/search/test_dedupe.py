"""Duplicates among the clips of a store, also where an index has other stores."""

import numpy as np
import pytest

from speechbrain_clsp.dataio.manifest import write_manifest
from speechbrain_clsp.search import EmbeddingStore, StyleIndex, write_store
from speechbrain_clsp.search.dedupe import NEIGHBORS, find_duplicates


def make_store(folder, names, vectors):
    manifest = folder.with_suffix(".arrow")
    write_manifest(manifest, [{"id": name, "audio": name, "duration": 1.0} for name in names])
    write_store(folder, names, vectors, source=str(manifest))
    return EmbeddingStore(folder)


def test_nearer_clips_of_another_store_hide_no_duplicates(tmp_path):
    """A pair of the store at a cosine of 0.995, with many copies of each in another store."""
    generator = np.random.default_rng(0)
    one, other, third = np.linalg.qr(generator.standard_normal((8, 3)))[0].T
    near = 0.995 * one + np.sqrt(1 - 0.995**2) * other
    store = make_store(tmp_path / "store", ["a", "b", "c"], np.stack([one, third, near]))
    copies = np.stack([one, near]).repeat(5 * NEIGHBORS, axis=0)
    copies = make_store(tmp_path / "copies", [f"copy{n}" for n in range(len(copies))], copies)
    index = StyleIndex.create(tmp_path / "index", store.folder)
    assert find_duplicates(store, index, cosine=0.99) == [["a", "c"]]
    index.add(copies.folder)
    assert find_duplicates(store, index, cosine=0.99) == [["a", "c"]]
    assert find_duplicates(store, index, cosine=0.999) == []


@pytest.mark.parametrize("cosine", [0, 1.5])
def test_a_cosine_that_is_none_is_refused(tmp_path, cosine):
    store = make_store(tmp_path / "store", ["a", "b"], np.eye(2))
    index = StyleIndex.create(tmp_path / "index", store.folder)
    with pytest.raises(ValueError, match="cosine must be in"):
        find_duplicates(store, index, cosine)
