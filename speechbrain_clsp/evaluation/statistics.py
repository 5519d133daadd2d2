"""Estimates with intervals: how far a metric could move with other test clips."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from scipy.stats import permutation_test, quantile_test

RESAMPLES = 1000  # of a bootstrap
PERMUTATIONS = 9999
LARGE = 20_000  # values from which the bootstrap resamples counts
VALUES_AT_ONCE = 2**22  # of permuted values, 32 MiB
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

        ``percent`` multiplies by 100; the sign itself belongs into a heading. ``digits`` stand
        after the point; default: 1 for percentages, otherwise 2.
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


@dataclass(frozen=True)
class Comparison:
    """Two models on the same queries, the first minus the second.

    Arguments
    ---------
    difference : Estimate
        Of the means, with its paired bootstrap interval.
    p_value : float
        Two-sided, of a permutation test that exchanges the models query by query: of all
        permutations for few queries, else of 9999.
    better, worse : float
        Fractions of queries on which the first is so.

    Example
    -------
    >>> Comparison(Estimate(0.02, -0.01, 0.05), 0.2, better=0.06, worse=0.04).difference.low
    -0.01
    """

    difference: Estimate
    p_value: float
    better: float
    worse: float


def bootstrap_mean(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean of ``values``, [N], one per clip.

    Example
    -------
    >>> bootstrap_mean(np.ones(50))
    (1.0, 1.0)
    """
    generator = np.random.default_rng(seed)
    size = len(values)
    if size > LARGE:
        # Metrics have few distinct values: resampling their counts is the same, and fast.
        distinct, counts = np.unique(values, return_counts=True)
        counts = generator.multinomial(size, counts / counts.sum(), RESAMPLES)
        return percentiles(counts @ distinct / size)
    # One by one: all resamples at once take gigabytes for large test sets.
    draws = (generator.integers(0, size, size) for _ in range(RESAMPLES))
    return percentiles(np.array([values[draw].mean() for draw in draws]))


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

    Clips are resampled within each class, so that no resample lacks one. ``predicted`` and
    ``labels`` are classes, [N] int.

    Example
    -------
    >>> low, high = bootstrap_recall(np.array([0, 0, 1, 0]), np.array([0, 0, 1, 1]))
    >>> low < 0.75 < high
    True
    """
    _, low, high = bootstrap_strata((predicted == labels).astype(float), labels, seed)
    return low, high


def bootstrap_strata(
    values: np.ndarray, strata: np.ndarray, seed: int = 0
) -> tuple[float, float, float]:
    """Return the mean over strata of their mean values, and its 95 % percentile interval.

    ``values`` [N] are resampled within each stratum; ``strata`` [N] int say which is whose.

    Example
    -------
    >>> bootstrap_strata(np.array([1.0, 1.0, 1.0, 0.0]), np.array([0, 0, 0, 1]))
    (0.5, 0.5, 0.5)
    """
    generator = np.random.default_rng(seed)
    means, resampled = [], []
    for stratum in np.unique(strata):
        own = values[strata == stratum]
        means.append(own.mean())
        resampled.append(own[generator.integers(0, len(own), (RESAMPLES, len(own)))].mean(axis=1))
    return float(np.mean(means)), *percentiles(np.mean(resampled, axis=0))


def percentiles(resampled: np.ndarray) -> tuple[float, float]:
    """Return the ends of the middle 95 % of resampled values."""
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def paired_comparison(first: np.ndarray, second: np.ndarray, seed: int = 0) -> Comparison:
    """Compare two models on the same queries.

    Differences vary much less than the two metrics do, since most queries are as easy or as hard
    for both models.

    Arguments
    ---------
    first, second : numpy.ndarray
        [N] values of each query, such as 1 for a right answer, in the same order.
    seed : int
        Seed of bootstrap and permutations.

    Returns
    -------
    Comparison
        The first minus the second.

    Raises
    ------
    ValueError
        If the arrays differ in size or are empty.

    Example
    -------
    >>> result = paired_comparison(np.ones(8), np.zeros(8))
    >>> result.difference.value, result.p_value
    (1.0, 0.0078125)
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(
            f"first {list(first.shape)} and second {list(second.shape)} must both be [N]: the same"
            " queries in the same order"
        )
    differences = first - second
    return Comparison(
        Estimate(float(differences.mean()), *bootstrap_mean(differences, seed)),
        _sign_flip_test(differences, seed),
        better=float((differences > 0).mean()),
        worse=float((differences < 0).mean()),
    )


def _sign_flip_test(differences: np.ndarray, seed: int = 0) -> float:
    """Return the two-sided p-value of the test that exchanges the models query by query."""
    differences = differences[differences != 0]  # a tie stays one when models are exchanged
    if len(differences) < 2:  # one query that differs is as likely to favor either
        return 1.0

    result = permutation_test(
        (differences / 2, -differences / 2),
        lambda x, y, axis: (x - y).sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        batch=max(1, VALUES_AT_ONCE // len(differences)),
        random_state=np.random.default_rng(seed),
    )
    return float(result.pvalue)
