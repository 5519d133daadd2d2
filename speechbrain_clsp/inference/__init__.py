"""Trained models in use: embeddings, scores and classes of recordings, timelines, rewards.

:class:`CLSP` opens and runs a model; :class:`StyleReward` makes a reward of it, with guards.
"""

from importlib import import_module
from typing import Any

_NAMES = {
    "CLSP": "clsp",
    "AgreementGuard": "guards",
    "LengthGuard": "guards",
    "LevelGuard": "guards",
    "StyleReward": "reward",
    "Timeline": "timeline",
    "WordErrorGuard": "guards",
}
__all__ = list(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_NAMES[name]}"), name)
