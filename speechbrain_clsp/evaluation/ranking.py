"""Exact ranks from tiles of the similarity matrix, whose size memory does not have to hold.

A score is the inner product in float64. Tiles are computed in float32, whose rounding error has a
bound; only scores that lie closer than this bound to the one they are compared with are computed
again, in float64. So ranks do not depend on the size of tiles, the library or the device.

Authors
 * The speechbrain-clsp authors 2026
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

CHUNK = 1024
GALLERY_CHUNK = 8192
EXACT_CHUNK = 65536  # scores that are computed again at a time
FLOAT32_ERROR, FLOAT64_ERROR = 2.0**-23, 2.0**-52  # twice the rounding error of one operation


@dataclass(frozen=True)
class Ranking:
    """Where the right items stand, for every pair of a query and one of its items.

    Arguments
    ---------
    query, item : Tensor
        [P] int64, the pair; by query, then by item.
    rank : Tensor
        [P] int64, 1 for the first place.
    order : Tensor
        [P] int64, the item's place among the query's own items, from 1.
    total : Tensor
        [Q] int64, how many items a query has.
    """

    query: Tensor
    item: Tensor
    rank: Tensor
    order: Tensor
    total: Tensor

    def first(self) -> Tensor:
        """Return [Q] int64, the rank of each query's best item."""
        best = torch.zeros(len(self.total), dtype=torch.long, device=self.rank.device)
        leads = self.order == 1
        best[self.query[leads]] = self.rank[leads]
        return best

    def average_precision(self, depth: int) -> np.ndarray:
        """Return [Q] float64: mean of precision at the own items among the first ``depth``.

        A query with more own items than ``depth`` cannot find them all: it is divided by ``depth``.
        """
        precision = self.order.double() / self.rank * (self.rank <= depth)
        sums = torch.zeros(len(self.total), dtype=torch.double, device=self.rank.device)
        sums.index_add_(0, self.query, precision)
        return (sums / self.total.clamp(max=depth)).cpu().numpy()


def rank_pairs(queries: Tensor, gallery: Tensor, pairs: Tensor, chunk: int = CHUNK) -> Ranking:
    """Rank every query's own items among all items.

    Arguments
    ---------
    queries : Tensor
        [Q, D] of any float type; float16 halves what a million rows take.
    gallery : Tensor
        [G, D].
    pairs : Tensor
        [P, 2] int64: query, and an item that belongs to it. Every query is in at least one.
    chunk : int
        Queries compared at a time.

    Returns
    -------
    Ranking
        A wrong item with the same score as the right one stands above it. Of a query's own
        items only the wrong ones above, and the own ones before it, count.

    Raises
    ------
    ValueError
        If shapes do not fit, a value is not finite, or a query has no item.

    Example
    -------
    >>> pairs = torch.tensor([[0, 0], [0, 1], [1, 2]])
    >>> rank_pairs(torch.eye(3)[:2], torch.eye(3)[[0, 1, 1]], pairs).rank.tolist()
    [1, 3, 2]
    """
    _check(queries, gallery, pairs)
    # By query, each pair once.
    pairs = pairs.to(queries.device)
    keys = torch.unique(pairs[:, 0] * len(gallery) + pairs[:, 1])
    query, item = keys // len(gallery), keys % len(gallery)
    total = torch.bincount(query, minlength=len(queries))
    if (total == 0).any():
        raise ValueError(
            f"Query {int((total == 0).nonzero()[0, 0])} has no item that belongs to it"
        )
    longest, ends = _longest(gallery), total.cumsum(0)
    ranks, orders = [], []
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # the bound is that of true float32
    try:
        for rows in _slices(len(queries), chunk):
            part = slice(int(ends[rows.start] - total[rows.start]), int(ends[rows.stop - 1]))
            ours = queries[rows]
            own, place = _own_scores(ours, gallery, query[part] - rows.start, item[part])
            error = ours.double().norm(dim=1) * longest * (queries.shape[1] + 4)
            bars = own - (error * FLOAT64_ERROR)[:, None]  # what float64 cannot tell is a tie
            above = _count(ours, gallery, bars, error * FLOAT32_ERROR)
            order, own_above = _places(own, bars)
            ranks.append((above - own_above + order)[place])
            orders.append(order[place])
    finally:
        torch.set_float32_matmul_precision(precision)
    return Ranking(query, item, torch.cat(ranks), torch.cat(orders), total)


def _own_scores(
    queries: Tensor, gallery: Tensor, query: Tensor, item: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return scores of own items [q, K], -inf where a query has fewer, and the pairs' places."""
    total = torch.bincount(query, minlength=len(queries))
    column = torch.arange(len(query), device=query.device) - (total.cumsum(0) - total)[query]
    own = queries.new_full((len(queries), int(total.max())), -torch.inf, dtype=torch.double)
    own[query, column] = _pair_scores(queries, gallery, query, item)
    return own, (query, column)


def _count(queries: Tensor, gallery: Tensor, bars: Tensor, error: Tensor) -> Tensor:
    """Count, for bars [q, K], the items whose float64 score reaches them."""
    counts = torch.zeros(bars.shape, dtype=torch.long, device=queries.device)
    ours = queries.float()
    asked = [column.isfinite().nonzero()[:, 0] for column in bars.T]
    for columns in _slices(len(gallery), GALLERY_CHUNK):
        block = gallery[columns]
        tile = ours @ block.float().T
        for k, some in enumerate(asked):  # few queries have many own items
            whole = len(some) == len(tile)
            counts[some, k] += _count_tile(
                tile if whole else tile[some], bars[some, k], error[some], queries[some], block
            )
    return counts


def _count_tile(
    tile: Tensor, bars: Tensor, error: Tensor, queries: Tensor, gallery: Tensor
) -> Tensor:
    """Count one tile's scores [q, g] from bars [q] on; those in doubt are computed again."""
    high, low = (bars + error).float()[:, None], (bars - error).float()[:, None]
    sure = _count_rows(tile, high)
    doubtful = (_count_rows(tile, low) != sure).nonzero()[:, 0]
    if not len(doubtful):
        return sure
    scores = tile[doubtful]
    row, column = ((scores >= low[doubtful]) & (scores < high[doubtful])).nonzero().T
    if len(row) > scores.numel() // 64:  # as in a collapsed model: all at once is faster
        exact = queries[doubtful].double() @ gallery.double().T
        sure[doubtful] = (exact >= bars[doubtful, None]).sum(dim=1)
        return sure
    row = doubtful[row]
    reached = _pair_scores(queries, gallery, row, column) >= bars[row]
    return sure.index_add_(0, row, reached.long())


def _count_rows(tile: Tensor, bar: Tensor) -> Tensor:
    """Count along rows; numpy does it several times as fast as torch on a CPU."""
    if tile.device.type != "cpu":
        return (tile >= bar).sum(dim=1)
    return torch.from_numpy(np.count_nonzero(tile.numpy() >= bar.numpy(), axis=1))


def _pair_scores(queries: Tensor, gallery: Tensor, query: Tensor, item: Tensor) -> Tensor:
    """Return the float64 scores [P] of pairs of rows."""
    parts = [
        (queries[query[part]].double() * gallery[item[part]].double()).sum(dim=1)
        for part in _slices(len(query), max(1, EXACT_CHUNK // 8))
    ]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.double, device=queries.device)


def _places(own: Tensor, bars: Tensor) -> tuple[Tensor, Tensor]:
    """Return each own item's place among [q, K] own ones, and how many of them reach its bar."""
    descending = own.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(1, own.shape[1] + 1, device=own.device).expand_as(own).contiguous()
    order = torch.empty_like(descending).scatter_(1, descending, places)
    reached = [(own >= bars[:, [k]]).sum(dim=1) for k in range(own.shape[1])]
    return order, torch.stack(reached, dim=1)


def _longest(rows: Tensor) -> float:
    return max(float(rows[part].double().norm(dim=1).max()) for part in _slices(len(rows), CHUNK))


def _slices(size: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, size)) for start in range(0, size, step))


def _check(queries: Tensor, gallery: Tensor, pairs: Tensor) -> None:
    if queries.dim() != 2 or gallery.dim() != 2 or queries.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"queries {list(queries.shape)} and gallery {list(gallery.shape)} must both be [N, D]"
        )
    if not len(queries) or not len(gallery):
        raise ValueError("There is nothing to rank: queries or gallery are empty")
    for rows in (queries, gallery):
        if not all(rows[part].isfinite().all() for part in _slices(len(rows), CHUNK)):
            raise ValueError("Embeddings hold NaN or infinite values: ranks would mean nothing")
    if pairs.dim() != 2 or pairs.shape[1:] != (2,):
        raise ValueError(f"pairs {list(pairs.shape)} must be [P, 2]: query, item")
    sizes = torch.tensor([len(queries), len(gallery)])
    if not len(pairs) or int(pairs.min()) < 0 or (pairs.amax(dim=0).cpu() >= sizes).any():
        raise ValueError("pairs name rows that are not there")
