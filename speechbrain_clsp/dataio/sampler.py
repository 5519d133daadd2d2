"""Batches of clips of similar length, the same for everyone who knows seed and epoch.

Authors
 * The speechbrain-clsp authors 2026
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from speechbrain_clsp.nnet.gather import world


class BucketBatchSampler(Sampler[list[tuple[int, int]]]):
    """Shuffle, sort by length within windows, cut into batches, shuffle the batches.

    A contrastive batch needs a fixed number of clips, the same on every rank. Clips that are left
    over at an epoch's end (fewer than one batch over all ranks) sit this epoch out.

    Arguments
    ---------
    durations : sequence of float
        Length of every clip, in seconds.
    batch_size : int
        Clips per batch and rank.
    seed : int
        Together with the epoch it fixes the order.
    window : int
        Batches' worth of clips that are sorted together: larger means less padding, and batches
        whose clips are more alike in length.

    Yields
    ------
    list of (int, int)
        Pairs (epoch, index): what a clip looks like in an epoch is a function of its key, so no
        worker has to be told the epoch.

    Raises
    ------
    ValueError
        If there are fewer clips than one batch over all ranks takes.

    Example
    -------
    >>> sampler = BucketBatchSampler([1.0, 9.0, 1.1, 9.1], batch_size=2)
    >>> sampler.set_epoch(3)
    >>> sorted(sorted(batch) for batch in sampler)
    [[(3, 0), (3, 2)], [(3, 1), (3, 3)]]
    """

    def __init__(
        self, durations: Sequence[float], batch_size: int, seed: int = 0, window: int = 16
    ) -> None:
        self.durations = np.asarray(durations)
        self.batch_size = batch_size
        self.seed = seed
        self.window = window
        self.epoch = 0
        self.rank, self.world_size = world()
        if len(self) == 0:
            raise ValueError(
                f"{len(self.durations)} clips do not fill one batch of {batch_size} on each of"
                f" {self.world_size} processes: lower batch_size"
            )

    def __len__(self) -> int:
        """Batches per epoch, the same on every rank."""
        return len(self.durations) // (self.batch_size * self.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; SpeechBrain calls this before each."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield this rank's share of every global batch."""
        generator = np.random.default_rng((self.seed, self.epoch))
        joined = self.batch_size * self.world_size
        order = generator.permutation(len(self.durations))[: len(self) * joined]
        for start in range(0, len(order), self.window * joined):
            window = order[start : start + self.window * joined]
            order[start : start + len(window)] = window[np.argsort(self.durations[window])]
        # Ranks take every W-th clip, so that their lengths agree too.
        batches = order.reshape(len(self), joined)[:, self.rank :: self.world_size]
        for number in generator.permutation(len(self)):
            yield [(self.epoch, int(index)) for index in batches[number]]
