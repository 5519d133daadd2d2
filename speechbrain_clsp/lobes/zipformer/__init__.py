"""Zipformer2 (arXiv 2310.11230): the encoder of the speech tower, and its regularization."""

from speechbrain_clsp.lobes.zipformer.encoder import Zipformer2
from speechbrain_clsp.lobes.zipformer.regularization import Regularization
from speechbrain_clsp.lobes.zipformer.regularizers import Balancer, Whiten

__all__ = ["Balancer", "Regularization", "Whiten", "Zipformer2"]
