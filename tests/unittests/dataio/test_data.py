"""Manifests, caption policies, the sampler and batches."""

import random
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from speechbrain.dataio.dataloader import SaveableDataLoader
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_clsp.captions.perturbation import AttributeSwap, between_values
from speechbrain_clsp.captions.policies import (
    OneFineCaption,
    Texts,
    TwoCaptions,
    WithHardNegatives,
    evaluation_captions,
)
from speechbrain_clsp.dataio.dataset import CaptionedSpeechDataset, Collate
from speechbrain_clsp.dataio.manifest import Manifest, write_manifest
from speechbrain_clsp.dataio.sampler import BucketBatchSampler, Key
from speechbrain_clsp.dataio.tokenizers import SentencePieceCaptions, train_sentencepiece
from tests.utils.small import CAPTIONS, tone, write

TENSORS = ("wavs", "lengths", "tokens", "mask", "labels", "caption_ids")
ROW = {
    "id": "a",
    "audio": "a.wav",
    "duration": 1.5,
    "gender": "female",
    "labels": {"loudness": "quiet"},
    "global_captions": ["G1", "G2"],
    "fine_captions": ["F1", "F2", "F3"],
}


def test_a_manifest_gives_back_what_was_written(tmp_path):
    """If this fails, labels or captions are lost or shifted between rows."""
    rows = [{**ROW, "id": f"clip{i}", "duration": float(i + 1)} for i in range(10)]
    assert write_manifest(tmp_path / "a.arrow", iter(rows), batch_rows=3) == 10
    manifest = Manifest(tmp_path / "a.arrow")
    for i, row in enumerate(manifest):
        assert {key: row[key] for key in ROW if key != "audio"} == {
            key: value for key, value in rows[i].items() if key != "audio"
        }
        assert row["audio"] == str(tmp_path / "a.wav")
        assert row["accent"] is None and row["intrinsic_tags"] == []
    assert manifest[-1]["id"] == "clip9"
    assert Manifest(tmp_path / "a.arrow", data_root="/data")[0]["audio"] == "/data/a.wav"
    with pytest.raises(IndexError):
        manifest[10]


@pytest.mark.parametrize(
    "rows, pattern",
    [
        ([{**ROW, "duration": None}], r"row 1 \(id 'a'\).*duration"),
        ([ROW, {**ROW, "color": 1, "id": "b"}], r"row 2 \(id 'b'\).*color"),
        ([ROW, ROW], "twice"),
    ],
)
def test_bad_rows_are_named_and_leave_no_manifest(tmp_path, rows, pattern):
    """If this fails, a bad row makes a manifest that breaks an hour into training."""
    with pytest.raises(ValueError, match=pattern):
        write_manifest(tmp_path / "a.arrow", rows)
    assert not (tmp_path / "a.arrow").exists()


def test_a_damaged_manifest_is_refused(tmp_path):
    """If this fails, a half copied manifest trains on half the data."""
    write_manifest(tmp_path / "a.arrow", [{**ROW, "id": str(i)} for i in range(50)])
    (tmp_path / "b.arrow").write_bytes((tmp_path / "a.arrow").read_bytes()[:-200])
    with pytest.raises(ValueError, match="cut off"):
        Manifest(tmp_path / "b.arrow")
    with pytest.raises(FileNotFoundError, match="prepare"):
        Manifest(tmp_path / "c.arrow")


def test_two_captions_follow_their_probability():
    """If this fails, the mix of global and fine texts is not the one asked for."""
    generator = random.Random(0)
    drawn = [TwoCaptions(0.3)(ROW, generator).positives for _ in range(4000)]
    share = sum(first.startswith("G") for first, _ in drawn) / len(drawn)
    assert abs(share - 0.3) < 0.03
    assert all(second.startswith("F") and first != second for first, second in drawn)
    assert len(Counter(map(tuple, drawn))) == 2 * 3 + 3 * 2


def test_the_mix_of_captions_follows_its_schedule():
    """If this fails, stage 2 does not go from global to fine captions as published."""
    policy = TwoCaptions((0.95, 0.5, 10000))
    published = [max(0.5, 0.95 - 0.45 * step / 10000) for step in (0, 1000, 9999, 10000, 50000)]
    assert [policy.probability(s) for s in (0, 1000, 9999, 10000, 50000)] == pytest.approx(
        published
    )
    drawn = [policy(ROW, random.Random(seed), step=4000).positives[0] for seed in range(4000)]
    assert abs(sum(text.startswith("G") for text in drawn) / 4000 - 0.77) < 0.03
    drawn = [OneFineCaption()(ROW, random.Random(seed)) for seed in range(50)]
    assert {tuple(texts.positives) for texts in drawn} == {("F1",), ("F2",), ("F3",)}


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


def test_clips_with_few_captions_are_served_or_refused():
    """If this fails, a clip with a single caption stops an epoch, or a clip without any trains."""
    policy, generator = TwoCaptions(1.0), random.Random(0)
    for globals_, fines in ((["G"], []), ([], ["G"])):
        row = {**ROW, "global_captions": globals_, "fine_captions": fines}
        assert policy(row, generator) == Texts(["G", "G"])
    for broken in ({**ROW, "global_captions": [], "fine_captions": []},):
        with pytest.raises(ValueError, match="'a'"):
            policy(broken, generator)
        with pytest.raises(ValueError, match="'a'"):
            evaluation_captions(broken)


@settings(max_examples=60, deadline=None)
@given(
    durations=st.lists(st.floats(0.1, 30.0), min_size=8, max_size=200),
    batch_size=st.integers(1, 4),
    seed=st.integers(0, 3),
    epoch=st.integers(1, 5),
)
def test_every_epoch_has_full_batches_without_repeats(durations, batch_size, seed, epoch):
    """If this fails, a clip is its own negative, or ranks disagree on the number of steps."""
    sampler = BucketBatchSampler(durations, batch_size, seed=seed, window=3)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert batches == list(sampler)
    assert len(batches) == len(sampler) == len(durations) // batch_size
    assert all(len(batch) == batch_size for batch in batches)
    clips = [key.index for batch in batches for key in batch]
    assert len(set(clips)) == len(clips)
    assert {key.epoch for batch in batches for key in batch} == {epoch}
    first = (epoch - 1) * len(batches)
    assert [{key.step for key in batch} for batch in batches] == [
        {first + number} for number in range(len(batches))
    ]


@settings(max_examples=60, deadline=None)
@given(
    durations=st.lists(st.floats(1.0, 30.0), min_size=60, max_size=200),
    batch_seconds=st.floats(5.0, 15.0),
    world_size=st.sampled_from([1, 2, 3]),
    epoch=st.integers(1, 5),
    block=st.sampled_from([1, 7]),
)
def test_batches_keep_to_their_seconds(durations, batch_seconds, world_size, epoch, block):
    """If this fails, a batch of long clips runs out of memory, or ranks differ in their clips."""
    batches = []
    for rank in range(world_size):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "speechbrain_clsp.dataio.sampler.rank_and_world_size",
                lambda r=rank: (r, world_size),
            )
            sampler = BucketBatchSampler(
                durations, batch_seconds=batch_seconds, window=2, block=block
            )
        sampler.set_epoch(epoch)
        batches.append(list(sampler))
        assert len(batches[-1]) == len(sampler)
    seen = [key.index for share in batches for batch in share for key in batch]
    assert len(set(seen)) == len(seen)
    for shares in zip(*batches, strict=True):
        assert len({len(share) for share in shares}) == 1
        for share in shares:
            longest = max(durations[key.index] for key in share)
            assert len(share) == 1 or len(share) * longest <= batch_seconds
    # What is left over would not have made another batch.
    left_over = sorted(set(range(len(durations))) - set(seen), key=lambda i: -durations[i])
    if left_over:
        clips = max(1, int(batch_seconds / durations[left_over[0]]))
        assert len(left_over) < clips * world_size


def test_ranks_share_a_global_batch(monkeypatch):
    """If this fails, two GPUs see the same clips, or wait for each other's longer batches."""
    durations = torch.rand(101, generator=torch.Generator().manual_seed(1)).tolist()
    shares = []
    for rank in range(4):
        monkeypatch.setattr(
            "speechbrain_clsp.dataio.sampler.rank_and_world_size", lambda rank=rank: (rank, 4)
        )
        shares.append(list(BucketBatchSampler(durations, 5, window=2)))
    monkeypatch.setattr("speechbrain_clsp.dataio.sampler.rank_and_world_size", lambda: (0, 1))
    whole = list(BucketBatchSampler(durations, 20, window=2))
    assert [len(share) for share in shares] == [5] * 4
    for step, batch in enumerate(whole):
        assert sorted(batch) == sorted(key for share in shares for key in share[step])


def test_batches_hold_clips_of_similar_length():
    """If this fails, most of a batch is padding."""
    durations = torch.rand(640, generator=torch.Generator().manual_seed(2)) * 9 + 1

    def waste(batches) -> float:
        padded = sum(len(b) * max(durations[key.index] for key in b) for b in batches)
        return 1 - sum(durations[key.index] for b in batches for key in b) / padded

    sampler = BucketBatchSampler(durations.tolist(), 8, window=16)
    assert waste(list(sampler)) < 0.05
    assert abs(sampler.padding_share() - waste(list(sampler))) < 1e-6
    assert waste(list(BucketBatchSampler(durations.tolist(), 8, window=1))) > 0.2


@pytest.mark.parametrize("sizes", [{"batch_size": 3}, {"batch_seconds": 20.0}])
def test_fewer_processes_keep_the_order(monkeypatch, sizes):
    """If this fails, a training that goes on with fewer GPUs sees clips twice, or never."""
    durations = (torch.rand(401, generator=torch.Generator().manual_seed(4)) * 9 + 1).tolist()
    orders = []
    for world_size in (4, 2, 1):
        ranks = []
        for rank in range(world_size):
            world = (rank, world_size)
            monkeypatch.setattr(
                "speechbrain_clsp.dataio.sampler.rank_and_world_size", lambda w=world: w
            )
            sampler = BucketBatchSampler(durations, **sizes, window=2, shares=4)
            ranks.append([[key.index for key in batch] for batch in sampler])
            assert len(ranks[-1]) == len(sampler)
        orders.append([batch for step in zip(*ranks, strict=True) for batch in step])
    assert orders[0] == orders[1] == orders[2]
    monkeypatch.setattr("speechbrain_clsp.dataio.sampler.rank_and_world_size", lambda: (0, 3))
    with pytest.raises(ValueError, match="multiple"):
        BucketBatchSampler(durations, **sizes, shares=4)


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


def test_blocks_keep_reads_near_each_other():
    """If this fails, every clip of a batch is read from another tar file."""
    durations = (torch.rand(20000, generator=torch.Generator().manual_seed(3)) * 9 + 1).tolist()

    def blocks_in_a_window(block: int) -> float:
        batches = list(BucketBatchSampler(durations, 10, window=16, block=block))
        windows = [batches[i : i + 16] for i in range(0, len(batches), 16)]
        touched = [len({k.index // 100 for b in w for k in b}) for w in windows]
        return sum(touched) / len(touched)

    assert blocks_in_a_window(1) > 80 and blocks_in_a_window(100) < 5
    one, two = (BucketBatchSampler(durations, 10, block=100) for _ in range(2))
    two.set_epoch(2)
    assert [k.index for k in next(iter(one))] != [k.index for k in next(iter(two))]


def test_too_few_clips_are_refused():
    """If this fails, training runs epochs of no step."""
    with pytest.raises(ValueError, match="lower batch_size"):
        BucketBatchSampler([1.0, 2.0], batch_size=3)
    with pytest.raises(ValueError, match="lower batch_seconds"):
        BucketBatchSampler([1.0, 2.0], batch_seconds=30.0)
    for sizes in ({}, {"batch_size": 2, "batch_seconds": 9.0}):
        with pytest.raises(ValueError, match="either"):
            BucketBatchSampler([1.0, 2.0], **sizes)


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
    assert (batch.lengths * batch.wavs.shape[1]).round().tolist() == [8000, 12800, 17600]
    tokens, mask = tokenizer([f"{c} Global." for c in CAPTIONS] + CAPTIONS)
    assert torch.equal(batch.tokens, tokens) and torch.equal(batch.mask, mask)


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


def test_tokenizer_pads_and_names_a_missing_model(tmp_path):
    """If this fails, padding is read as text, or a missing file ends in a riddle."""
    train_sentencepiece(CAPTIONS, tmp_path / "t.model", vocab_size=60)
    tokenizer = SentencePieceCaptions(tmp_path / "t.model")
    tokens, mask = tokenizer([CAPTIONS[0], "Slowly"])
    alone, _ = tokenizer(["slowly"])
    assert torch.equal(tokens[1][mask[1]], alone[0])
    with pytest.raises(FileNotFoundError, match="absent.model"):
        SentencePieceCaptions(tmp_path / "absent.model")
    with pytest.raises(RuntimeError, match="load"):
        SentencePieceCaptions()(["a"])
    (tmp_path / "bad.model").write_text("nonsense")
    with pytest.raises(ValueError, match="bad.model"):
        SentencePieceCaptions(tmp_path / "bad.model")


SWAP = AttributeSwap(
    between_values(
        {"rate": [["slowly"], ["at a fast pace"]], "accent": [["American"], ["Scottish"]]}
    )
)


def test_swapped_captions_differ_in_one_attribute():
    """If this fails, a hard negative is true, or differs in more than it should."""
    caption = 'An American man speaks slowly: "go slowly".'
    swapped = {SWAP(caption, random.Random(seed)) for seed in range(20)}
    assert swapped == {
        'A Scottish man speaks slowly: "go slowly".',
        'An American man speaks at a fast pace: "go slowly".',
    }
    assert SWAP("Slowly, he speaks.", random.Random(0)) == "At a fast pace, he speaks."


def test_a_caption_without_attributes_stays_as_it_is():
    """If this fails, a caption in other words stops the training."""
    for caption in ("", "He speaks.", '"slowly"'):
        assert SWAP(caption, random.Random(0)) == caption


def test_hard_negatives_follow_the_true_texts():
    """If this fails, false captions are trained on as true ones."""
    policy = WithHardNegatives(TwoCaptions(), SWAP, n_negatives=2)
    row = {**ROW, "global_captions": ["He talks slowly."], "fine_captions": ["A.", "B."]}
    texts = [policy(row, random.Random(seed)) for seed in range(20)]
    assert all(len(set(each.positives)) == len(each.negatives) == 2 for each in texts)
    for each in texts:
        first = each.positives[0]
        wrong = "He talks at a fast pace." if "slowly" in first else first
        assert each.negatives == [wrong] * 2
