"""Evaluation: suites that compare models on the same data, with intervals, tables and a report.

Metrics of retrieval, zero-shot classification, minimal pairs and agreement with people belong here,
and the models that they are computed for (:mod:`.models`). Nothing here trains or changes a model.
"""

from importlib import import_module
from typing import Any

SUITES = ("mini", "fcaps", "zero-shot", "similarity", "speech-similarity", "probes")

_HOMES = {
    "Comparison": "statistics",
    "Estimate": "statistics",
    "Evaluation": "result",
    "ProbePair": "probes",
    "open_model": "models",
    "paired_comparison": "statistics",
    "read_pairs": "probes",
    "read_tasks": "zero_shot",
    "retrieval_metrics": "retrieval.metrics",
    "run_probes": "probes",
    "run_suite": "suites",
    "write_results": "report",
}

__all__ = ["SUITES", *_HOMES]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, since models need heavy libraries."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
