"""Clips with their captions, and batches of them."""

import pytest
import torch
from speechbrain.dataio.dataloader import SaveableDataLoader
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_clsp.captions.policies import (
    TwoCaptions,
    evaluation_captions,
)
from speechbrain_clsp.dataio.dataset import CaptionedSpeechDataset, Collate
from speechbrain_clsp.dataio.labels import AttributeLabels, AttributePrompts
from speechbrain_clsp.dataio.manifest import Manifest, write_manifest
from speechbrain_clsp.dataio.sampler import BucketBatchSampler, Key
from speechbrain_clsp.dataio.tokenizers import SentencePieceCaptions, train_sentencepiece
from tests.utils.small import CAPTIONS, ROW, tone, write

TENSORS = ("wavs", "wav_lens", "tokens", "padding_mask", "labels", "caption_ids")


def test_a_batch_is_cut_into_chunks_without_loss(tmp_path):
    """If this fails, GradCache trains on other pairs, or on padding as if it were speech."""
    seconds = [0.5, 0.3, 0.9, 0.2, 0.2]
    rows = []
    for i, length in enumerate(seconds):
        write(tmp_path / f"{i}.wav", tone(length))
        captions = {"global_captions": ["slowly " * (i + 1)], "fine_captions": [f"fine {i}"]}
        rows.append({"id": str(i), "audio": f"{i}.wav", "duration": length, **captions})
    write_manifest(tmp_path / "a.arrow", rows)
    train_sentencepiece(CAPTIONS, tmp_path / "t.model", vocab_size=60)
    dataset = CaptionedSpeechDataset(Manifest(tmp_path / "a.arrow"), evaluation_captions)
    collate = Collate(SentencePieceCaptions(tmp_path / "t.model"))
    chunks = collate([dataset[i] for i in range(5)]).split(seconds=1.0)
    assert [chunk.ids for chunk in chunks] == [["0", "1"], ["2"], ["3", "4"]]
    for chunk in chunks:
        alone = collate([dataset[int(i)] for i in chunk.ids])
        assert all(torch.equal(getattr(chunk, n), getattr(alone, n)) for n in TENSORS)


def test_clips_that_cannot_be_read_are_left_out_by_name(tmp_path):
    """If this fails, one damaged file among millions stops a training, or hides."""
    write(tmp_path / "a.wav", tone())
    (tmp_path / "b.wav").write_bytes(b"RIFF")
    rows = [{**ROW, "id": name, "audio": f"{name}.wav"} for name in "abc"]
    write_manifest(tmp_path / "a.arrow", rows)
    train_sentencepiece(CAPTIONS, tmp_path / "t.model", vocab_size=60)
    manifest = Manifest(tmp_path / "a.arrow")
    collate = Collate(SentencePieceCaptions(tmp_path / "t.model"))
    dataset = CaptionedSpeechDataset(manifest, TwoCaptions(), skip_unreadable=True)
    batch = collate([dataset[i] for i in range(3)])
    assert batch.ids == ["a"] and len(batch.wavs) == 1
    assert ["b.wav" in batch.unreadable[0], "c.wav" in batch.unreadable[1]] == [True, True]
    empty = collate([dataset[1], dataset[2]])
    assert empty.ids == [] and len(empty.unreadable) == 2
    with pytest.raises(ValueError, match="b.wav"):
        CaptionedSpeechDataset(manifest, TwoCaptions())[1]


def test_a_resumed_loader_goes_on_with_the_same_clips(tmp_path):
    """If this fails, a resumed training sees clips twice, also with other workers."""
    for i in range(24):
        write(tmp_path / f"{i}.wav", tone(0.2 + i / 100))
    rows = [
        {**ROW, "id": str(i), "audio": f"{i}.wav", "duration": 0.2 + i / 100} for i in range(24)
    ]
    write_manifest(tmp_path / "a.arrow", rows)
    train_sentencepiece(CAPTIONS, tmp_path / "t.model", vocab_size=60)
    dataset = CaptionedSpeechDataset(Manifest(tmp_path / "a.arrow"), TwoCaptions(), seed=3)

    def new_loader(workers: int) -> SaveableDataLoader:
        sampler = BucketBatchSampler([row["duration"] for row in rows], batch_size=2, window=2)
        sampler.set_epoch(2)
        collate = Collate(SentencePieceCaptions(tmp_path / "t.model"))
        return SaveableDataLoader(
            dataset, batch_sampler=sampler, collate_fn=collate, num_workers=workers
        )

    whole = [(b.ids, b.caption_ids.tolist()) for b in new_loader(0)]
    loader = new_loader(0)
    iterator = iter(loader)
    seen = [next(iterator) for _ in range(5)]
    checkpointer = Checkpointer(tmp_path / "save", {"loader": loader})
    checkpointer.save_checkpoint(end_of_epoch=False)
    resumed = new_loader(2)
    Checkpointer(tmp_path / "save", {"loader": resumed}).recover_if_possible()
    rest = [(b.ids, b.caption_ids.tolist()) for b in resumed]
    assert [(b.ids, b.caption_ids.tolist()) for b in seen] + rest == whole


def test_a_batch_keeps_clips_and_texts_together(tmp_path):
    """If this fails, texts are paired with other clips' speech."""
    rows = []
    for i, caption in enumerate(CAPTIONS):
        write(tmp_path / f"{i}.wav", tone(0.5 + 0.3 * i))
        captions = {"global_captions": [f"{caption} Global."], "fine_captions": [caption]}
        rows.append({**ROW, "id": str(i), "audio": f"{i}.wav", **captions})
    write_manifest(tmp_path / "a.arrow", rows)
    train_sentencepiece(CAPTIONS, tmp_path / "t.model", vocab_size=60)
    tokenizer = SentencePieceCaptions(tmp_path / "t.model")
    dataset = CaptionedSpeechDataset(Manifest(tmp_path / "a.arrow"), evaluation_captions)
    batch = Collate(tokenizer)([dataset[Key(3, 0, i)] for i in range(3)]).to("cpu")
    assert batch.ids == ["0", "1", "2"]
    assert (batch.wav_lens * batch.wavs.shape[1]).round().tolist() == [8000, 12800, 17600]
    tokens, padding_mask = tokenizer([f"{c} Global." for c in CAPTIONS] + CAPTIONS)
    assert torch.equal(batch.tokens, tokens) and torch.equal(batch.padding_mask, padding_mask)


def test_texts_depend_on_seed_epoch_and_id_only(tmp_path):
    """If this fails, a resumed or a parallel run sees other texts."""
    write(tmp_path / "a.wav", tone())
    write_manifest(tmp_path / "a.arrow", [ROW])
    manifest = Manifest(tmp_path / "a.arrow")
    drawn = [
        CaptionedSpeechDataset(manifest, TwoCaptions(), seed=1)[Key(e, 0, 0)]["texts"].positives
        for e in range(30)
    ]
    again = CaptionedSpeechDataset(manifest, TwoCaptions(), seed=1)
    assert [again[Key(e, 0, 0)]["texts"].positives for e in reversed(range(30))] == drawn[::-1]
    assert len(set(map(tuple, drawn))) > 5


def test_a_batch_gets_prompts_that_depend_on_its_clips_alone(tmp_path):
    rows = [{**ROW, "id": name, "audio": "a.wav"} for name in "abc"]
    write(tmp_path / "a.wav", tone())
    write_manifest(tmp_path / "a.arrow", rows)
    train_sentencepiece(CAPTIONS, tmp_path / "t.model", vocab_size=60)
    tokenizer = SentencePieceCaptions(tmp_path / "t.model")
    labels = AttributeLabels({"gender": ["male", "female"]})
    male, female = ["a man", "male", "he"], ["a woman", "female", "she"]
    prompts = AttributePrompts(labels, {"gender": {"male": male, "female": female}})
    dataset = CaptionedSpeechDataset(Manifest(tmp_path / "a.arrow"), TwoCaptions(), labels=labels)
    seen = set()
    for indices in ((0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)):
        batch, again = (
            Collate(tokenizer, prompts)([dataset[Key(epoch, 0, i)] for i in indices])
            for epoch in (1, 2)
        )
        assert torch.equal(batch.prompts, again.prompts) and batch.n_values == [2]
        assert batch.prompts_padding_mask.shape == batch.prompts.shape
        assert torch.equal(batch.select(0, 1).prompts, batch.prompts)
        pair = next(
            (m, f)
            for m in male
            for f in female
            if tokenizer([m, f])[0].tolist() == batch.prompts.tolist()
        )
        seen.add(pair)
    assert len(seen) > 1
    assert Collate(tokenizer)([dataset[0]]).prompts is None
