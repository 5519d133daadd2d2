"""Trained models in use: embeddings, scores and classes of recordings, timelines, rewards.

:class:`CLSP` opens and runs a model; :class:`StyleReward` makes a reward of it, with guards.
"""

from speechbrain_clsp.inference.background import embed_background
from speechbrain_clsp.inference.clsp import CLSP
from speechbrain_clsp.inference.guards import (
    AgreementGuard,
    LengthGuard,
    LevelGuard,
    WordErrorGuard,
)
from speechbrain_clsp.inference.reward import StyleReward
from speechbrain_clsp.inference.timeline import Timeline

__all__ = [
    "CLSP",
    "AgreementGuard",
    "LengthGuard",
    "LevelGuard",
    "StyleReward",
    "Timeline",
    "WordErrorGuard",
    "embed_background",
]
