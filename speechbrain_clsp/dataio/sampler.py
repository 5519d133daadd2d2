"""Batches of clips of similar length, the same for everyone who knows seed and epoch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from torch.utils.data import Sampler

from speechbrain_clsp.utils.distributed import rank_and_world_size


class Key(NamedTuple):
    """What a clip looks like in a batch is a function of its key: no worker has to be told more."""

    epoch: int  # or, where an epoch takes its clips several times, the number of the pass
    step: int  # batches that its process had before this one since training began
    index: int  # type: ignore[assignment]  # row of the manifest; hides tuple.index


@register_checkpoint_hooks
class BucketBatchSampler(Sampler[list[Key]]):
    """Shuffle, sort by length within windows, cut into batches, shuffle the batches.

    All ranks get the same number of clips, of like lengths. Clips that are left over at an
    epoch's end (fewer than one batch over all ranks) sit this epoch out.

    Batches are numbered through all epochs, whose lengths differ with ``batch_seconds``. A
    checkpoint of the sampler holds the lengths of its epochs so far; those that it does not know
    are planned again when a later epoch needs them.

    Arguments
    ---------
    durations : sequence of float
        Length of every clip, in seconds.
    batch_size : int, optional
        Clips per batch and rank. Either this or ``batch_seconds`` is given.
    batch_seconds : float, optional
        Padded audio per batch and rank, at most; a longer clip is a batch by itself. Short clips
        then come in larger batches than long ones.
    seed : int
        Together with the epoch it fixes the order.
    shortest, longest : float
        Seconds; clips outside of these bounds are left out.
    window : int
        Batches' worth of clips that are sorted together: larger means less padding, and batches
        whose clips are more alike in length.
    block : int
        Clips that stay together, in the order of the manifest. 1 shuffles freely; a thousand
        keeps the reads of a window inside a few tar files. Batches are then shuffled within their
        window only.
    n_shards : int, optional
        Shards that a joined batch is cut into, a multiple of the number of processes, which take
        them in turns. A training that goes on with half the processes keeps the order of clips if
        this keeps its value. Default: the number of processes.
    group_size : int
        Clips that come in one joined batch: successive ones of the manifest, as a clip and its
        twins. A group with a clip outside of ``shortest`` and ``longest`` is left out. Where
        batches hold no multiple of it, some groups are cut.
    passes : int
        How often an epoch takes the clips, each time shuffled and cut anew, and with texts of their
        own. More than 1 for few clips, which would be validated on after every few batches.

    Yields
    ------
    list of Key
        One batch.

    Raises
    ------
    ValueError
        If not exactly one of the two sizes is given, if ``n_shards`` is no multiple of the number
        of processes, if all clips are too short or too long, or if there are fewer than one joined
        batch takes.

    Example
    -------
    >>> sampler = BucketBatchSampler([1.0, 9.0, 1.1, 9.1], batch_size=2)
    >>> sampler.set_epoch(3)
    >>> sorted(sorted(key.index for key in batch) for batch in sampler)
    [[0, 2], [1, 3]]
    >>> sampler = BucketBatchSampler([3.0, 9.0, 2.9, 9.1, 3.1], batch_seconds=10)
    >>> sorted(len(batch) for batch in sampler)
    [1, 1, 3]
    """

    def __init__(
        self,
        durations: Sequence[float] | np.ndarray,
        batch_size: int | None = None,
        batch_seconds: float | None = None,
        seed: int = 0,
        shortest: float = 0.0,
        longest: float = math.inf,
        window: int = 16,
        block: int = 1,
        n_shards: int | None = None,
        group_size: int = 1,
        passes: int = 1,
    ) -> None:
        if (batch_size is None) == (batch_seconds is None):
            raise ValueError(
                f"Give either batch_size ({batch_size}) or batch_seconds ({batch_seconds})"
            )
        if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
            raise ValueError(f"batch_size must be a whole number of at least 1, not {batch_size!r}")
        self.durations = np.asarray(durations, dtype=np.float64)
        fits = (self.durations >= shortest) & (self.durations <= longest)
        self.usable = np.flatnonzero(_of_groups(np.logical_and, fits, group_size))
        self._group_durations = _of_groups(np.maximum, self.durations, group_size)
        self.batch_size = batch_size
        self.batch_seconds = batch_seconds
        self.seed = seed
        self.window = window
        self.group_size = group_size
        self.passes = passes
        self.block = max(1, block // group_size) * group_size
        self.rank, self.world_size = rank_and_world_size()
        self.n_shards = n_shards or self.world_size
        if self.n_shards % self.world_size:
            raise ValueError(f"n_shards={n_shards} is no multiple of {self.world_size} processes")
        if not len(self.usable):
            raise ValueError(
                f"None of {len(self.durations)} clips can be used, which must last {shortest:g} to"
                f" {longest:g} s: cut or join them, or set shortest and longest"
            )
        self._lengths: dict[int, int] = {}  # batches of a process, by epoch
        self.set_epoch(1)
        if len(self) == 0:
            raise ValueError(
                f"{len(self.usable)} clips of {shortest} to {longest} s do not fill one batch of"
                f" {batch_size or f'{batch_seconds} s'} on each of {self.n_shards} processes:"
                f" lower batch_{'size' if batch_size else 'seconds'}"
            )

    def __len__(self) -> int:
        """Batches in this epoch, the same on every rank."""
        return self._n_batches(self._bounds)

    def _n_batches(self, bounds: Sequence[tuple[int, int]]) -> int:
        return len(bounds) * self.n_shards // self.world_size

    def padding_fraction(self) -> float:
        """Return the fraction of this epoch's padded audio that is padding, over all processes."""
        spans = np.sort(np.array(self._bounds), axis=0)  # they lie one behind the other
        durations = self.durations[self._order]
        padded = np.maximum.reduceat(durations, spans[:, 0]) * np.diff(spans, axis=1)[:, 0]
        return float(1 - durations.sum() / padded.sum())

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 1; SpeechBrain calls this before each."""
        self.epoch = epoch
        self._order, self._bounds, self._numbers = self._plan_epoch(epoch)
        self._lengths[epoch] = len(self)

    def first_step(self) -> int:
        """Return the number of this epoch's first batch: those of all earlier epochs."""
        earlier = range(1, self.epoch)
        for epoch in earlier:
            if epoch not in self._lengths:
                _, bounds, _ = self._plan_epoch(epoch)
                self._lengths[epoch] = self._n_batches(bounds)
        return sum(self._lengths[epoch] for epoch in earlier)

    @mark_as_saver
    def _save(self, path: str | Path) -> None:
        Path(path).write_text(json.dumps(self._lengths), encoding="utf-8")

    @mark_as_loader
    def _load(self, path: str | Path, end_of_epoch: bool) -> None:
        lengths = json.loads(Path(path).read_text(encoding="utf-8"))
        self._lengths = {int(epoch): length for epoch, length in lengths.items()}

    def _plan_epoch(self, epoch: int) -> tuple[np.ndarray, list[tuple[int, int]], list[int]]:
        """Return an epoch's clips in order, where each joined batch lies, and of which pass it is.

        Passes are counted from 1 through all epochs.
        """
        orders: list[np.ndarray] = []
        all_bounds: list[tuple[int, int]] = []
        numbers: list[int] = []
        for number in range((epoch - 1) * self.passes + 1, epoch * self.passes + 1):
            position = sum(map(len, orders))
            order, bounds = self._plan(number)
            orders.append(order)
            all_bounds += [(start + position, end + position) for start, end in bounds]
            numbers += [number] * len(bounds)
        return np.concatenate(orders), all_bounds, numbers

    def _plan(self, number: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """Return a pass's clips in order, and where each joined batch of them lies."""
        generator = np.random.default_rng((self.seed, number))
        order = self._shuffled(generator)
        size = max(1, int(self.window * self._mean_clips() * self.n_shards))
        left_over, sorted_windows, all_bounds, position = order[:0], [], [], 0
        for start in range(0, len(order), size):
            window = np.concatenate([left_over, order[start : start + size]])
            window = window[np.argsort(self._group_durations[window], kind="stable")[::-1]]
            lengths = self._cut(self._group_durations[window])
            used = sum(lengths)
            left_over = window[used:]
            sorted_windows.append(window[:used])
            bounds = []
            for length in lengths:
                bounds.append((position, position + length))
                position += length
            if self.block > self.group_size:
                generator.shuffle(bounds)
            all_bounds += bounds
        order = np.concatenate(sorted_windows) if sorted_windows else order[:0]
        if self.block == self.group_size:
            generator.shuffle(all_bounds)
        return order, all_bounds

    def _shuffled(self, generator: np.random.Generator) -> np.ndarray:
        """Return the usable clips in a new order, block by block."""
        n_blocks = -(-len(self.usable) // self.block)
        starts = generator.permutation(n_blocks) * self.block
        places = (starts[:, None] + np.arange(self.block)).ravel()
        return self.usable[places[places < len(self.usable)]]

    def _mean_clips(self) -> float:
        """Clips per batch and rank, roughly."""
        if self.batch_seconds is None:
            return self.batch_size or 1
        return self.batch_seconds / max(float(self.durations[self.usable].mean()), 1e-9)

    def _cut(self, durations: np.ndarray) -> list[int]:
        """Return the clips of successive joined batches, the longest clips first."""
        lengths, position = [], 0
        while position < len(durations):
            clips = self.batch_size or max(1, int(self.batch_seconds / durations[position]))
            if position + clips * self.n_shards > len(durations):
                break
            lengths.append(clips * self.n_shards)
            position += lengths[-1]
        return lengths

    def __iter__(self) -> Iterator[list[Key]]:
        """Yield this rank's shards of every joined batch."""
        step = self.first_step()
        for (start, end), number in zip(self._bounds, self._numbers):
            # Clips are dealt out in turn, so that shards agree in lengths too.
            for shard in range(self.rank, self.n_shards, self.world_size):
                indices = self._order[start + shard : end : self.n_shards]
                yield [Key(number, step, int(index)) for index in indices]
                step += 1


def _of_groups(function: np.ufunc, values: np.ndarray, size: int) -> np.ndarray:
    """Return for each clip what a function makes of the values of its group."""
    if size == 1:
        return values
    starts = np.arange(0, len(values), size)
    return np.repeat(function.reduceat(values, starts), size)[: len(values)]
