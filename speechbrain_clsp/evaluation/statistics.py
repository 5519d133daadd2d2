"""Bootstrap intervals: how far a figure could move with other test clips."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
from scipy.stats import quantile_test

RESAMPLES = 1000
LARGE = 20_000  # values
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A measured value with its 95 % interval and, where there is one, its chance level.

    Arguments
    ---------
    value : float
        What was measured.
    low, high : float, optional
        Ends of the interval.
    chance : float, optional
        What a model that ignores the speech would reach.

    Example
    -------
    >>> recall = Estimate(0.84, 0.797, 0.88, chance=1 / 300)
    >>> recall.format(percent=True), Estimate(3.0).format()
    ('84.0 (79.7-88.0)', '3.00')
    >>> recall.to_dict()["low"]
    0.797
    """

    value: float
    low: float | None = None
    high: float | None = None
    chance: float | None = None

    def format(self, percent: bool = False, digits: int | None = None) -> str:
        """Return ``value (low-high)``, or the value alone if it has no interval.

        Arguments
        ---------
        percent : bool
            Multiply by 100; the sign itself belongs into a heading.
        digits : int, optional
            After the point; default: 1 for percentages, otherwise 2.
        """
        factor = 100 if percent else 1
        digits = (1 if percent else 2) if digits is None else digits
        value, *ends = (
            "-" if math.isnan(x) else f"{factor * x:.{digits}f}"
            for x in (self.value, self.low, self.high)
            if x is not None
        )
        # A dash between negative ends would read as one more sign.
        between = " to " if any(end.startswith("-") for end in ends) else "-"
        return f"{value} ({between.join(ends)})" if ends else value

    def to_dict(self) -> dict[str, float]:
        """Return what is known as a dict, for JSON."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def bootstrap_mean(
    values: np.ndarray, seed: int = 0, groups: np.ndarray | None = None
) -> tuple[float, float]:
    """Return the 95 % percentile interval of a mean over clips.

    Arguments
    ---------
    values : numpy.ndarray
        [N], one value per clip.
    seed : int
        Seed of the resampling.
    groups : numpy.ndarray, optional
        [N] int: values of the same group, such as the captions of one clip, are resampled
        together, since they are not independent.

    Returns
    -------
    (float, float)
        Lower and upper end.

    Example
    -------
    >>> bootstrap_mean(np.ones(50))
    (1.0, 1.0)
    """
    generator = np.random.default_rng(seed)
    if groups is not None and len(np.unique(groups)) < len(groups):
        return percentiles(_group_means(values, groups, generator))
    if len(values) > LARGE:
        # Figures have few distinct values: resampling their counts is the same, and fast.
        distinct, counts = np.unique(values, return_counts=True)
        draws = generator.multinomial(len(values), counts / counts.sum(), RESAMPLES)
        return percentiles(draws @ distinct / len(values))
    return percentiles(np.array([values[draw].mean() for draw in _draws(generator, len(values))]))


def _draws(generator: np.random.Generator, size: int) -> Iterator[np.ndarray]:
    """Yield resamples one by one: all at once take gigabytes for large test sets."""
    return (generator.integers(0, size, size) for _ in range(RESAMPLES))


def _group_means(
    values: np.ndarray, groups: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Return the mean of every resample of whole groups."""
    _, number = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(number, values), np.bincount(number)
    draws = _draws(generator, len(sums))
    return np.array([sums[draw].sum() / sizes[draw].sum() for draw in draws])


def median_interval(values: np.ndarray) -> tuple[float, float]:
    """Return the distribution-free 95 % interval of a median, from the binomial distribution.

    Example
    -------
    >>> median_interval(np.arange(1, 101))
    (40.0, 61.0)
    """
    found = quantile_test(values, q=np.median(values), p=0.5).confidence_interval(LEVEL)
    low = values.min() if np.isnan(found.low) else found.low  # too few values for an interval
    high = values.max() if np.isnan(found.high) else found.high
    return float(low), float(high)


def bootstrap_recall(
    predicted: np.ndarray, labels: np.ndarray, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % percentile interval of an unweighted average recall.

    Clips are resampled within each class, so that no resample lacks one.

    Arguments
    ---------
    predicted, labels : numpy.ndarray
        [N] int, classes.
    seed : int
        Seed of the resampling.

    Returns
    -------
    (float, float)
        Lower and upper end.

    Example
    -------
    >>> low, high = bootstrap_recall(np.array([0, 0, 1, 0]), np.array([0, 0, 1, 1]))
    >>> low < 0.75 < high
    True
    """
    generator = np.random.default_rng(seed)
    recalls = []
    for label in np.unique(labels):
        hits = (predicted[labels == label] == label).astype(float)
        recalls.append(hits[generator.integers(0, len(hits), (RESAMPLES, len(hits)))].mean(axis=1))
    return percentiles(np.mean(recalls, axis=0))


def percentiles(figures: np.ndarray) -> tuple[float, float]:
    """Return the middle 95 % of resampled figures."""
    low, high = np.quantile(figures, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
