"""What judges' records say: scores and preferences with intervals, agreement, position bias."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from speechbrain_clsp.annotation.judge import dimensions
from speechbrain_clsp.evaluation.similarity import correlate, krippendorff_alpha
from speechbrain_clsp.evaluation.statistics import bootstrap_mean

BETTER, TIE, WORSE = 1.0, 0.0, -1.0


def judge_figures(records: Iterable[Mapping[str, Any]], seed: int = 0) -> dict[str, Any]:
    """Compute one judge's tables.

    Arguments
    ---------
    records : iterable of dict
        Of one judge, see :func:`~speechbrain_clsp.annotation.judge.judge_jobs`.
    seed : int
        Of resampling.

    Returns
    -------
    dict
        ``scores``: by source and dimension, ``value``, ``low``, ``high`` (bootstrap over clips of
        the mean over rounds) and ``n``; ``pairs``: by pair of sources and dimension, shares
        ``better``, ``tie``, ``worse`` of the first named, each with an interval; ``agreement``: by
        dimension, Krippendorff's alpha over rounds, of scores and of pairs; ``position_bias``: by
        dimension, how much more often the first place wins than the second, 0 if it makes no
        difference.

    Example
    -------
    >>> record = {"kind": "score", "id": "a", "source": "x", "round": 0, "coverage": 4}
    >>> figures = judge_figures([record | {"correctness": 5, "naturalness": 3}])
    >>> figures["scores"]["x"]["coverage"]["value"]
    4.0
    """
    records = list(records)
    scores = [record for record in records if record["kind"] == "score"]
    pairs = [record for record in records if record["kind"] == "pair"]
    figures: dict[str, Any] = {"scores": {}, "pairs": {}, "agreement": {}, "position_bias": {}}
    for source in sorted({record["source"] for record in scores}):
        ours = [record for record in scores if record["source"] == source]
        figures["scores"][source] = {
            name: mean_over_clips([(r["id"], float(r[name])) for r in ours], seed)
            for name in dimensions()
        }
    for pair in sorted({tuple(sorted(record["sources"])) for record in pairs}):
        ours = [record for record in pairs if set(record["sources"]) == set(pair)]
        figures["pairs"][" vs ".join(pair)] = {
            name: _shares([(r["id"], outcome(r, name, pair[0])) for r in ours], seed)
            for name in dimensions()
        }
    for name in dimensions():
        of_scores = {(r["id"], r["source"], r["round"]): float(r[name]) for r in scores}
        of_pairs = {
            (r["id"], tuple(sorted(r["sources"])), r["round"]): outcome(r, name, min(r["sources"]))
            for r in pairs
        }
        figures["agreement"][name] = {"scores": _alpha(of_scores), "pairs": _alpha(of_pairs)}
        if pairs:
            first = [(r["id"], outcome(r, name, r["sources"][0])) for r in pairs]
            figures["position_bias"][name] = mean_over_clips(first, seed)
    return figures


def outcome(record: Mapping[str, Any], name: str, source: str) -> float:
    """Return 1 if a source won a pair, -1 if the other did, 0 for a tie.

    Example
    -------
    >>> outcome({"sources": ["a", "b"], "coverage": "second"}, "coverage", "a")
    -1.0
    """
    if record[name] == "tie":
        return TIE
    winner = record["sources"][0 if record[name] == "first" else 1]
    return BETTER if winner == source else WORSE


def mean_over_clips(values: Sequence[tuple[str, float]], seed: int) -> dict[str, float]:
    """Return a mean with its bootstrap interval; values of a clip are averaged first."""
    by_clip = defaultdict(list)
    for clip, value in values:
        by_clip[clip].append(value)
    means = np.array([np.mean(some) for _, some in sorted(by_clip.items())])
    low, high = bootstrap_mean(means, seed)
    return {"value": float(means.mean()), "low": low, "high": high, "n": len(means)}


def judge_agreement(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Compare judges, such as a model and people, by the scores that both gave.

    Arguments
    ---------
    records : iterable of dict
        Of several judges.

    Returns
    -------
    dict
        By pair of judges and dimension: ``pearson``, ``spearman`` of mean scores of a clip's
        caption, and their number ``n``; nothing for pairs with fewer than three in common.
    """
    means: dict[str, dict[str, dict]] = {}
    for record in records:
        if record["kind"] == "score":
            for name in dimensions():
                found = means.setdefault(name, {}).setdefault(record["judge"], defaultdict(list))
                found[record["id"], record["source"]].append(float(record[name]))
    figures: dict[str, Any] = {}
    for name, judges in means.items():
        for one, other in combinations(sorted(judges), 2):
            common = sorted(set(judges[one]) & set(judges[other]))
            if len(common) < 3:
                continue
            x, y = (np.array([np.mean(judges[j][key]) for key in common]) for j in (one, other))
            figures.setdefault(f"{one} vs {other}", {})[name] = {
                "pearson": correlate("pearson", x, y),
                "spearman": correlate("spearman", x, y),
                "n": len(common),
            }
    return figures


def verdict_tables(figures: Mapping[str, Any]) -> dict[str, list[list[str]]]:
    """Lay a judge's figures out as tables, header first, in the shape of the paper's."""
    names = list(dimensions())
    tables = {}
    if figures["scores"]:
        rows = [
            [source, *(_cell(found[name], "{:.2f}") for name in names)]
            for source, found in figures["scores"].items()
        ]
        tables["Scores from 1 to 5"] = [["source", *names], *rows]
    if figures["pairs"]:
        rows = []
        for pair, found in figures["pairs"].items():
            for kind in ("better", "tie", "worse"):
                cells = [_cell(found[name][kind], "{:.0f}", 100) for name in names]
                rows.append([f"{pair}: {kind}", *cells])
        tables["First against second, in %"] = [["", *names], *rows]
    rows = []
    for kind in ("scores", "pairs"):
        alphas = [figures["agreement"][name][kind] for name in names]
        if any(alpha is not None for alpha in alphas):
            cells = ["-" if alpha is None else f"{alpha:.2f}" for alpha in alphas]
            rows.append([f"alpha over rounds, {kind}", *cells])
    if figures["position_bias"]:
        cells = [_cell(figures["position_bias"][name], "{:+.1f}", 100) for name in names]
        rows.append(["first place wins more often by, %", *cells])
    if rows:
        tables["Agreement of rounds and position bias"] = [["", *names], *rows]
    return tables


def agreement_table(figures: Mapping[str, Any]) -> list[list[str]]:
    """Lay the comparison of judges out as a table, header first."""
    rows = [["judges", "dimension", "captions", "Pearson", "Spearman"]]
    for judges, found in figures.items():
        for name, values in found.items():
            cells = [f"{values[key]:.2f}" for key in ("pearson", "spearman")]
            rows.append([judges, name, str(values["n"]), *cells])
    return rows


def _shares(outcomes: Sequence[tuple[str, float]], seed: int) -> dict[str, dict[str, float]]:
    kinds = {"better": BETTER, "tie": TIE, "worse": WORSE}
    return {
        kind: mean_over_clips([(clip, float(got == value)) for clip, got in outcomes], seed)
        for kind, value in kinds.items()
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


def _cell(figure: Mapping[str, float], form: str, factor: float = 1) -> str:
    value, low, high = (form.format(figure[key] * factor) for key in ("value", "low", "high"))
    return f"{value} ({low} - {high})"
