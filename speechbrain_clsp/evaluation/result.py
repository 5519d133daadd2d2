"""What a suite returns: metrics by table and model, and where they come from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from speechbrain_clsp.evaluation.examples import RetrievalExamples
from speechbrain_clsp.evaluation.similarity import Agreement
from speechbrain_clsp.evaluation.statistics import Comparison, Estimate
from speechbrain_clsp.evaluation.zero_shot import Classification

COLUMNS = ("table", "model", "metric", "value", "low", "high", "chance")


@dataclass(frozen=True)
class ModelComparison:
    """Two models compared by one metric of a table, query by query."""

    table: str
    metric: str
    first: str
    second: str
    result: Comparison

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as a dict, for JSON."""
        names = {"table": self.table, "metric": self.metric}
        return {**names, "first": self.first, "second": self.second, **self.result.to_dict()}


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
    comparisons : list of ModelComparison
        Of all models but bounds, in pairs.
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
    warnings : list of str
        Leaks, and metrics that a sound evaluation hardly gives.

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
    comparisons: list[ModelComparison] = field(default_factory=list)
    confusions: dict[str, dict[str, Classification]] = field(default_factory=dict)
    agreement: dict[str, dict[str, Agreement]] = field(default_factory=dict)
    ratings: dict[str, int] = field(default_factory=dict)
    leaks: dict[str, dict[str, int]] = field(default_factory=dict)
    examples: dict[str, RetrievalExamples] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per table, model and metric.

        Returns
        -------
        pandas.DataFrame
            With the columns ``table``, ``model``, ``metric``, ``value``, ``low``, ``high``,
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
            "tables": _to_dicts(self.tables),
            "comparisons": [comparison.to_dict() for comparison in self.comparisons],
            "confusions": _to_dicts(self.confusions),
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
        return _without_nan(content)


def _to_dicts(nested: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _to_dicts(value) if isinstance(value, Mapping) else value.to_dict()
        for key, value in nested.items()
    }


def _without_nan(value: Any) -> Any:
    """Return the same with None for NaN, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
