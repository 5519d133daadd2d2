"""What the cache embeds again, and what not."""

import pytest
import torch

from speechbrain_clsp.evaluation.models.base import MOVING
from speechbrain_clsp.evaluation.models.bounds import RandomModel
from speechbrain_clsp.evaluation.models.cache import CachedModel


class Counting(RandomModel):
    """Counts what it is asked for."""

    def __init__(self, revision: str) -> None:
        self.revision, self.asked = revision, []

    def encode_files(self, paths):
        """Embed and count."""
        self.asked += paths
        return super().encode_files(paths)


def test_the_cache_knows_model_revision_and_content(tmp_path, clips):
    path = tmp_path / "cache" / "embeddings.sqlite"
    first = CachedModel(Counting("1"), path)
    vectors = first.encode_files([clips[0], clips[1], clips[0]])
    assert first.inner.asked == [clips[0], clips[1]] and torch.equal(vectors[0], vectors[2])
    again = CachedModel(Counting("1"), path)
    assert torch.equal(again.encode_files(clips[:2]), vectors[:2]) and again.inner.asked == []
    copy = tmp_path / "moved.wav"
    copy.write_bytes(open(clips[0], "rb").read())
    again.encode_files([str(copy)])
    assert again.inner.asked == []
    copy.write_bytes(open(clips[1], "rb").read() + b"\0")
    again.encode_files([str(copy)])
    assert again.inner.asked == [str(copy)]
    other = CachedModel(Counting("2"), path)
    other.encode_files(clips[:1])
    assert other.inner.asked == clips[:1]
    for _ in range(2):
        moving = CachedModel(Counting(MOVING), path)
        moving.encode_files(clips[:1])
        assert moving.inner.asked == clips[:1]


def test_an_embedding_that_is_nan_is_named_with_its_model_and_not_kept(tmp_path, monkeypatch):
    """If this fails, evaluations end on NaN without telling whose it is, every time again."""
    cached = CachedModel(RandomModel(), tmp_path / "cache.sqlite")
    vectors = RandomModel().encode_text(["good", "bad"])
    vectors[1, 3] = torch.nan
    monkeypatch.setattr(cached.inner, "encode_text", lambda texts: vectors[-len(texts) :])
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^random: the embedding of 'bad' is NaN or infinite"):
            cached.encode_text(["good", "bad"])
