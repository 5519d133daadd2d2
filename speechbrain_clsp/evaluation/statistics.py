"""Bootstrap intervals: how far a figure could move with other test clips.

Authors
 * The speechbrain-clsp authors 2026
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.stats import quantile_test

RESAMPLES = 1000
LARGE = 20_000  # values
LEVEL = 0.95


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
