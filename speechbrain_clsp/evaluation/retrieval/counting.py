"""Exact counts of the scores in a tile of the similarity matrix that are at least a threshold.

A score is the inner product in float64. Tiles are computed in float32, whose rounding error has a
bound; only scores closer to the threshold than this bound are computed again, in float64. So
counts do not depend on the size of tiles, the library or the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

FLOAT32_ROUNDING, FLOAT64_ROUNDING = 2.0**-24, 2.0**-53  # relative, of one operation
PAIR_CHUNK = 8192  # pairs whose scores are computed at a time
CROWDED = 64  # if more than 1 in 64 scores is in doubt, all are computed again


def rounding_bound(sizes: Tensor, longest: Tensor, terms: int) -> Tensor:
    """Bound how far inner products can be off, in units of one operation's rounding error.

    Arguments
    ---------
    sizes : Tensor
        [N] norms of rows.
    longest : Tensor
        Norm of the longest vector they are multiplied with.
    terms : int
        Length of the vectors.

    Returns
    -------
    Tensor
        [N]; multiply with ``FLOAT32_ROUNDING`` or ``FLOAT64_ROUNDING``.
    """
    return 2 * (terms + 4) * sizes * longest


def norms(rows: Tensor) -> Tensor:
    """Return the norms [N] of rows, in float64."""
    return torch.cat([part.double().norm(dim=1) for part in rows.split(PAIR_CHUNK)])


def pair_scores(queries: Tensor, gallery: Tensor, query: Tensor, item: Tensor) -> Tensor:
    """Return the float64 scores of pairs of rows.

    Arguments
    ---------
    queries, gallery : Tensor
        [Q, D] and [G, D].
    query, item : Tensor
        [P] int64, rows of each.

    Returns
    -------
    Tensor
        [P] float64.
    """
    parts = [
        (queries[one].double() * gallery[other].double()).sum(dim=1)
        for one, other in zip(query.split(PAIR_CHUNK), item.split(PAIR_CHUNK))
    ]
    return torch.cat(parts)


def count_at_least(
    tile: Tensor, thresholds: Tensor, error: Tensor, queries: Tensor, gallery: Tensor
) -> Tensor:
    """Count, for each query, the items whose float64 score is at least its threshold.

    Arguments
    ---------
    tile : Tensor
        [q, g] float32, ``queries @ gallery.T``.
    thresholds : Tensor
        [q] float64.
    error : Tensor
        [q] float64, how far the tile's scores can be off.
    queries, gallery : Tensor
        [q, D] and [g, D], of any float type.

    Returns
    -------
    Tensor
        [q] int64.

    Example
    -------
    >>> two, three = torch.eye(3)[:2], torch.eye(3)
    >>> thresholds, error = torch.tensor([0.0, 0.5]).double(), torch.full((2,), 1e-7).double()
    >>> count_at_least(two @ three.T, thresholds, error, two, three).tolist()
    [3, 1]
    """
    surely, possibly = _at_least(tile, thresholds + error), _at_least(tile, thresholds - error)
    counts = _count_rows(surely)
    doubtful = _count_rows(possibly) - counts
    some = doubtful.nonzero()[:, 0]
    if not len(some):
        return counts
    if doubtful.sum() > len(some) * tile.shape[1] // CROWDED:  # as in a collapsed model
        exact = queries[some].double() @ gallery.double().T
        counts[some] = (exact >= thresholds[some, None]).sum(dim=1)
        return counts
    row, column = (possibly[some] & ~surely[some]).nonzero().T
    row = some[row]
    settled = pair_scores(queries, gallery, row, column) >= thresholds[row]
    return counts.index_add_(0, row, settled.long())


@contextmanager
def true_float32() -> Iterator[None]:
    """Multiply in float32 proper: the bounds do not hold for TF32 or bfloat16 products."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)


# On a CPU numpy compares and counts several times as fast as torch does.
def _at_least(tile: Tensor, thresholds: Tensor) -> Tensor:
    """Return a mask [q, g] of the scores that are at least their row's threshold [q]."""
    thresholds = thresholds.to(tile.dtype)[:, None]
    if not tile.is_cpu:
        return tile >= thresholds
    return torch.from_numpy(tile.numpy() >= thresholds.numpy())


def _count_rows(mask: Tensor) -> Tensor:
    """Count along rows [q] of a mask, which may be a transposed view."""
    if not mask.is_cpu:
        return mask.sum(dim=1)
    if mask.is_contiguous():
        return torch.tensor([np.count_nonzero(row) for row in mask.numpy()], dtype=torch.long)
    flags = mask.T.numpy().view(np.uint8)
    counts = np.zeros(flags.shape[1], dtype=np.int64)
    for start in range(0, len(flags), 255):  # more ones than that overflow the byte
        counts += np.add.reduce(flags[start : start + 255], axis=0, dtype=np.uint8)
    return torch.from_numpy(counts)
