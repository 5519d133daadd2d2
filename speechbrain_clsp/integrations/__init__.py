"""A CLSP in other libraries: the benchmarks of MTEB, torchmetrics, sentence-transformers.

One thin module per library, with its name; each needs the extra ``integrations``. A library is
imported when a name of its module is first used.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "CLSPModule": "sentence_transformers",
    "CLSPScore": "torchmetrics",
    "MtebEncoder": "mteb",
    "evaluate_tasks": "mteb",
    "load_tasks": "mteb",
}

__all__ = ["CLSPModule", "CLSPScore", "MtebEncoder", "evaluate_tasks", "load_tasks"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, and say what to install if that fails."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != _HOMES[name]:
            raise
        raise ModuleNotFoundError(
            f"{error}: pip install 'speechbrain-clsp[integrations]'", name=error.name
        ) from error
