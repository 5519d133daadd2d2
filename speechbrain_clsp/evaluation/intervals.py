"""Bootstrap intervals: how far a figure could move with other test clips.

Authors
 * The speechbrain-clsp authors 2026
"""

from __future__ import annotations

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95


def bootstrap_mean(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile interval of a mean over clips.

    Arguments
    ---------
    values : numpy.ndarray
        [N], one value per clip.
    seed : int
        Seed of the resampling.

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
    draws = generator.integers(0, len(values), (RESAMPLES, len(values)))
    return _percentiles(values[draws].mean(axis=1))


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
    return _percentiles(np.mean(recalls, axis=0))


def _percentiles(figures: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(figures, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
