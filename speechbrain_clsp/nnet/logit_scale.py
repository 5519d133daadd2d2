"""The learned factor on cosine similarities."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class LogitScale(nn.Module):
    """A learned factor on cosine similarities, kept between 1 and ``maximum``.

    It is the inverse of a temperature.

    The logarithm is stored with shape (1,), since SpeechBrain decays 0-dim parameters.

    Arguments
    ---------
    initial : float
        First value of the factor.
    maximum : float
        Its upper bound (CLIP, arXiv 2103.00020, section 2.5).

    Example
    -------
    >>> logit_scale = LogitScale(initial=500.0)
    >>> logit_scale.clamp()
    >>> round(logit_scale().item(), 3)
    100.0
    """

    def __init__(self, initial: float = 1 / 0.07, maximum: float = 100.0) -> None:
        super().__init__()
        self.maximum = maximum
        self.logit_scale = nn.Parameter(torch.tensor([math.log(initial)]))

    def forward(self) -> Tensor:
        """Return the factor, [1] float32."""
        return self.logit_scale.exp()

    @torch.no_grad()
    def clamp(self) -> None:
        """Put the factor back into its bounds; call it after each optimizer step."""
        self.logit_scale.clamp_(0.0, math.log(self.maximum))
