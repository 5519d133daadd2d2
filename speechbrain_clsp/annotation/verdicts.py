"""What judges' records say: scores and preferences with intervals, agreement, position bias."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from speechbrain_clsp.evaluation.similarity import correlate, krippendorff_alpha
from speechbrain_clsp.evaluation.statistics import Estimate, bootstrap_mean
from speechbrain_clsp.ratings import SCORES, Rating, dimensions

PEOPLE = "people"  # the judge of ratings by people
OUTCOMES = {"better": 1.0, "tie": 0.0, "worse": -1.0}


@dataclass
class JudgeMetrics:
    """One judge's results; intervals are bootstrapped over clips, whose rounds are averaged first.

    Arguments
    ---------
    clips : int
        How many were judged.
    scores : dict
        By source and dimension, the mean score.
    pairs : dict
        By pair of sources and dimension, the fractions ``better``, ``tie`` and ``worse`` of the
        first named.
    agreement : dict
        By dimension, Krippendorff's alpha over rounds of ``scores`` and of ``pairs``; None where
        there is none.
    position_bias : dict
        By dimension, how much more often the first place wins than the second: 0 if it makes no
        difference.
    """

    clips: int = 0
    scores: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    pairs: dict[str, dict[str, dict[str, Estimate]]] = field(default_factory=dict)
    agreement: dict[str, dict[str, float | None]] = field(default_factory=dict)
    position_bias: dict[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True)
class JudgeAgreement:
    """How two judges' mean scores of the same captions correlate.

    Arguments
    ---------
    pearson, spearman : float
        Correlations.
    captions : int
        How many both scored.
    """

    pearson: float
    spearman: float
    captions: int


def people_records(ratings: Iterable[Rating]) -> Iterator[dict[str, Any]]:
    """Yield people's ratings of all dimensions as scores of one judge, a rater per round.

    Example
    -------
    >>> ratings = [Rating("a", "A man.", "x", "Ann", name, 4.0) for name in dimensions()]
    >>> next(people_records(ratings))["coverage"]
    4.0
    """
    found: dict[tuple[str, ...], dict[str, float]] = defaultdict(dict)
    for rating in ratings:
        item = (rating.clip, rating.category, rating.rater, rating.caption)
        found[item][rating.dimension] = rating.value
    for (clip, source, rater, _), values in found.items():
        if values.keys() >= dimensions().keys():
            head = {"id": clip, "kind": "score", "judge": PEOPLE, "round": rater}
            yield {**head, "source": source, **values}


def judge_metrics(records: Iterable[Mapping[str, Any]], seed: int = 0) -> JudgeMetrics:
    """Compute one judge's results.

    Arguments
    ---------
    records : iterable of dict
        Of one judge, see :func:`~speechbrain_clsp.annotation.judge.judge_jobs`.
    seed : int
        Of resampling.

    Returns
    -------
    JudgeMetrics
        Its results.

    Example
    -------
    >>> record = {"kind": "score", "id": "a", "source": "x", "round": 0, "coverage": 4}
    >>> metrics = judge_metrics([record | {"correctness": 5, "naturalness": 3}])
    >>> metrics.scores["x"]["coverage"].value
    4.0
    """
    records = list(records)
    scores = [record for record in records if record["kind"] == "score"]
    pairs = [record for record in records if record["kind"] == "pair"]
    metrics = JudgeMetrics(clips=len({record["id"] for record in records}))
    for source in sorted({record["source"] for record in scores}):
        ours = [record for record in scores if record["source"] == source]
        metrics.scores[source] = {
            name: mean_over_clips([(r["id"], float(r[name])) for r in ours], seed)
            for name in dimensions()
        }
    for pair in sorted({tuple(sorted(record["sources"])) for record in pairs}):
        ours = [record for record in pairs if set(record["sources"]) == set(pair)]
        metrics.pairs[" vs ".join(pair)] = {
            name: _fractions([(r["id"], outcome(r, name, pair[0])) for r in ours], seed)
            for name in dimensions()
        }
    for name in dimensions():
        of_scores = {(r["id"], r["source"], r["round"]): float(r[name]) for r in scores}
        of_pairs = {
            (r["id"], tuple(sorted(r["sources"])), r["round"]): outcome(r, name, min(r["sources"]))
            for r in pairs
        }
        metrics.agreement[name] = {"scores": _alpha(of_scores), "pairs": _alpha(of_pairs)}
        if pairs:
            first = [(r["id"], outcome(r, name, r["sources"][0])) for r in pairs]
            metrics.position_bias[name] = mean_over_clips(first, seed)
    return metrics


def outcome(record: Mapping[str, Any], name: str, source: str) -> float:
    """Return 1 if a source won a pair, -1 if the other did, 0 for a tie.

    Example
    -------
    >>> outcome({"sources": ["a", "b"], "coverage": "second"}, "coverage", "a")
    -1.0
    """
    if record[name] == "tie":
        return OUTCOMES["tie"]
    winner = record["sources"][0 if record[name] == "first" else 1]
    return OUTCOMES["better" if winner == source else "worse"]


def mean_over_clips(values: Sequence[tuple[str, float]], seed: int) -> Estimate:
    """Return a mean with its bootstrap interval; values of a clip are averaged first."""
    by_clip = defaultdict(list)
    for clip, value in values:
        by_clip[clip].append(value)
    means = np.array([np.mean(some) for _, some in sorted(by_clip.items())])
    return Estimate(float(means.mean()), *bootstrap_mean(means, seed))


def judge_agreement(records: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, JudgeAgreement]]:
    """Compare judges, such as a model and people, by the scores that both gave.

    Arguments
    ---------
    records : iterable of dict
        Of several judges.

    Returns
    -------
    dict
        By pair of judges (``one vs other``) and dimension; pairs with fewer than three captions in
        common are left out.
    """
    means: dict[str, dict[str, dict]] = {}
    for record in records:
        if record["kind"] == "score":
            for name in dimensions():
                found = means.setdefault(name, {}).setdefault(record["judge"], defaultdict(list))
                found[record["id"], record["source"]].append(float(record[name]))
    agreement: dict[str, dict[str, JudgeAgreement]] = {}
    for name, judges in means.items():
        for one, other in combinations(sorted(judges), 2):
            common = sorted(set(judges[one]) & set(judges[other]))
            if len(common) < 3:
                continue
            x, y = (np.array([np.mean(judges[j][key]) for key in common]) for j in (one, other))
            agreement.setdefault(f"{one} vs {other}", {})[name] = JudgeAgreement(
                correlate("pearson", x, y), correlate("spearman", x, y), len(common)
            )
    return agreement


def verdict_tables(metrics: JudgeMetrics) -> dict[str, list[list[str]]]:
    """Lay a judge's results out as tables, header first, in the shape of the paper's."""
    names = list(dimensions())
    tables = {}
    if metrics.scores:
        rows = [
            [source, *(found[name].format() for name in names)]
            for source, found in metrics.scores.items()
        ]
        tables[f"Scores from {SCORES.low:g} to {SCORES.high:g}"] = [["source", *names], *rows]
    if metrics.pairs:
        rows = []
        for pair, found in metrics.pairs.items():
            for kind in OUTCOMES:
                cells = [found[name][kind].format(percent=True, digits=0) for name in names]
                rows.append([f"{pair}: {kind}", *cells])
        tables["First against second, in %"] = [["", *names], *rows]
    rows = []
    for kind in ("scores", "pairs"):
        alphas = [metrics.agreement[name][kind] for name in names]
        if any(alpha is not None for alpha in alphas):
            cells = ["-" if alpha is None else f"{alpha:.2f}" for alpha in alphas]
            rows.append([f"alpha over rounds, {kind}", *cells])
    if metrics.position_bias:
        cells = [metrics.position_bias[name].format(percent=True) for name in names]
        rows.append(["first place wins more often by, %", *cells])
    if rows:
        tables["Agreement of rounds and position bias"] = [["", *names], *rows]
    return tables


def agreement_table(agreement: Mapping[str, Mapping[str, JudgeAgreement]]) -> list[list[str]]:
    """Lay the comparison of judges out as a table, header first."""
    rows = [["judges", "dimension", "captions", "Pearson", "Spearman"]]
    for judges, found in agreement.items():
        for name, one in found.items():
            cells = [str(one.captions), f"{one.pearson:.2f}", f"{one.spearman:.2f}"]
            rows.append([judges, name, *cells])
    return rows


def _fractions(outcomes: Sequence[tuple[str, float]], seed: int) -> dict[str, Estimate]:
    return {
        kind: mean_over_clips([(clip, float(got == value)) for clip, got in outcomes], seed)
        for kind, value in OUTCOMES.items()
    }


def _alpha(values: Mapping[tuple, float]) -> float | None:
    """Return alpha over rounds, the last part of keys; None if it means nothing."""
    rounds = {number: n for n, number in enumerate(sorted({key[-1] for key in values}))}
    items = {item: n for n, item in enumerate(dict.fromkeys(key[:-1] for key in values))}
    table = np.full((len(items), len(rounds)), np.nan)
    for key, value in values.items():
        table[items[key[:-1]], rounds[key[-1]]] = value
    alpha = krippendorff_alpha(table) if len(rounds) > 1 else np.nan
    return None if np.isnan(alpha) else alpha
