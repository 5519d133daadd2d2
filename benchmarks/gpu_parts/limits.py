"""The two rates that limit any computation on the device, and how much work a tower is."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gpu_parts.setting import Setting, float32_products
from speechbrain_clsp.lobes.zipformer.attention import RelativeAttentionWeights

DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@cache
def copy_rate(setting: Setting) -> float:
    """Return bytes read plus bytes written per second by a large copy on the device."""
    size = setting.pick(2**32, 2**24)
    source = torch.rand(size // 4, device=setting.device)
    target = torch.empty_like(source)
    return 2 * size / setting.measure(lambda: target.copy_(source), repeats=10).seconds


@cache
def product_rate(setting: Setting, precision: str) -> float:
    """Return the operations per second of a large matrix product of random numbers."""
    size = setting.pick(8192, 256)
    one, other = torch.randn(2, size, size, device=setting.device).to(DTYPES[precision])
    with float32_products(tf32=precision == "tf32"):
        timing = setting.measure(lambda: one @ other, repeats=10, warm_up=3)
    return 2 * size**3 / timing.seconds


def operations(work: Callable[[], object]) -> int:
    """Count the floating-point operations of matrix products and convolutions."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def least_bytes(module: nn.Module, work: Callable[[], object], itemsize: int) -> int:
    """Count the bytes that a forward pass must at least move, layer by layer.

    Every weight once, every linear layer's and convolution's input and output once, and each
    layer's attention weights once to write and four times to read (by both self-attentions, by the
    nonlinear attention for one head, and by the softmax). Element-wise work is taken to be fused.
    """
    count = 0

    def note(layer: nn.Module, inputs: tuple, output: Any) -> None:
        nonlocal count
        if isinstance(layer, RelativeAttentionWeights):
            count += 5 * output[0].numel()
        else:
            count += inputs[0].numel() + output.numel()

    kinds = (nn.Linear, nn.Conv2d, RelativeAttentionWeights)
    hooks = [m.register_forward_hook(note) for m in module.modules() if isinstance(m, kinds)]
    try:
        work()
    finally:
        for hook in hooks:
            hook.remove()
    return itemsize * (count + sum(p.numel() for p in module.parameters()))
