"""Agreement of a model's similarities with people: correlations with their ratings, or choices.

The cosine of clip and caption, or of two clips, is correlated with the raters' mean. To show how
well a model *could* do, each rater is compared with the mean of the other raters, and so is the
model.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import kendalltau, pearsonr, rankdata, spearmanr

from speechbrain_clsp.evaluation.statistics import Estimate, bootstrap_mean, percentiles
from speechbrain_clsp.ratings.alike import ALL, Choices
from speechbrain_clsp.ratings.table import Ratings

CORRELATIONS = {"pearson": pearsonr, "spearman": spearmanr, "kendall": kendalltau}
RESAMPLES = 1000
MINIMUM_ITEMS = 3


def krippendorff_alpha(scores: np.ndarray) -> float:
    """Return Krippendorff's alpha for interval data; 1 is perfect agreement, 0 that of chance.

    1 - observed / expected disagreement, where disagreement is the mean squared difference: of two
    ratings of the same item, and of any two ratings. Items with one rating tell nothing. Written
    here since libraries that have it are under the GPL.

    Arguments
    ---------
    scores : numpy.ndarray
        [N, R], NaN where a rater did not rate. If no item has two ratings, or all ratings are
        equal, alpha is NaN.

    Example
    -------
    >>> krippendorff_alpha(np.array([[1.0, 1.0], [2.0, 2.0], [5.0, 5.0]]))
    1.0
    """
    known = ~np.isnan(scores)
    scores = scores[known.sum(axis=1) > 1]
    values = scores[~np.isnan(scores)]
    if not len(values) or np.ptp(values) == 0:
        return math.nan
    counts = (~np.isnan(scores)).sum(axis=1)
    # The mean squared difference of two draws without replacement is twice the variance (n - 1).
    observed = (counts * 2 * np.nanvar(scores, axis=1, ddof=1)).sum() / len(values)
    return float(1 - observed / (2 * values.var(ddof=1)))


@dataclass(frozen=True)
class RaterSpread:
    """Where a model stands among the raters, by Spearman correlation with the other raters' mean.

    Arguments
    ---------
    count : int
        Number of raters who rated enough pairs; if it is 0, the rest is None.
    lowest, median, highest : float, optional
        Correlations of each rater with the mean of the others.
    model : float, optional
        Mean of the model's correlations with those same means, on the same pairs.
    below_model : float, optional
        Fraction of raters who agree with the others less than the model does.
    """

    count: int
    lowest: float | None = None
    median: float | None = None
    highest: float | None = None
    model: float | None = None
    below_model: float | None = None


@dataclass(frozen=True)
class Agreement:
    """How a model agrees with people on the pairs of a category, and people with each other.

    Arguments
    ---------
    items : int
        Number of pairs; below 3 the rest is empty.
    correlations : dict
        ``pearson``, ``spearman`` and ``kendall`` (tau-b) with the raters' mean.
    alpha : float, optional
        The raters' agreement, see :func:`krippendorff_alpha`.
    raters : RaterSpread
        See :func:`rater_spread`.
    """

    items: int
    correlations: dict[str, Estimate] = field(default_factory=dict)
    alpha: float | None = None
    raters: RaterSpread = RaterSpread(0)


def similarity_metrics(
    ratings: Ratings, scores: Sequence[float] | np.ndarray, seed: int = 0
) -> dict[str, Agreement]:
    """Compare scores with people's, by category and, if there are several, for ``all``.

    Arguments
    ---------
    ratings : Ratings
        Of N pairs.
    scores : sequence of float
        [N], the model's.
    seed : int
        Seed of the bootstrap over pairs.

    Raises
    ------
    ValueError
        If there is not one finite score per pair.

    Example
    -------
    >>> names = [("a", "x"), ("b", "x"), ("c", "x"), ("d", "x")]
    >>> people = np.array([[1.0, 1], [2, 3], [3, 3], [5, 4]])
    >>> ratings = Ratings(names, ["intrinsic"] * 4, ["r1", "r2"], people)
    >>> found = similarity_metrics(ratings, [0.1, 0.2, 0.3, 0.4])["intrinsic"]
    >>> found.correlations["spearman"].value
    1.0
    """
    values = np.asarray(scores, float)
    if values.shape != (len(ratings.items),) or not np.isfinite(values).all():
        raise ValueError(f"{len(ratings.items)} pairs need as many finite scores")
    return {
        category: _agreement(ratings.scores[numbers], values[numbers], seed)
        for category, numbers in _by_category(ratings.categories).items()
    }


def _by_category(categories: Sequence[str]) -> dict[str, list[int]]:
    """Return the rows of each category and, if there are several, of all."""
    rows = defaultdict(list)
    for number, category in enumerate(categories):
        rows[category].append(number)
    if len(rows) > 1:
        rows[ALL] = list(range(len(categories)))
    return rows


def choice_accuracies(
    choices: Choices, nearer: np.ndarray, farther: np.ndarray, seed: int = 0
) -> dict[str, tuple[Estimate, np.ndarray]]:
    """Return how often a model chooses as people do, by category and, if several, for ``all``.

    Arguments
    ---------
    choices : Choices
        Of N lines.
    nearer, farther : numpy.ndarray
        [N], the model's similarities of each clip with the two others; a tie counts as wrong.
    seed : int
        Seed of the bootstrap over lines.

    Returns
    -------
    dict of tuple
        The accuracy with its interval, and [n] 1 for each right choice, 0 for each wrong one.

    Example
    -------
    >>> choices = Choices([("a", "b", "c"), ("a", "d", "c")], ["all"] * 2)
    >>> accuracy, hits = choice_accuracies(choices, np.array([0.9, 0.1]), np.zeros(2) + 0.1)["all"]
    >>> accuracy.value, accuracy.chance, hits.tolist()
    (0.5, 0.5, [1.0, 0.0])
    """
    hits = (np.asarray(nearer) > np.asarray(farther)).astype(float)
    return {
        category: (
            Estimate(float(hits[numbers].mean()), *bootstrap_mean(hits[numbers], seed), chance=0.5),
            hits[numbers],
        )
        for category, numbers in _by_category(choices.categories).items()
    }


def _agreement(people: np.ndarray, scores: np.ndarray, seed: int) -> Agreement:
    if len(scores) < MINIMUM_ITEMS:
        return Agreement(len(scores))
    means = np.nanmean(people, axis=1)
    correlations = {name: correlation_estimate(name, scores, means, seed) for name in CORRELATIONS}
    spread = rater_spread(people, scores)
    return Agreement(len(scores), correlations, krippendorff_alpha(people), spread)


def correlate(name: str, first: np.ndarray, second: np.ndarray) -> float:
    """Return a correlation by name, NaN if one side is constant."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return math.nan
    return float(CORRELATIONS[name](first, second).statistic)


def correlation_estimate(
    name: str, scores: np.ndarray, means: np.ndarray, seed: int = 0
) -> Estimate:
    """Return a correlation by name, of [N] with [N], with its bootstrap interval."""
    generator = np.random.default_rng(seed)
    draws = generator.integers(0, len(scores), (RESAMPLES, len(scores)))
    values = _correlations(name, scores[draws], means[draws])
    values = values[np.isfinite(values)]  # without resamples of a single pair
    low, high = percentiles(values) if len(values) else (math.nan, math.nan)
    return Estimate(correlate(name, scores, means), low, high)


def _correlations(name: str, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Correlate rows of [B, N]; all at once where there is a formula, which is much faster."""
    if name == "kendall":
        return np.array([correlate(name, *pair) for pair in zip(first, second)])
    if name == "spearman":
        first, second = rankdata(first, axis=1), rankdata(second, axis=1)
    first = first - first.mean(axis=1, keepdims=True)
    second = second - second.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        products = (first * second).sum(axis=1)
        return products / np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))


def rater_spread(people: np.ndarray, scores: np.ndarray) -> RaterSpread:
    """Place the model among the raters who share at least 3 pairs with others.

    Arguments
    ---------
    people : numpy.ndarray
        [N, R], NaN where a rater did not rate.
    scores : numpy.ndarray
        [N], the model's.

    Example
    -------
    >>> people = np.array([[1.0, 1, 2], [2, 3, 3], [3, 2, 4], [5, 4, 5]])
    >>> rater_spread(people, np.array([1.0, 2, 3, 4])).count
    3
    """
    theirs, model = [], []
    for rater in range(people.shape[1]):
        others = np.delete(people, rater, axis=1)
        use = ~np.isnan(people[:, rater]) & ~np.isnan(others).all(axis=1)
        if use.sum() < MINIMUM_ITEMS:
            continue
        means = np.nanmean(others[use], axis=1)
        own = correlate("spearman", people[use, rater], means)
        models = correlate("spearman", scores[use], means)
        if not math.isnan(own + models):
            theirs.append(own)
            model.append(models)
    if not theirs:
        return RaterSpread(0)
    return RaterSpread(
        count=len(theirs),
        lowest=min(theirs),
        median=float(np.median(theirs)),
        highest=max(theirs),
        model=float(np.mean(model)),
        below_model=float(np.mean(np.array(theirs) < np.array(model))),
    )


def describe(ratings: Ratings) -> dict[str, int]:
    """Return the numbers of pairs, raters and ratings, and of the pairs of each category."""
    return {
        "pairs": len(ratings.items),
        "raters": len(ratings.raters),
        "ratings": int((~np.isnan(ratings.scores)).sum()),
        **{f"pairs of {name}": count for name, count in Counter(ratings.categories).items()},
    }
