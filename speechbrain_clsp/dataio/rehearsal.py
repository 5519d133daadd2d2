"""Old clips in each batch of new ones, so that a model keeps what it knew."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import cycle
from typing import Any

from torch.utils.data import Dataset, Sampler

from speechbrain_clsp.dataio.dataset import CaptionedSpeechDataset
from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.dataio.sampler import BucketBatchSampler, Key
from speechbrain_clsp.lobes.attribute_heads import UNLABELED


class Rehearsal:
    """Old data that is trained on beside the new.

    Arguments
    ---------
    manifest : path
        The old clips.
    fraction : float
        Of a batch that is old, between 0 and 1. Batches grow by them: those of the new data stay.
    longest : float
        Seconds; longer old clips are left out.

    Raises
    ------
    ValueError
        If ``fraction`` is not between 0 and 1.

    Example
    -------
    >>> Rehearsal("old.arrow", fraction=2.0)
    Traceback (most recent call last):
    ...
    ValueError: The fraction of old clips must be between 0 and 1, not 2.0
    """

    def __init__(
        self, manifest: str | os.PathLike, fraction: float = 0.5, longest: float = 30.0
    ) -> None:
        if not 0 < fraction < 1:
            raise ValueError(f"The fraction of old clips must be between 0 and 1, not {fraction}")
        self.manifest = Manifest(manifest)
        self.ratio = fraction / (1 - fraction)
        self.longest = longest

    def mix(
        self, dataset: CaptionedSpeechDataset, sampler: BucketBatchSampler
    ) -> tuple[MixedDataset, MixedBatchSampler]:
        """Return the training data with old clips added.

        Arguments
        ---------
        dataset : CaptionedSpeechDataset
            The new clips. Old ones get captions by the same policy, and no labels: what new
            attributes they have is not known.
        sampler : BucketBatchSampler
            Of the new clips.

        Raises
        ------
        ValueError
            If all old clips are too long.
        """
        n_labels = len(dataset.labels(dataset.manifest[0])) if dataset.labels else 0
        old = CaptionedSpeechDataset(
            self.manifest,
            dataset.captions,
            dataset.seed,
            partial(_unlabeled, n_labels=n_labels),
            dataset.skip_unreadable,
        )
        durations = self.manifest.array("duration")
        usable = int((durations <= self.longest).sum())
        if usable < sampler.n_shards:
            raise ValueError(
                f"{self.manifest.path}: {usable} clips last at most {self.longest:g} s: there are"
                " too few to rehearse"
            )
        size, seconds = sampler.batch_size, sampler.batch_seconds
        old_sampler = BucketBatchSampler(
            durations,
            # Of few old clips, all are in each batch.
            None if size is None else min(math.ceil(size * self.ratio), usable // sampler.n_shards),
            None if seconds is None else seconds * self.ratio,
            seed=sampler.seed,
            longest=self.longest,
            n_shards=sampler.n_shards,
        )
        return MixedDataset(dataset, old), MixedBatchSampler(sampler, old_sampler)


def make_rehearsal(
    manifest: str | os.PathLike | None, fraction: float, longest: float
) -> Rehearsal | None:
    """Return a :class:`Rehearsal`, None without a manifest.

    Example
    -------
    >>> make_rehearsal(None, 0.5, 30.0)
    """
    return None if manifest is None else Rehearsal(manifest, fraction, longest)


def _unlabeled(row: Mapping[str, Any], n_labels: int) -> list[int]:
    return [UNLABELED] * n_labels


class MixedDataset(Dataset):
    """New clips, then old ones.

    Arguments
    ---------
    new, old : CaptionedSpeechDataset
        The two.
    """

    def __init__(self, new: CaptionedSpeechDataset, old: CaptionedSpeechDataset) -> None:
        self.new, self.old = new, old
        self.manifest = new.manifest

    def __len__(self) -> int:
        return len(self.new) + len(self.old)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        """Return what the dataset that has a clip returns for it; with ``is_old`` for old clips."""
        if key.index < len(self.new):
            return self.new[key]
        return {**self.old[key._replace(index=key.index - len(self.new))], "is_old": True}


class MixedBatchSampler(Sampler[list[Key]]):
    """Batches of new clips, to each of which a batch of old ones is added.

    An epoch is one of the new clips. It takes as many batches of the old ones, shuffled anew, as it
    needs.

    Arguments
    ---------
    new, old : BucketBatchSampler
        The two. Indices of old clips follow those of the new.

    Yields
    ------
    list of Key
        One batch.

    Example
    -------
    >>> samplers = [BucketBatchSampler([1.0] * n, batch_size=2) for n in (4, 20)]
    >>> batches = list(MixedBatchSampler(*samplers))
    >>> [[key.index < 4 for key in batch] for batch in batches]
    [[True, True, False, False], [True, True, False, False]]
    """

    def __init__(self, new: BucketBatchSampler, old: BucketBatchSampler) -> None:
        self.new, self.old = new, old

    def __len__(self) -> int:
        return len(self.new)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 1; SpeechBrain calls this before each."""
        self.new.set_epoch(epoch)
        self.old.set_epoch(epoch)

    def padding_fraction(self) -> float:
        """Return the fraction of the new clips' padded audio that is padding."""
        return self.new.padding_fraction()

    def __iter__(self) -> Iterator[list[Key]]:
        """Yield this rank's batches."""
        first = len(self.new.durations)
        for new, old in zip(self.new, cycle(self.old)):
            step = new[0].step
            yield new + [Key(key.epoch, step, first + key.index) for key in old]
