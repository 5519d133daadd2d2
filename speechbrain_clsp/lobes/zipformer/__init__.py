"""Zipformer2 (arXiv 2310.11230): the encoder of the speech tower."""

from speechbrain_clsp.lobes.zipformer.encoder import Zipformer2

__all__ = ["Zipformer2"]
