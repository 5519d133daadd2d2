"""Masks over padded frames, and the masked mean over time."""

from __future__ import annotations

import torch
from torch import Tensor

from speechbrain_clsp.lobes.features import full_precision


def padding_mask(counts: Tensor, size: int) -> Tensor:
    """Mark padding.

    Arguments
    ---------
    counts : Tensor
        [B] int64, valid frames per utterance.
    size : int
        Padded number of frames F.

    Returns
    -------
    Tensor
        [B, F] bool, True on padding.

    Example
    -------
    >>> padding_mask(torch.tensor([1, 3]), 3).tolist()
    [[False, True, True], [False, False, False]]
    """
    return torch.arange(size, device=counts.device) >= counts[:, None]


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Average over time, padding left out.

    Arguments
    ---------
    x : Tensor
        [B, F, D].
    mask : Tensor
        [B, F] bool, True on padding.

    Returns
    -------
    Tensor
        [B, D] float32.

    Example
    -------
    >>> x = torch.tensor([[[1.0], [3.0], [99.0]]])
    >>> masked_mean(x, torch.tensor([[False, False, True]])).tolist()
    [[2.0]]
    """
    x = full_precision(x)
    weights = (~mask).to(x.dtype)
    total = torch.einsum("bfd,bf->bd", x, weights)
    return total / weights.sum(1, keepdim=True)
