"""Models that can be evaluated side by side, each fed as its authors require.

One module per kind, :mod:`base` for what they share, :mod:`cache` so that nothing is embedded
twice, and :mod:`open`, which opens any kind by its specification.
"""

from speechbrain_clsp.evaluation.models.base import Model
from speechbrain_clsp.evaluation.models.bounds import OracleModel, RandomModel, UntrainedModel
from speechbrain_clsp.evaluation.models.cache import CachedModel
from speechbrain_clsp.evaluation.models.clap import ClapModel
from speechbrain_clsp.evaluation.models.clsp import ClspModel
from speechbrain_clsp.evaluation.models.dual_encoder import DualEncoderModel
from speechbrain_clsp.evaluation.models.open import open_model
from speechbrain_clsp.evaluation.models.precomputed import PrecomputedModel

__all__ = [
    "CachedModel",
    "ClapModel",
    "ClspModel",
    "DualEncoderModel",
    "Model",
    "OracleModel",
    "PrecomputedModel",
    "RandomModel",
    "UntrainedModel",
    "open_model",
]
