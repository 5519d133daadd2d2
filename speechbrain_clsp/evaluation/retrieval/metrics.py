"""Retrieval between speech and captions: ranks, recall and mean average precision.

Clip i and caption i belong together. A wrong item that scores exactly as high as the right one
counts as ranked above it, so that a constant model ranks last rather than first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from speechbrain_clsp.evaluation.retrieval.ranking import rank_both, rank_pairs

RECALLS = (1, 5, 10)
PRECISION_DEPTH = 10
DIRECTIONS = ("speech_to_text", "text_to_speech")


def retrieval_ranks(queries: Tensor, gallery: Tensor, chunk: int = 1024) -> Tensor:
    """Rank each query's own item among all items.

    Arguments
    ---------
    queries, gallery : Tensor
        [N, D] each; row i of one belongs to row i of the other.
    chunk : int
        Queries compared at a time; ranks do not depend on it, see
        :mod:`speechbrain_clsp.evaluation.retrieval.ranking`.

    Returns
    -------
    Tensor
        [N] int64, 1 for the first place.

    Raises
    ------
    ValueError
        If the shapes differ, or a value is not finite.

    Example
    -------
    >>> retrieval_ranks(torch.eye(3), torch.eye(3)[[0, 2, 1]]).tolist()
    [1, 3, 3]
    """
    return rank_pairs(queries, gallery, _own(queries, gallery), chunk).rank


def _own(queries: Tensor, gallery: Tensor) -> Tensor:
    """Return pairs [N, 2] of rows with the same number."""
    if queries.shape != gallery.shape or queries.dim() != 2:
        raise ValueError(
            f"queries {list(queries.shape)} and gallery {list(gallery.shape)} must both be [N, D]"
        )
    own = torch.arange(len(queries))
    return torch.stack([own, own], dim=1)


def rank_values(ranks: Tensor, recalls: Sequence[int] = RECALLS) -> dict[str, np.ndarray]:
    """Turn ranks into the per-query values whose means are the figures.

    Arguments
    ---------
    ranks : Tensor
        [N] int64.
    recalls : sequence of int
        Depths k of R@k.

    Returns
    -------
    dict
        ``R@k`` and ``mAP@10``, each [N] float64 in [0, 1].

    Example
    -------
    >>> rank_values(torch.tensor([1, 4]))["mAP@10"].tolist()
    [1.0, 0.25]
    """
    ranks = ranks.cpu().numpy()
    values = {f"R@{k}": (ranks <= k).astype(float) for k in recalls}
    values[f"mAP@{PRECISION_DEPTH}"] = np.where(ranks <= PRECISION_DEPTH, 1.0 / ranks, 0.0)
    return values


def retrieval_values(speech: Tensor, text: Tensor) -> dict[str, np.ndarray]:
    """Compute per-query values in both directions; see :func:`rank_values`.

    Arguments
    ---------
    speech, text : Tensor
        [N, D] each, of unit norm.

    Returns
    -------
    dict
        Keys such as ``speech_to_text_R@1``, values [N].
    """
    own = _own(speech, text)
    return {
        f"{direction}_{name}": values
        for direction, ranking in zip(DIRECTIONS, rank_both(speech, text, own))
        for name, values in rank_values(ranking.rank).items()
    }


def retrieval_metrics(speech: Tensor, text: Tensor) -> dict[str, float]:
    """Compute R@1, R@5, R@10 and mAP@10 in both directions.

    Arguments
    ---------
    speech, text : Tensor
        [N, D] each, of unit norm; row i of one belongs to row i of the other.

    Returns
    -------
    dict
        Keys such as ``speech_to_text_R@1``; values in [0, 1].

    Example
    -------
    >>> retrieval_metrics(torch.eye(4), torch.eye(4))["text_to_speech_R@1"]
    1.0
    """
    return {name: float(values.mean()) for name, values in retrieval_values(speech, text).items()}


def retrieval_chance(size: int, recalls: Sequence[int] = RECALLS) -> dict[str, float]:
    """Return what a random order gives on average.

    Arguments
    ---------
    size : int
        Number N of items.
    recalls : sequence of int
        Depths k of R@k.

    Returns
    -------
    dict
        ``R@k`` and ``mAP@10``.

    Example
    -------
    >>> retrieval_chance(100)["R@5"]
    0.05
    """
    chance = {f"R@{k}": min(k, size) / size for k in recalls}
    depth = min(PRECISION_DEPTH, size)
    chance[f"mAP@{PRECISION_DEPTH}"] = sum(1 / rank for rank in range(1, depth + 1)) / size
    return chance
