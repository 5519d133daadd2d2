"""Training: the contrastive Brain, its loss, checkpoints, the step log, initial weights.

The towers are in ``lobes``, the arithmetic in ``nnet``, batches in ``dataio``.
"""

from speechbrain_clsp.training.brain import ContrastiveBrain
from speechbrain_clsp.training.checkpointer import AtomicCheckpointer
from speechbrain_clsp.training.loss import CLSPLoss
from speechbrain_clsp.training.own_data import OwnData, prepare_own_data
from speechbrain_clsp.training.step_log import StepLog

__all__ = [
    "AtomicCheckpointer",
    "CLSPLoss",
    "ContrastiveBrain",
    "OwnData",
    "StepLog",
    "prepare_own_data",
]
