import threading
import time

import pytest
import torch

from speechbrain_clsp.serve.batching import BatchedModel
from tests.utils.small import CAPTIONS, tone


def make_wavs() -> list[torch.Tensor]:
    return [torch.from_numpy(tone(0.3 + 0.17 * n, frequency=90 + 9 * n)) for n in range(12)]


@pytest.fixture
def model(clsp):
    model = BatchedModel(clsp, batch_seconds=8.0)
    yield model
    model.close()


def hold(model, monkeypatch) -> tuple[threading.Event, list[int]]:
    """Keep the model busy until an event; returns it, and a list of the sizes of batches."""
    free, sizes, embed = threading.Event(), [], model.clsp.try_embed

    def slowly(wavs):
        sizes.append(len(wavs))
        assert free.wait(30)
        return embed(wavs)

    monkeypatch.setattr(model.clsp, "try_embed", slowly)
    return free, sizes


def test_answers_are_the_same_alone_and_joined(clsp, model, monkeypatch):
    wavs = make_wavs()
    alone = [clsp.try_embed([wav])[0] for wav in wavs]
    free, sizes = hold(model, monkeypatch)
    found = [None] * len(wavs)

    def ask(n):
        (found[n],) = model.embed_wavs([wavs[n]])

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(len(wavs))]
    for thread in threads:
        thread.start()
    while sum(sizes) + model.n_waiting < len(wavs):
        time.sleep(0.01)
    free.set()
    for thread in threads:
        thread.join(30)
    assert len(sizes) < len(wavs) and max(sizes) > 2  # they were joined
    torch.testing.assert_close(torch.stack(found), torch.stack(alone), atol=1e-5, rtol=0)


def test_batches_keep_to_the_budget_and_no_clip_starves(clsp, monkeypatch):
    seen = []
    model = BatchedModel(clsp, 2.0, on_batch=lambda clips, seconds: seen.append((clips, seconds)))
    found = model.embed_wavs([*make_wavs(), torch.from_numpy(tone(3.0))])
    model.close()
    assert all(isinstance(one, torch.Tensor) for one in found)
    assert sum(clips for clips, _ in seen) == 13
    assert all(seconds <= 2.0 or clips == 1 for clips, seconds in seen)


def test_equal_clips_are_embedded_once(model, monkeypatch):
    free, sizes = hold(model, monkeypatch)
    free.set()
    (wav, other), silence = make_wavs()[:2], torch.zeros(100)
    first = model.embed_wavs([wav, wav.clone(), silence, wav])
    again = model.embed_wavs([other, wav])
    assert sizes == [2, 1]
    assert torch.equal(first[0], first[3]) and torch.equal(first[0], again[1])
    assert "at least 0.1 s" in first[2]
    assert "at least 0.1 s" in model.embed_wavs([silence])[0]  # a fault is not kept


def test_a_batch_that_fails_is_tried_one_by_one(clsp, model, monkeypatch):
    embed, bad = clsp.try_embed, make_wavs()[1]

    def fail(wavs):
        if any(torch.equal(wav, bad) for wav in wavs):
            raise RuntimeError("out of memory")
        return embed(wavs)

    monkeypatch.setattr(clsp, "try_embed", fail)
    found = model.embed_wavs(make_wavs()[:3])
    assert found[1] == "could not be embedded: out of memory"
    assert isinstance(found[0], torch.Tensor) and isinstance(found[2], torch.Tensor)


def test_padded_waveforms_are_cut_to_their_lengths(clsp, model):
    wavs = torch.zeros(2, 16000)
    wavs[0], wavs[1, :6001] = torch.from_numpy(tone(1.0)), torch.from_numpy(tone(1.0))[:6001]
    lens = torch.tensor([1.0, 6001 / 16000])
    expected = clsp.encode_batch(wavs, lens)
    torch.testing.assert_close(model.embed(wavs, lens), expected, atol=1e-5, rtol=0)
    assert torch.equal(model.encode_text(CAPTIONS), clsp.encode_text(CAPTIONS))


def test_after_its_end_it_answers_no_more(clsp):
    model = BatchedModel(clsp)
    model.close()
    with pytest.raises(RuntimeError, match="stopping"):
        model.embed_wavs(make_wavs()[:1])
