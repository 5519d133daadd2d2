"""Linear layers that start small."""

from __future__ import annotations

import torch
from torch import nn


def scaled_linear(inputs: int, outputs: int, scale: float = 1.0, bias: bool = True) -> nn.Linear:
    """Make a linear layer whose initial weights are ``scale`` times the usual ones.

    Residual branches that begin small let a deep encoder start near the identity.

    Example
    -------
    >>> scaled_linear(4, 2, scale=0.0).weight.abs().max().item()
    0.0
    """
    linear = nn.Linear(inputs, outputs, bias=bias)
    with torch.no_grad():
        linear.weight.mul_(scale)
        if bias:
            nn.init.uniform_(linear.bias, -0.1 * scale, 0.1 * scale)
    return linear
