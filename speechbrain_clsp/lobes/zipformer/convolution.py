"""Depthwise convolutions of frames that lie channels last in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from speechbrain_clsp.lobes.zipformer.blocks import use_blocks

PRODUCT_BLOCK = 2**18  # numbers in a block of products


def depthwise_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve each channel with its own kernel, zero-padded to the same size.

    Arguments
    ---------
    x : Tensor
        [B, F, N, C].
    weight : Tensor
        [C, 1, K, L] with odd K and L.
    bias : Tensor, optional
        [C].

    Returns
    -------
    Tensor
        [B, F, N, C].

    Example
    -------
    >>> depthwise_conv(torch.ones(1, 1, 3, 2), torch.ones(2, 1, 1, 3), None)[0, 0, :, 0].tolist()
    [2.0, 3.0, 2.0]
    """
    needs_grad = torch.is_grad_enabled() and weight.requires_grad
    if needs_grad and bias is not None and use_blocks(x, weight, bias):
        return _DepthwiseConv.apply(x, weight, bias)
    return _convolve(x, weight, bias)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    padding = [size // 2 for size in weight.shape[2:]]
    image = x.permute(0, 3, 1, 2)  # in channels-last layout, as it lies in memory
    image = nn.functional.conv2d(image, weight, bias, padding=padding, groups=len(weight))
    return image.permute(0, 2, 3, 1)


class _DepthwiseConv(torch.autograd.Function):
    """Its weights' gradient is several times faster than torch's, which tries every layout."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return the convolution of x [B, F, N, C], of its shape."""
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        """Return the gradients with respect to x, the weight and the bias."""
        x, weight = ctx.saved_tensors
        grad_x = None
        if ctx.needs_input_grad[0]:  # cross-correlation with the reversed kernel
            grad_x = _convolve(grad, weight.flip(2, 3), None)
        return grad_x, _weight_gradient(x, grad, weight), grad.sum((0, 1, 2))


def _weight_gradient(x: Tensor, grad: Tensor, weight: Tensor) -> Tensor:
    """Return the sum over x's windows times the gradient at their center, [C, 1, K, L]."""
    height, width = weight.shape[2:]
    padding = (0, 0, width // 2, width // 2, height // 2, height // 2)
    windows = nn.functional.pad(x, padding).unfold(1, height, 1).unfold(2, width, 1)
    windows = windows.permute(0, 1, 4, 5, 2, 3)  # [B, F, K, L, N, C], without a copy
    size = min(x.shape[2], max(1, PRODUCT_BLOCK // weight.numel()))
    total = grad.new_zeros(height, width, size, len(weight))
    # All positions of the kernel at once, so that products are added as vectors of channels.
    for frames, gradients in zip(windows, grad):
        for row, row_gradients in zip(frames.unbind(0), gradients.unbind(0)):
            for part, part_gradients in zip(row.split(size, dim=2), row_gradients.split(size)):
                total[:, :, : len(part_gradients)].addcmul_(part, part_gradients)
    return total.sum(2).permute(2, 0, 1).unsqueeze(1)
