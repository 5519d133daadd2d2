"""The number that a batch's keys carry is the number of batches since training began."""

import numpy as np
import pytest
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_clsp.captions.policies import TwoCaptions
from speechbrain_clsp.dataio.sampler import BucketBatchSampler
from speechbrain_clsp.training.checkpointer import AtomicCheckpointer
from tests.utils.buzzes import fit, new_brain, write_buzzes

DURATIONS = np.random.default_rng(0).uniform(1.0, 30.0, 200)


def new_sampler() -> BucketBatchSampler:
    """Return a sampler whose epochs differ in their number of batches."""
    return BucketBatchSampler(DURATIONS, batch_seconds=60.0, window=2)


def numbers(sampler: BucketBatchSampler, epoch: int) -> list[int]:
    """Return the number of every batch of an epoch."""
    sampler.set_epoch(epoch)
    batches = [{key.step for key in batch} for batch in sampler]
    assert all(len(batch) == 1 for batch in batches)
    return [number for batch in batches for number in batch]


def test_batches_are_counted_through_epochs_of_different_lengths():
    sampler = new_sampler()
    epochs = [numbers(sampler, epoch) for epoch in range(1, 7)]
    assert len({len(epoch) for epoch in epochs}) > 1
    assert sum(epochs, []) == list(range(sum(map(len, epochs))))
    assert numbers(new_sampler(), 6) == epochs[5]  # also where training starts in a later epoch


@pytest.mark.parametrize("end_of_epoch", [False, True])
def test_a_recovered_sampler_counts_on_without_planning_again(tmp_path, monkeypatch, end_of_epoch):
    sampler = new_sampler()
    expected = [numbers(sampler, epoch) for epoch in range(1, 6)]
    Checkpointer(tmp_path, {"sampler": sampler}).save_checkpoint(end_of_epoch=end_of_epoch)
    resumed, planned, plan = new_sampler(), [], BucketBatchSampler._plan
    Checkpointer(tmp_path, {"sampler": resumed}).recover_if_possible()
    monkeypatch.setattr(
        BucketBatchSampler, "_plan", lambda self, epoch: planned.append(epoch) or plan(self, epoch)
    )
    epoch = 6 if end_of_epoch else 5
    assert numbers(resumed, epoch) == numbers(sampler, epoch)
    assert numbers(sampler, 5) == expected[4]
    assert planned == [epoch, epoch, 5]


def test_a_resumed_training_gives_captions_the_same_numbers(tmp_path):
    manifest, n_batches = write_buzzes(tmp_path), 9  # inside of the third epoch

    def train(folder, stop_after=None) -> set[tuple[str, int]]:
        """Return the clips and the number of the batch that they were in."""
        seen, draw = set(), TwoCaptions((0.95, 0.5, 10))

        def noted(row, generator, step):
            seen.add((row["id"], step))
            return draw(row, generator, step)

        options = {"ckpt_interval_steps": 1, "ckpt_interval_minutes": 0}
        brain = new_brain(3, AtomicCheckpointer(tmp_path / folder), **options)
        fit_batch, losses = brain.fit_batch, []

        def stopped(batch):
            if len(losses) == stop_after:
                raise KeyboardInterrupt
            losses.append(fit_batch(batch))
            return losses[-1]

        brain.fit_batch = stopped
        sampler = BucketBatchSampler([1.0, 2.0, 3, 4, 5, 6, 7, 8], batch_seconds=14, window=1)
        fit(brain, manifest, captions=noted, sampler=sampler)
        return seen

    whole = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("stopped", stop_after=n_batches)
    resumed = train("stopped")
    assert {number for _, number in whole} == set(range(4 + 3 + 4))
    assert resumed == {(name, number) for name, number in whole if number >= n_batches}
