"""SwooshL and SwooshR, the activations of Zipformer, with a backward pass of one sigmoid."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

SLOPE = 0.08


class _Swoosh(torch.autograd.Function):
    """log(1 + exp(x - shift)) - 0.08 x - offset; only ``x`` is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: float, offset: float) -> Tensor:
        """Return the activation of x, of its shape."""
        ctx.save_for_backward(x)
        ctx.shift = shift
        return swoosh(x, shift, offset)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient with respect to x."""
        (x,) = ctx.saved_tensors
        return (x - ctx.shift).sigmoid_().sub_(SLOPE).mul_(grad), None, None


def swoosh(x: Tensor, shift: float, offset: float) -> Tensor:
    """Compute log(1 + exp(x - shift)) - 0.08 x - offset without a graph.

    ``logaddexp`` is used since its CPU kernel is several times faster than softplus's. Exported, it
    would become the logarithm of a sum of exponentials, which overflows from x = 88 on.
    """
    if torch.onnx.is_in_onnx_export():
        return nn.functional.softplus(x - shift) - SLOPE * x - offset
    zero = torch.zeros((), dtype=x.dtype, device=x.device)
    return torch.logaddexp(x - shift, zero).sub_(x, alpha=SLOPE).sub_(offset)


class SwooshL(nn.Module):
    """SwooshL(x) = log(1 + exp(x - 4)) - 0.08 x - 0.035 (Zipformer, arXiv 2310.11230).

    Example
    -------
    >>> round(SwooshL()(torch.zeros(1)).item(), 6)
    -0.01685
    """

    shift, offset = 4.0, 0.035

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation to a tensor of any shape."""
        if torch.is_grad_enabled() and x.requires_grad:
            return _Swoosh.apply(x, self.shift, self.offset)
        return swoosh(x, self.shift, self.offset)


class SwooshR(SwooshL):
    """SwooshR(x) = log(1 + exp(x - 1)) - 0.08 x - 0.313261687, zero at zero.

    Example
    -------
    >>> SwooshR()(torch.zeros(1)).abs().item() < 1e-7
    True
    """

    shift, offset = 1.0, 0.313261687
