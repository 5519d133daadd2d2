"""Exact ranks from tiles of the similarity matrix, whose size memory does not have to hold.

A score is the inner product in float64. Most are computed in shorter types and still counted
exactly, see :mod:`speechbrain_clsp.evaluation.retrieval.counting`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from speechbrain_clsp.evaluation.retrieval.counting import (
    FLOAT32_ROUNDING,
    FLOAT64_ROUNDING,
    count_reaching,
    norms,
    pair_scores,
    rounding_bound,
    true_float32,
)

CHUNK = 1024  # queries in a tile
ACROSS = 8192  # items in a tile
LONG = 2000  # tiles from which a progress bar is shown


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
    side = _Side(queries, gallery, pairs)
    _walk(queries, gallery, chunk, rows=side)
    return side.ranking()


def rank_both(
    queries: Tensor, gallery: Tensor, pairs: Tensor, chunk: int = CHUNK
) -> tuple[Ranking, Ranking]:
    """Rank queries' items and items' queries from one pass over the similarity matrix.

    Arguments
    ---------
    queries, gallery, pairs, chunk
        As in :func:`rank_pairs`; every item must be in a pair, too.

    Returns
    -------
    tuple of Ranking
        Of the queries' own items, and of the items' own queries.

    Example
    -------
    >>> pairs = torch.tensor([[0, 0], [0, 1], [1, 2]])
    >>> both = rank_both(torch.eye(3)[:2], torch.eye(3)[[0, 1, 1]], pairs)
    >>> [one.rank.tolist() for one in both]
    [[1, 3, 2], [1, 2, 1]]
    """
    _check(queries, gallery, pairs)
    forth, back = _Side(queries, gallery, pairs), _Side(gallery, queries, pairs.flip(1))
    _walk(queries, gallery, chunk, rows=forth, columns=back)
    return forth.ranking(), back.ranking()


class _Side:
    """One side of the matrix: its vectors, and the scores of each one's own items as bars."""

    def __init__(self, vectors: Tensor, others: Tensor, pairs: Tensor) -> None:
        # By query, each pair once.
        pairs = pairs.to(vectors.device)
        keys = torch.unique(pairs[:, 0] * len(others) + pairs[:, 1])
        self.vectors, self.query, self.item = vectors, keys // len(others), keys % len(others)
        self.total = torch.bincount(self.query, minlength=len(vectors))
        if (self.total == 0).any():
            number = int((self.total == 0).nonzero()[0, 0])
            raise ValueError(f"Query {number} has no item that belongs to it")
        self.first = self.total.cumsum(0) - self.total
        self.scores = pair_scores(vectors, others, self.query, self.item)
        bound = rounding_bound(norms(vectors), norms(others).max(), vectors.shape[1])
        self.error = bound * FLOAT32_ROUNDING
        # What float64 cannot tell is a tie.
        self.bars = self.scores - (bound * FLOAT64_ROUNDING)[self.query]
        self.reached = torch.zeros_like(self.query)

    def count(self, tile: Tensor, rows: slice, others: Tensor) -> None:
        """Count what reaches the bars of some rows in a tile [r, c] of scores."""
        total, first = self.total[rows], self.first[rows]
        vectors, error = self.vectors[rows], self.error[rows]
        for k in range(int(total.max())):
            some = (total > k).nonzero()[:, 0]  # few have many own items
            ours = slice(None) if len(some) == len(total) else some
            pair = first[some] + k
            self.reached[pair] += count_reaching(
                tile[ours], self.bars[pair], error[ours], vectors[ours], others
            )

    def ranking(self) -> Ranking:
        """Turn counts into ranks: own items that stand above do not count as wrong ones."""
        ranks, orders = [], []
        for rows in _slices(len(self.vectors), CHUNK):
            total = self.total[rows]
            pairs = slice(int(self.first[rows.start]), int(self.first[rows.stop - 1] + total[-1]))
            place = torch.arange(int(total.max()), device=total.device) < total[:, None]
            own, bars = (
                torch.full(
                    place.shape, -torch.inf, dtype=torch.double, device=total.device
                ).masked_scatter_(place, values[pairs])
                for values in (self.scores, self.bars)
            )
            order, own_above = _places(own, bars)
            ranks.append(self.reached[pairs] + (order - own_above)[place])
            orders.append(order[place])
        return Ranking(self.query, self.item, torch.cat(ranks), torch.cat(orders), self.total)


def _walk(
    queries: Tensor, gallery: Tensor, chunk: int, rows: _Side, columns: _Side | None = None
) -> None:
    """Let the sides count in every tile of the similarity matrix."""
    tiles = [(r, c) for r in _slices(len(queries), chunk) for c in _slices(len(gallery), ACROSS)]
    with true_float32():
        for down, across in tqdm(tiles, desc="Ranking", unit="tile", disable=len(tiles) < LONG):
            tile = queries[down].float() @ gallery[across].float().T
            rows.count(tile, down, gallery[across])
            if columns:
                columns.count(tile.T, across, queries[down])


def _places(own: Tensor, bars: Tensor) -> tuple[Tensor, Tensor]:
    """Return each own item's place among [q, K] own ones, and how many of them reach its bar."""
    descending = own.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(1, own.shape[1] + 1, device=own.device).expand_as(own).contiguous()
    order = torch.empty_like(descending).scatter_(1, descending, places)
    reached = [(own >= bars[:, k, None]).sum(dim=1) for k in range(own.shape[1])]
    return order, torch.stack(reached, dim=1)


def _slices(size: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def _check(queries: Tensor, gallery: Tensor, pairs: Tensor) -> None:
    if queries.dim() != 2 or gallery.dim() != 2 or queries.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"queries {list(queries.shape)} and gallery {list(gallery.shape)} must both be [N, D]"
        )
    if not len(queries) or not len(gallery):
        raise ValueError("There is nothing to rank: queries or gallery are empty")
    for rows in (queries, gallery):
        if not all(part.isfinite().all() for part in rows.split(CHUNK)):
            raise ValueError("Embeddings hold NaN or infinite values: ranks would mean nothing")
    if pairs.dim() != 2 or pairs.shape[1:] != (2,):
        raise ValueError(f"pairs {list(pairs.shape)} must be [P, 2]: query, item")
    sizes = torch.tensor([len(queries), len(gallery)])
    if not len(pairs) or int(pairs.min()) < 0 or (pairs.amax(dim=0).cpu() >= sizes).any():
        raise ValueError("pairs name rows that are not there")
