"""Batches of clips of similar length, the same clips in any number of processes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechbrain_clsp.dataio.sampler import BucketBatchSampler


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
    assert abs(sampler.padding_fraction() - waste(list(sampler))) < 1e-6
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
            sampler = BucketBatchSampler(durations, **sizes, window=2, n_shards=4)
            ranks.append([[key.index for key in batch] for batch in sampler])
            assert len(ranks[-1]) == len(sampler)
        orders.append([batch for step in zip(*ranks, strict=True) for batch in step])
    assert orders[0] == orders[1] == orders[2]
    monkeypatch.setattr("speechbrain_clsp.dataio.sampler.rank_and_world_size", lambda: (0, 3))
    with pytest.raises(ValueError, match="multiple"):
        BucketBatchSampler(durations, **sizes, n_shards=4)


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
    for size in ({"batch_size": 2}, {"batch_seconds": 9}):
        with pytest.raises(ValueError, match="None of 2 clips can be used, which must last 2 to"):
            BucketBatchSampler([1.0, 1.5], **size, shortest=2.0)
    with pytest.raises(ValueError, match="lower batch_seconds"):
        BucketBatchSampler([1.0, 2.0], batch_seconds=30.0)
    for sizes in ({}, {"batch_size": 2, "batch_seconds": 9.0}):
        with pytest.raises(ValueError, match="either"):
            BucketBatchSampler([1.0, 2.0], **sizes)


@pytest.mark.parametrize("sizes", [{"batch_size": 4}, {"batch_seconds": 30.0}])
@pytest.mark.parametrize("block", [1, 8])
def test_groups_come_in_one_batch(sizes, block):
    draw = torch.Generator().manual_seed(0)
    durations = (1 + 9 * torch.rand(400, generator=draw)).tolist()
    options = {**sizes, "group_size": 2, "longest": 9.5, "block": block}
    sampler = BucketBatchSampler(durations, n_shards=2, **options)
    batches = list(sampler)
    joined = [batches[i] + batches[i + 1] for i in range(0, len(batches), 2)]
    of_clip = {key.index: number for number, batch in enumerate(joined) for key in batch}
    kept = [pair for pair in zip(durations[::2], durations[1::2]) if max(pair) <= 9.5]
    assert len(of_clip) > 1.8 * len(kept)
    alone = [i for i in of_clip if of_clip.get(i ^ 1) != of_clip[i]]
    if block == 1 and "batch_size" in sizes:
        assert not alone
    assert len(alone) < 0.1 * len(of_clip)
    assert all(max(durations[i], durations[i ^ 1]) <= 9.5 for i in of_clip)
    alone = BucketBatchSampler(durations, n_shards=2, **{**options, "group_size": 1})
    of_clip = {key.index: number for number, batch in enumerate(alone) for key in batch}
    assert sum(of_clip.get(i ^ 1) == of_clip[i] for i in of_clip) < 0.5 * len(of_clip)


def test_an_epoch_of_several_passes_is_as_many_epochs_of_one():
    durations = [1.0 + i / 7 for i in range(22)]
    several = BucketBatchSampler(durations, batch_size=5, passes=3)
    one = BucketBatchSampler(durations, batch_size=5)
    several.set_epoch(2)
    expected = []
    for epoch in (4, 5, 6):
        one.set_epoch(epoch)
        expected += list(one)
    assert list(several) == expected and len(several) == 12 and several.first_step() == 12
    assert {key.epoch for batch in several for key in batch} == {4, 5, 6}
    assert 0 <= several.padding_fraction() < 0.5
