import pickle

import pytest
import torch

from speechbrain_clsp import CLSP, StyleReward
from speechbrain_clsp.inference.cache import EmbeddingCache
from tests.utils.small import CAPTIONS, model_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture
def clsp(folder):
    return CLSP.from_pretrained(folder)


def counted(clsp, monkeypatch) -> list[int]:
    """Return a list that gets the number of captions of each pass of the text tower."""
    passes, forward = [], clsp.text_tower.forward
    monkeypatch.setattr(
        clsp.text_tower, "forward", lambda *args: passes.append(len(args[0])) or forward(*args)
    )
    return passes


def test_the_caption_of_a_group_is_embedded_once_and_the_same(clsp, monkeypatch):
    alone = clsp.encode_text(CAPTIONS[:1])
    clsp.text_cache.clear()
    passes = counted(clsp, monkeypatch)
    wavs = torch.rand(16, 8000) - 0.5
    for _ in range(3):
        clsp.score_batch(wavs[:2], CAPTIONS[:1] * 16)
        StyleReward(clsp)(wavs, CAPTIONS[:1] * 16)
    assert passes == [1]
    assert torch.equal(clsp.encode_text(CAPTIONS[:1] * 16), alone.expand(16, -1))


def test_order_and_numbers_in_messages_are_those_of_the_caller(clsp):
    first = clsp.encode_text(CAPTIONS[1:2])
    both = clsp.encode_text([CAPTIONS[0], CAPTIONS[1], CAPTIONS[0]])
    assert torch.equal(both[1], first[0]) and torch.equal(both[0], both[2])
    with pytest.raises(ValueError, match=r"texts\[2\] has"):
        clsp.encode_text([CAPTIONS[0], CAPTIONS[1], "slowly " * 300])


def test_a_change_of_weights_drops_what_was_kept(clsp):
    before = clsp.encode_text(CAPTIONS)
    with torch.no_grad():
        next(clsp.text_tower.parameters()).mul_(1.5)
    assert not torch.allclose(clsp.encode_text(CAPTIONS), before)
    clsp.set_precision("bf16")
    assert len(clsp.text_cache) == 0


def test_a_caption_embedded_in_inference_mode_serves_a_reward_with_gradients(clsp):
    with torch.inference_mode():
        clsp.encode_text(CAPTIONS[:1])
        StyleReward(clsp)(torch.rand(1, 8000) - 0.5, CAPTIONS[:1])
    wavs = (torch.rand(1, 8000) - 0.5).requires_grad_()
    StyleReward(clsp)(wavs, CAPTIONS[:1]).sum().backward()
    assert wavs.grad.abs().max() > 0
    with torch.no_grad():
        assert not StyleReward(clsp)(wavs, CAPTIONS[:1]).requires_grad


def test_a_pickled_cache_is_empty_and_as_large():
    cache = EmbeddingCache(7)
    cache.add({"a": torch.zeros(2)})
    again = pickle.loads(pickle.dumps(cache))
    assert (len(again), again.max_entries) == (0, 7)
    with pytest.raises(ValueError, match="0 or more"):
        EmbeddingCache(-1)


def test_provenance_tells_models_and_precisions_apart(clsp, folder):
    first, again = clsp.provenance(), CLSP.from_pretrained(folder).provenance()
    assert first == again and first["model"] == str(folder) and first["precision"] == "fp32"
    assert first["package"].startswith("speechbrain-clsp ")
    clsp.set_precision("bf16")
    assert clsp.provenance()["weights_sha256"] != first["weights_sha256"]
