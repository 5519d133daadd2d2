"""Blocks of tensors that stay in a CPU's caches from one pass to the next.

There memory is the limit of activations, attention weights and convolutions, not arithmetic. What
is traced, compiled, in low precision or on a GPU is computed by whole tensors: other kernels are
there.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

PASS_BLOCK = 2**16  # numbers in a block of simple passes


def use_blocks(*tensors: Tensor) -> bool:
    """Return whether these tensors are computed in blocks: eager float32 or float64 on a CPU.

    Example
    -------
    >>> use_blocks(torch.zeros(2, 3)), use_blocks(torch.zeros(2, 3).bfloat16())
    (True, False)
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return not torch.is_autocast_enabled("cpu") and all(
        x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and x.numel() > 0
        for x in tensors
    )


def pass_blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield the contiguous tensors, all of one size, block by block.

    Example
    -------
    >>> [tuple(map(len, blocks)) for blocks in pass_blocks(torch.zeros(2**17), torch.ones(2**17))]
    [(65536, 65536), (65536, 65536)]
    """
    return zip(*(x.view(-1).split(PASS_BLOCK) for x in tensors))
