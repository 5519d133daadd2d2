"""Embeddings of all processes, with gradients.

Authors
 * The speechbrain-clsp authors 2026
"""

from __future__ import annotations

import torch
import torch.distributed
from torch import Tensor
from torch.distributed.nn.functional import all_gather


def world() -> tuple[int, int]:
    """Return (rank, number of processes); (0, 1) without distributed training.

    Example
    -------
    >>> world()
    (0, 1)
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def gather_embeddings(local: Tensor) -> Tensor:
    """Join the embeddings of all processes along the batch, so that gradients flow to their owners.

    Each process's gradient is the sum of what all processes' losses contribute. DDP then averages
    over processes, which gives the gradient of the mean of their losses, exactly.

    Arguments
    ---------
    local : Tensor
        [..., B, D]; every process must give the same shape.

    Returns
    -------
    Tensor
        [..., W * B, D] in the order of ranks; ``local`` itself in a single process.

    Example
    -------
    >>> gather_embeddings(torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """
    if world()[1] == 1:
        return local
    return torch.cat(all_gather(local.contiguous()), dim=-2)
