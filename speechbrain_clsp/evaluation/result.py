"""What a suite returns: metrics by table and model, and where they come from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import pandas as pd

from speechbrain_clsp.evaluation.examples import ProbeExample, RetrievalExamples
from speechbrain_clsp.evaluation.probes.pairs import KINDS, ProbePair
from speechbrain_clsp.evaluation.similarity import Agreement
from speechbrain_clsp.evaluation.statistics import Comparison, Estimate
from speechbrain_clsp.evaluation.zero_shot import Classification

COLUMNS = ("table", "model", "metric", "value", "low", "high", "chance")
SUMMARIZED = ("R@1", "UAR")  # ends of names of metrics
PAIR = ("table", "metric", "first", "second")


@dataclass
class Evaluation:
    """The results of a suite.

    Arguments
    ---------
    suite : str
        Its name.
    seed : int
        Seed of all resampling.
    data : list of dict
        ``name``, ``sha256`` and ``rows`` of each data file.
    models : dict
        For each model's name in the tables, ``model`` and ``revision``.
    versions : dict
        Versions of the libraries.
    tables : dict
        ``tables[table][model][metric]`` is an Estimate.
    counts : dict
        ``counts[table][metric]`` is the number of items behind it, where a table shows it.
    comparisons : dict
        ``comparisons[table, metric, first, second]`` is the Comparison of two models, of which
        neither is a bound.
    confusions : dict
        ``confusions[table][model]`` is a Classification.
    agreement : dict
        ``agreement[category][model]`` is an Agreement with people's ratings.
    ratings : dict
        Numbers of pairs, raters and ratings.
    leaks : dict
        For each data file, the number of leaks of each kind from the training data.
    examples : dict
        For each model, the best and worst retrievals; they are shown in the report and are not in
        ``metrics.json``.
    probes : dict
        For each model, its worst minimal pairs; for the report only as well.
    made_pairs : list of ProbePair
        Pairs that were made from captions; they are written to ``pairs.jsonl``.
    warnings : list of str
        Leaks, metrics that a sound evaluation hardly gives, and data that are not of people.
    recognized : list of str
        Names of the tables whose data is the test set that published metrics are of.

    Example
    -------
    >>> tables = {"fine": {"ours": {"R@1": Estimate(0.84, 0.797, 0.88, chance=0.003)}}}
    >>> Evaluation("mini", 0, tables=tables).to_frame().to_dict("records")[0]["low"]
    0.797
    """

    suite: str
    seed: int
    data: list[dict[str, Any]] = field(default_factory=list)
    models: dict[str, dict[str, str]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    tables: dict[str, dict[str, dict[str, Estimate]]] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    comparisons: dict[tuple[str, str, str, str], Comparison] = field(default_factory=dict)
    confusions: dict[str, dict[str, Classification]] = field(default_factory=dict)
    agreement: dict[str, dict[str, Agreement]] = field(default_factory=dict)
    ratings: dict[str, int] = field(default_factory=dict)
    leaks: dict[str, dict[str, int]] = field(default_factory=dict)
    examples: dict[str, RetrievalExamples] = field(default_factory=dict)
    probes: dict[str, list[ProbeExample]] = field(default_factory=dict)
    made_pairs: list[ProbePair] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    recognized: list[str] = field(default_factory=list)

    def merge(self, other: Evaluation) -> None:
        """Add the results of another suite on the same models.

        Example
        -------
        >>> evaluation = Evaluation("mini", 0, tables={"fine": {}})
        >>> evaluation.merge(Evaluation("probes", 0, tables={"probes": {}}))
        >>> evaluation.suite, list(evaluation.tables)
        ('mini', ['fine', 'probes'])
        """
        for each in fields(self):
            own, new = getattr(self, each.name), getattr(other, each.name)
            if isinstance(own, dict):
                own.update(new)
            elif isinstance(own, list):
                own.extend(new)
        self.warnings = list(dict.fromkeys(self.warnings))

    def summary(self, model: str) -> dict[str, tuple[float, float | None, float | None]]:
        """Return a model's main metrics with their intervals, as its card shows them.

        These are R@1, the recall of classes (UAR) and, of minimal pairs, the accuracies by kind.

        Example
        -------
        >>> tables = {"fine": {"ours": {"R@1": Estimate(0.8, 0.7, 0.9), "R@5": Estimate(1.0)}}}
        >>> Evaluation("mini", 0, tables=tables).summary("ours")
        {'fine, R@1': (0.8, 0.7, 0.9)}
        """
        return {
            f"{table}, {metric.replace('_', ' ')}": (each.value, each.low, each.high)
            for table, models in self.tables.items()
            for metric, each in models.get(model, {}).items()
            if metric.endswith(SUMMARIZED) or (table == "probes" and metric in KINDS)
        }

    def to_frame(self) -> pd.DataFrame:
        """Return one row per table, model and metric.

        Its columns are ``table``, ``model``, ``metric``, ``value``, ``low``, ``high`` and
        ``chance``; the last three are NaN where there is none.
        """
        rows = [
            {"table": table, "model": model, "metric": metric, **estimate.to_dict()}
            for table, models in self.tables.items()
            for model, metrics in models.items()
            for metric, estimate in metrics.items()
        ]
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``metrics.json``, with None for NaN."""
        content = {
            "suite": self.suite,
            "seed": self.seed,
            "versions": self.versions,
            "data": self.data,
            "models": self.models,
            "tables": self.tables,
            "counts": self.counts,
            "comparisons": [
                {**dict(zip(PAIR, names)), **vars(comparison)}
                for names, comparison in self.comparisons.items()
            ],
            "confusions": self.confusions,
            "agreement": {
                category: {
                    "items": next(iter(models.values())).items,
                    "alpha": next(iter(models.values())).alpha,
                    "raters": {name: asdict(found.raters) for name, found in models.items()},
                }
                for category, models in self.agreement.items()
            },
            "ratings": self.ratings,
            "leaks": self.leaks,
            "warnings": self.warnings,
        }
        return _for_json(content)


def _for_json(value: Any) -> Any:
    """Return the same as dicts and lists, with None for NaN, which JSON does not have."""
    if isinstance(value, Estimate | Classification):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {key: _for_json(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_for_json(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
