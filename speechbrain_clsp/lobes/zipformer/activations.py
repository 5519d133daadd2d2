"""SwooshL and SwooshR, the activations of Zipformer, and the feed-forward network around them.

On a CPU they are computed in blocks, see :mod:`~speechbrain_clsp.lobes.zipformer.blocks`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from speechbrain_clsp.lobes.zipformer.blocks import pass_blocks, use_blocks

SLOPE = 0.08
PRODUCT_BLOCK = 2**19  # numbers in a block of matrix products, of which larger ones are faster
LARGEST = 80.0  # exp() of it is finite in float32


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
        if not (use_blocks(x) and x.is_contiguous() and grad.is_contiguous()):
            return (x - ctx.shift).sigmoid_().sub_(SLOPE).mul_(grad), None, None
        out = torch.empty_like(x)
        _swoosh_gradient_into(out, x, grad, ctx.shift)
        return out, None, None


def swoosh(x: Tensor, shift: float, offset: float) -> Tensor:
    """Compute log(1 + exp(x - shift)) - 0.08 x - offset without a graph.

    ``logaddexp`` has a faster CPU kernel than softplus. Exported, it would become the logarithm of
    a sum of exponentials, which overflows from x = 88 on.
    """
    if torch.onnx.is_in_onnx_export():
        return nn.functional.softplus(x - shift) - SLOPE * x - offset
    if use_blocks(x) and x.is_contiguous():
        out = torch.empty_like(x)
        _swoosh_into(out, x, shift, offset)
        return out
    zero = torch.zeros((), dtype=x.dtype, device=x.device)
    return torch.logaddexp(x - shift, zero).sub_(x, alpha=SLOPE).sub_(offset)


def _swoosh_into(out: Tensor, x: Tensor, shift: float, offset: float) -> None:
    """Write the activation of x to out, other memory; exp2 and log1p have the fastest kernels."""
    for values, result in pass_blocks(x, out):
        if values.max() > LARGEST:
            torch.logaddexp(values - shift, values.new_zeros(()), out=result)
        else:
            torch.sub(values, shift, out=result).mul_(1 / math.log(2)).exp2_().log1p_()
        result.sub_(values, alpha=SLOPE).sub_(offset)


def _swoosh_gradient_into(out: Tensor, x: Tensor, grad: Tensor, shift: float) -> None:
    """Write the gradient with respect to x to out, other memory."""
    for values, gradients, result in pass_blocks(x, grad, out):
        torch.sub(values, shift, out=result).sigmoid_().sub_(SLOPE).mul_(gradients)


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
        if torch.compiler.is_compiling():  # which fuses it, and its gradient
            softplus = torch.logaddexp(x - self.shift, x.new_zeros(()))
            return softplus - SLOPE * x - self.offset
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


class _FeedForward(torch.autograd.Function):
    """Linear, Swoosh, linear in blocks of rows; the hidden layer is kept before its activation."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight1: Tensor,
        bias1: Tensor,
        weight2: Tensor,
        bias2: Tensor,
        shift: float,
        offset: float,
    ) -> Tensor:
        """Return the output [N, D] for x [N, D]."""
        hidden = x.new_empty(len(x), len(weight1))
        ctx.save_for_backward(x, hidden, weight1, weight2)
        ctx.activation = shift, offset
        return _feed_forward(x, weight1, bias1, weight2, bias2, shift, offset, hidden)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        """Return the gradients with respect to x, the weights and the biases."""
        grad = grad.contiguous()
        x, hidden, weight1, weight2 = ctx.saved_tensors
        shift, offset = ctx.activation
        grad_x, grad_bias1 = torch.empty_like(x), weight1.new_zeros(len(weight1))
        grad_weight1, grad_weight2 = torch.zeros_like(weight1), torch.zeros_like(weight2)
        rows = _rows_of_block(weight1)
        active, grad_active = hidden.new_empty(2, min(rows, len(x)), len(weight1))
        for values, inputs, gradients, out in _row_blocks(rows, hidden, x, grad, grad_x):
            active, grad_active = active[: len(values)], grad_active[: len(values)]
            _swoosh_into(active, values, shift, offset)
            grad_weight2.addmm_(gradients.mT, active)
            torch.mm(gradients, weight2, out=grad_active)
            _swoosh_gradient_into(active, values, grad_active, shift)
            grad_weight1.addmm_(active.mT, inputs)
            grad_bias1 += active.sum(0)
            torch.mm(active, weight1, out=out)
        return grad_x, grad_weight1, grad_bias1, grad_weight2, grad.sum(0), None, None


def _rows_of_block(weight1: Tensor) -> int:
    return max(1, PRODUCT_BLOCK // len(weight1))


def _row_blocks(rows: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(x.split(rows) for x in tensors))


def _feed_forward(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    shift: float,
    offset: float,
    hidden: Tensor | None = None,
) -> Tensor:
    """Map x [N, D] to [N, D]; ``hidden`` [N, H] is filled with the hidden layer if it is there."""
    rows = _rows_of_block(weight1)
    out = x.new_empty(len(x), len(weight2))
    before, active = x.new_empty(2, min(rows, len(x)), len(weight1))
    for i, (inputs, outputs) in enumerate(_row_blocks(rows, x, out)):
        size = len(inputs)
        before = before[:size] if hidden is None else hidden[i * rows : i * rows + size]
        torch.addmm(bias1, inputs, weight1.mT, out=before)
        _swoosh_into(active[:size], before, shift, offset)
        torch.addmm(bias2, active[:size], weight2.mT, out=outputs)
    return out


def feed_forward(x: Tensor, first: nn.Module, second: nn.Module, activation: SwooshL) -> Tensor:
    """Apply two linear layers with an activation between them.

    Arguments
    ---------
    x : Tensor
        [..., D].
    first, second : nn.Module
        Linear layers, adapted ones too, or 1 x 1 convolutions, D -> H and H -> D'.
    activation : SwooshL
        Or SwooshR.

    Returns
    -------
    Tensor
        [..., D'].

    Example
    -------
    >>> first, second, x = nn.Linear(3, 8), nn.Linear(8, 3), torch.randn(2, 5, 3)
    >>> y = feed_forward(x, first, second, SwooshL())
    >>> torch.allclose(y, second(SwooshL()(first(x))), atol=1e-6)
    True
    """
    if use_blocks(x) and x.is_contiguous() and _is_plain(first) and _is_plain(second):
        weights = *_weights(first), *_weights(second)
        inputs = x.flatten(0, -2), *weights, activation.shift, activation.offset
        if use_blocks(*weights):
            if not torch.is_grad_enabled() or not any(t.requires_grad for t in (x, *weights)):
                return _feed_forward(*inputs).view(*x.shape[:-1], -1)
            if all(weight.requires_grad for weight in weights):
                return _FeedForward.apply(*inputs).view(*x.shape[:-1], -1)
    return pointwise(second, activation(pointwise(first, x)))


def _weights(layer: Any) -> tuple[Tensor, Tensor]:
    return layer.weight.flatten(1), layer.bias


def _is_plain(layer: nn.Module) -> bool:
    """Return whether a layer is its weights, and nobody looks at what goes through it."""
    hooks = layer._forward_hooks or layer._forward_pre_hooks
    return type(layer) in (nn.Linear, nn.Conv2d) and layer.bias is not None and not hooks


def pointwise(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a linear layer, or a 1 x 1 convolution, to x [..., D].

    Example
    -------
    >>> pointwise(nn.Conv2d(3, 4, 1), torch.zeros(2, 5, 3)).shape
    torch.Size([2, 5, 4])
    """
    if isinstance(layer, nn.Conv2d):
        return nn.functional.linear(x, layer.weight.flatten(1), layer.bias)
    return layer(x)
