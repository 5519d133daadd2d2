"""Embeddings from files."""

import numpy as np
import pytest
import torch

from speechbrain_clsp.evaluation.models.precomputed import PrecomputedModel


def test_precomputed_vectors_are_found_by_path_then_by_name(tmp_path):
    path = tmp_path / "x.npz"
    arrays = {"paths": ["/old/a.wav", "/old/b.wav", "/one/c.wav", "/two/c.wav"]}
    arrays |= {"embeddings": 2 * np.eye(4), "texts": ["A."], "text_embeddings": np.ones((1, 4))}
    np.savez(path, **arrays, model="other", revision="abc")
    model = PrecomputedModel(path)
    assert (model.model, model.revision) == ("other", "abc")
    assert model.encode_files(["/new/b.wav", "/old/a.wav"]).tolist() == np.eye(4)[[1, 0]].tolist()
    torch.testing.assert_close(model.encode_text(["A."])[0], torch.full((4,), 0.5))
    for ask in (lambda: model.encode_files(["/new/c.wav"]), lambda: model.encode_text(["B."])):
        with pytest.raises(ValueError, match="no embedding of 1"):
            ask()
    np.savez(path, paths=["a"], embeddings=np.eye(1))
    with pytest.raises(ValueError, match="texts"):
        PrecomputedModel(path)


def test_a_file_that_holds_no_arrays_is_named_by_what_it_is(tmp_path):
    path = tmp_path / "x.npz"
    for content, kind in (
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (b"a,b\n", "a text file"),
        (b"PK\x03\x04 cut off", "zip"),
        (b"\x93NUMPY\x01\x00", "NumPy"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"x\.npz is not an \.npz file.*{kind}"):
            PrecomputedModel(path)
    np.save(tmp_path / "y.npy", np.eye(2))
    with pytest.raises(ValueError, match=r"y\.npy is not an \.npz file"):
        PrecomputedModel(tmp_path / "y.npy")
