"""The arithmetic of contrastive training, usable without the rest of the package.

Losses and their tiles, gradients of large batches, optimizer and schedules, the logit scale, masks.
"""

from speechbrain_clsp.nnet.averaging import ModelAverage
from speechbrain_clsp.nnet.gradcache import GradCache
from speechbrain_clsp.nnet.logit_scale import LogitScale
from speechbrain_clsp.nnet.losses import contrastive_loss, hard_negative_loss
from speechbrain_clsp.nnet.masking import masked_mean, padding_mask
from speechbrain_clsp.nnet.optim import ScaledAdam
from speechbrain_clsp.nnet.schedulers import Eden

__all__ = [
    "Eden",
    "GradCache",
    "LogitScale",
    "ModelAverage",
    "ScaledAdam",
    "contrastive_loss",
    "hard_negative_loss",
    "masked_mean",
    "padding_mask",
]
