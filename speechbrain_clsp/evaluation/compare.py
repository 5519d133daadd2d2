"""Tell whether a model is better than another, or was lucky with these test clips."""

from __future__ import annotations

import numpy as np
from scipy.stats import permutation_test

from speechbrain_clsp.evaluation.statistics import bootstrap_mean

RESAMPLES = 9999
VALUES_AT_ONCE = 2**22  # of resampled values, 32 MiB


def paired_comparison(
    first: np.ndarray, second: np.ndarray, seed: int = 0, groups: np.ndarray | None = None
) -> dict[str, float]:
    """Compare two models on the same queries.

    Most queries are as easy or as hard for both models, so that differences vary much less than
    the two figures do: intervals that overlap do not show that models are equal.

    Arguments
    ---------
    first, second : numpy.ndarray
        [N] values of each query, such as 1 for a right answer, in the same order.
    seed : int
        Seed of bootstrap and permutations.
    groups : numpy.ndarray, optional
        [N] int, queries that are not independent, such as captions of one clip.

    Returns
    -------
    dict
        ``difference`` of the means, first minus second; ``low`` and ``high``, its paired bootstrap
        interval (95 %); ``p_value``, two-sided, of a permutation test that exchanges the models
        query by query (exact for few queries, else of 9999 permutations); ``better`` and
        ``worse``, the shares of queries on which the first is so.

    Raises
    ------
    ValueError
        If the arrays differ in size or are empty.

    Example
    -------
    >>> result = paired_comparison(np.ones(8), np.zeros(8))
    >>> result["difference"], result["p_value"]
    (1.0, 0.0078125)
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(
            f"first {list(first.shape)} and second {list(second.shape)} must both be [N]: the same"
            " queries in the same order"
        )
    differences = first - second
    low, high = bootstrap_mean(differences, seed, groups)
    return {
        "difference": float(differences.mean()),
        "low": low,
        "high": high,
        "p_value": _p_value(differences, groups, seed),
        "better": float((differences > 0).mean()),
        "worse": float((differences < 0).mean()),
    }


def _p_value(differences: np.ndarray, groups: np.ndarray | None, seed: int) -> float:
    """Return the sign-flip test's p-value; queries of a group flip together."""
    if groups is not None:
        _, number = np.unique(groups, return_inverse=True)
        differences = np.bincount(number, differences)
    differences = differences[differences != 0]  # a tie stays one when models are exchanged
    if len(differences) < 2:  # one query that differs is as likely to favor either
        return 1.0
    halves = (differences / 2, -differences / 2)

    def statistic(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
        return (x - y).sum(axis=axis)

    result = permutation_test(
        halves,
        statistic,
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, VALUES_AT_ONCE // len(differences)),
        random_state=np.random.default_rng(seed),
    )
    return float(result.pvalue)
