"""Intervals and paired tests: their coverage, false alarms and hidden differences."""

import numpy as np
import pytest

from speechbrain_clsp.evaluation.statistics import (
    Estimate,
    bootstrap_mean,
    bootstrap_recall,
    median_interval,
    paired_comparison,
)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    generator = np.random.default_rng(5)
    covered = 0
    for run in range(200):
        low, high = bootstrap_mean((generator.random(120) < 0.6).astype(float), seed=run)
        covered += low <= 0.6 <= high
    assert 0.90 <= covered / 200 <= 0.99


def test_recall_interval_keeps_classes_apart():
    labels = np.array([0] * 190 + [1] * 10)
    predicted = labels.copy()
    predicted[190:195] = 0
    low, high = bootstrap_recall(predicted, labels)
    assert low < 0.75 < high
    assert 0.2 < high - low < 0.4  # ten clips decide: 0.5 +- 0.31, halved
    assert bootstrap_recall(labels, labels) == (1.0, 1.0)


def test_a_paired_test_sees_what_intervals_hide():
    generator = np.random.default_rng(1)
    first = (generator.random(241) < 0.5).astype(float)
    second = first.copy()
    second[np.flatnonzero(first)[:12]] = 0  # right on 12 clips fewer, and on no other
    better = paired_comparison(first, second)
    assert abs(better.difference.value - 12 / 241) < 1e-12 and better.p_value < 0.001
    assert 0 < better.difference.low < better.difference.high and better.worse == 0
    low, high = bootstrap_mean(first)
    assert low < second.mean() < high  # their own intervals overlap
    assert paired_comparison(first, first).p_value == 1.0
    one = first.copy()
    one[0] = 1 - one[0]
    assert paired_comparison(first, one).p_value == 1.0  # a coin toss
    with pytest.raises(ValueError, match="same"):
        paired_comparison(first, first[1:])


def test_p_values_of_equal_models_are_uniform():
    generator = np.random.default_rng(2)
    values = [paired_comparison(*generator.random((2, 60)), seed=run).p_value for run in range(200)]
    assert 0.02 < np.mean(np.array(values) < 0.1) < 0.2


def test_large_sets_get_the_same_interval_from_counts():
    values = (np.random.default_rng(0).random(30_000) < 0.3).astype(float)
    half = np.sqrt(0.21 / 30_000) * 1.96
    low, high = bootstrap_mean(values)
    assert abs((high - low) / 2 - half) < 0.1 * half
    assert median_interval(np.ones(3)) == (1.0, 1.0)


@pytest.mark.parametrize(
    "estimate, text",
    [
        (Estimate(0.5, 0.25, 0.75), "50.0 (25.0-75.0)"),
        (Estimate(-0.02, -0.05, 0.01), "-2.0 (-5.0 to 1.0)"),
        (Estimate(float("nan")), "-"),
    ],
)
def test_estimates_are_formatted_for_tables(estimate, text):
    assert estimate.format(percent=True) == text
