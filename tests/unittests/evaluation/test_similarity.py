"""Agreement of a model with people, against scipy, textbook values and planted faults."""

import numpy as np
import pytest
from scipy.stats import pearsonr

from speechbrain_clsp.evaluation.similarity import (
    RaterSpread,
    _correlations,
    correlate,
    correlation_estimate,
    krippendorff_alpha,
    rater_spread,
    similarity_metrics,
)
from speechbrain_clsp.ratings import Ratings

NAN = np.nan
# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", section C: four observers,
# twelve units, missing data; alpha is 0.849 for interval data.
TEXTBOOK = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
).T


def people(raters: int = 8, items: int = 60, noise: float = 0.8, seed: int = 0) -> tuple:
    """Return (ratings [N, R], truth [N]) of raters who all see the same truth, blurred."""
    generator = np.random.default_rng(seed)
    truth = generator.random(items) * 5
    return truth[:, None] + noise * generator.standard_normal((items, raters)), truth


def ratings(scores: np.ndarray) -> Ratings:
    """Wrap scores [N, R]; a third of the pairs in each category."""
    count = len(scores)
    names = [("intrinsic", "situational", "fusion")[i % 3] for i in range(count)]
    items = [(f"{i}.wav", "A caption.") for i in range(count)]
    return Ratings(items, names, [f"r{i}" for i in range(scores.shape[1])], scores)


def test_alpha_equals_the_textbook():
    assert abs(krippendorff_alpha(TEXTBOOK) - 0.849) < 5e-4


def test_alpha_equals_all_pairs_counted():
    scores, _ = people(5, 12)
    scores[np.random.default_rng(1).random(scores.shape) < 0.3] = NAN
    kept = [row[~np.isnan(row)] for row in scores if (~np.isnan(row)).sum() > 1]
    everything = np.concatenate(kept)
    within = sum(
        sum((a - b) ** 2 for a in row for b in row) / (len(row) - 1) for row in kept
    ) / len(everything)
    size = len(everything)
    between = sum((a - b) ** 2 for a in everything for b in everything) / (size * (size - 1))
    assert abs(krippendorff_alpha(scores) - (1 - within / between)) < 1e-12
    assert abs(krippendorff_alpha(np.random.default_rng(2).random((400, 4)))) < 0.1
    assert np.isnan(krippendorff_alpha(np.full((4, 3), 2.0)))


def test_correlations_are_those_of_the_mean_rating():
    scores, truth = people()
    metrics = similarity_metrics(ratings(scores), truth)
    assert set(metrics) == {"intrinsic", "situational", "fusion", "all"}
    expected = pearsonr(truth[1::3], scores[1::3].mean(axis=1)).statistic
    found = metrics["situational"].correlations["pearson"]
    assert abs(found.value - expected) < 1e-12 and metrics["situational"].items == 20
    assert found.low < expected < found.high <= 1
    draws = np.random.default_rng(3).integers(0, 60, (5, 60))
    for name in ("pearson", "spearman", "kendall"):
        one = [correlate(name, truth[d], scores[d, 0]) for d in draws]
        np.testing.assert_allclose(_correlations(name, truth[draws], scores[draws, 0]), one)
    together = metrics["all"].correlations
    assert together["kendall"].value < together["spearman"].value


def test_a_permuted_pairing_has_no_correlation():
    scores, truth = people(items=300)
    shuffled = np.random.default_rng(0).permutation(truth)
    found = similarity_metrics(ratings(scores), shuffled)["all"].correlations["spearman"]
    assert abs(found.value) < 0.15 and found.low < 0 < found.high


def test_the_model_is_placed_among_raters():
    scores, truth = people()
    good, bad = rater_spread(scores, truth), rater_spread(scores, -truth)
    assert good.below_model == 1.0 and bad.below_model == 0.0
    assert good.lowest <= good.median <= good.highest < good.model
    # A rater as a model must not profit from being in the mean that it is compared with.
    one_of_them = rater_spread(scores[:, 1:], scores[:, 0])
    assert 0.0 <= one_of_them.below_model <= 1.0
    assert abs(one_of_them.model - one_of_them.median) < 0.05
    assert rater_spread(scores[:, :1], truth) == RaterSpread(0)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    covered, runs = 0, 60
    for run in range(runs):
        draw = np.random.default_rng(run).multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 50)
        found = correlation_estimate("pearson", *draw.T, run)
        covered += found.low <= 0.6 <= found.high
    assert covered / runs > 0.85


def test_a_constant_model_gets_no_correlation():
    scores, _ = people()
    metrics = similarity_metrics(ratings(scores), np.ones(60))
    assert np.isnan(metrics["all"].correlations["pearson"].value)
    with pytest.raises(ValueError, match="finite"):
        similarity_metrics(ratings(scores), np.full(60, NAN))
