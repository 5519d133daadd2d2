"""What judges' records say: scores and preferences with intervals, agreement, position bias."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from speechbrain_clsp.evaluation.similarity import correlate, krippendorff_alpha
from speechbrain_clsp.evaluation.statistics import Estimate, bootstrap_mean
from speechbrain_clsp.evaluation.tables import pipes
from speechbrain_clsp.ratings import SCORES, Rating, dimensions
from speechbrain_clsp.utils.files import atomic_write

PEOPLE = "people"  # the judge of ratings by people
CHOICES = {"first": 1.0, "tie": 0.0, "second": -1.0}
OUTCOMES = {"better": 1.0, "tie": 0.0, "worse": -1.0}


@dataclass
class JudgeMetrics:
    """One judge's results; intervals are bootstrapped over clips, whose rounds are averaged first.

    ``scores`` are means by source and dimension; ``pairs`` by pair of sources and dimension the
    fractions ``better``, ``tie`` and ``worse`` of the first named; ``agreement`` by dimension
    Krippendorff's alpha over rounds of ``scores`` and of ``pairs``, None where there is none;
    ``position_bias`` by dimension how much more often the first place wins than the second.
    """

    clips: int = 0
    scores: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    pairs: dict[str, dict[str, dict[str, Estimate]]] = field(default_factory=dict)
    agreement: dict[str, dict[str, float | None]] = field(default_factory=dict)
    position_bias: dict[str, Estimate] = field(default_factory=dict)


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
        Those of :func:`~speechbrain_clsp.annotation.judge.judge_jobs`.
    seed : int
        Of resampling.

    Returns
    -------
    JudgeMetrics
        Means with intervals, and how well rounds agree.

    Example
    -------
    >>> record = {"kind": "score", "id": "a", "source": "x", "round": 0, "coverage": 4}
    >>> metrics = judge_metrics([record | {"correctness": 5, "naturalness": 3}])
    >>> metrics.scores["x"]["coverage"].value
    4.0
    """
    records = list(records)
    scores = pd.DataFrame([record for record in records if record["kind"] == "score"])
    pairs = pd.DataFrame([_signed(record) for record in records if record["kind"] == "pair"])
    metrics = JudgeMetrics(clips=len({record["id"] for record in records}))
    agreement: dict[str, dict] = {name: {"scores": None, "pairs": None} for name in dimensions()}
    metrics.agreement = agreement
    if len(scores):
        for source, ours in scores.groupby("source"):
            metrics.scores[source] = {n: _mean(ours[n], ours["id"], seed) for n in dimensions()}
        for name in dimensions():
            agreement[name]["scores"] = _alpha(scores, "source", name)
    if len(pairs):
        for pair, ours in pairs.groupby("pair"):
            metrics.pairs[pair] = {
                name: {
                    kind: _mean(ours[name] == value, ours["id"], seed)
                    for kind, value in OUTCOMES.items()
                }
                for name in dimensions()
            }
        for name in dimensions():
            agreement[name]["pairs"] = _alpha(pairs, "pair", name)
            first = pairs[name] * pairs["sign"]
            metrics.position_bias[name] = _mean(first, pairs["id"], seed)
    return metrics


def _signed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record of a pair with 1 where the source whose name sorts first is better."""
    first, second = record["sources"]
    sign = 1 if first <= second else -1
    values = {name: sign * CHOICES[record[name]] for name in dimensions()}
    pair = " vs ".join(sorted((first, second)))
    return {"id": record["id"], "round": record["round"], "pair": pair, "sign": sign, **values}


def _mean(values: pd.Series, clips: pd.Series, seed: int) -> Estimate:
    """Return a mean with its bootstrap interval; values of a clip are averaged first."""
    means = values.astype(float).groupby(clips).mean().to_numpy()
    return Estimate(float(means.mean()), *bootstrap_mean(means, seed))


def _alpha(frame: pd.DataFrame, item: str, name: str) -> float | None:
    """Return alpha over rounds; None if it means nothing."""
    table = frame.pivot_table(name, index=["id", item], columns="round")
    alpha = krippendorff_alpha(table.to_numpy(dtype=float)) if table.shape[1] > 1 else math.nan
    return None if math.isnan(alpha) else alpha


def judge_agreement(
    records: Iterable[Mapping[str, Any]],
) -> dict[str, dict[str, dict[str, float]]]:
    """Compare judges, such as a model and people, by their mean scores of the same captions.

    Arguments
    ---------
    records : iterable of dict
        Those of :func:`~speechbrain_clsp.annotation.judge.judge_jobs`, of all judges.

    Returns
    -------
    dict
        By pair of judges (``one vs other``) and dimension: the correlations ``pearson`` and
        ``spearman``, and how many ``captions`` both scored. Pairs with fewer than three captions
        in common are left out.

    Example
    -------
    >>> given = {"r1": (1, 3, 5), "r2": (2, 3, 4)}
    >>> records = [
    ...     {"kind": "score", "judge": judge, "id": name, "source": "x", **dict.fromkeys(names, n)}
    ...     for names in [dimensions()] for judge in given for name, n in zip("abc", given[judge])]
    >>> round(judge_agreement(records)["r1 vs r2"]["coverage"]["pearson"], 3)
    1.0
    """
    scores = pd.DataFrame([record for record in records if record["kind"] == "score"])
    if not len(scores):
        return {}
    means = scores.groupby(["judge", "id", "source"])[list(dimensions())].mean()
    agreement: dict[str, dict[str, dict[str, float]]] = {}
    for one, other in combinations(means.index.unique("judge").sort_values(), 2):
        ours, theirs = means.loc[one].align(means.loc[other], join="inner")
        if len(ours) < 3:
            continue
        agreement[f"{one} vs {other}"] = found = {}
        for name in dimensions():
            x, y = ours[name].to_numpy(), theirs[name].to_numpy()
            found[name] = {kind: correlate(kind, x, y) for kind in ("pearson", "spearman")}
            found[name]["captions"] = len(ours)
    return agreement


def write_report(records: Sequence[Mapping[str, Any]], folder: Path, seed: int = 0) -> str:
    """Write ``judge.json`` and ``judge.md`` of all judges; returns the latter's text."""
    metrics: dict[str, JudgeMetrics] = {}
    parts = ["# Judges\n", f"{len(records)} answers; in brackets, 95 % bootstrap intervals.\n"]
    for judge in sorted({record["judge"] for record in records}):
        metrics[judge] = judge_metrics([r for r in records if r["judge"] == judge], seed)
        for title, rows in _tables(metrics[judge]).items():
            parts.append(f"## {judge}: {title}\n\n{pipes(rows)}")
    agreement = judge_agreement(records)
    if agreement:
        rows = [["judges", "dimension", "captions", "Pearson", "Spearman"]]
        for judges, by_dimension in agreement.items():
            for name, found in by_dimension.items():
                cells = [f"{found[kind]:.2f}" for kind in ("pearson", "spearman")]
                rows.append([judges, name, str(found["captions"]), *cells])
        parts.append(f"## Judges compared\n\n{pipes(rows)}")

    def plain(value: Any) -> dict[str, Any]:
        return value.to_dict() if isinstance(value, Estimate) else vars(value)

    text = json.dumps({"judges": metrics, "agreement": agreement}, indent=1, default=plain)
    atomic_write(folder / "judge.json", text + "\n")
    atomic_write(folder / "judge.md", "\n".join(parts))
    return "\n".join(parts)


def _tables(metrics: JudgeMetrics) -> dict[str, list[list[str]]]:
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
        rows = [
            [f"{pair}: {kind}", *(found[n][kind].format(percent=True, digits=0) for n in names)]
            for pair, found in metrics.pairs.items()
            for kind in OUTCOMES
        ]
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
