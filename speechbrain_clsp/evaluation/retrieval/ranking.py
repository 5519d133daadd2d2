"""Exact ranks from tiles of the similarity matrix, whose size memory does not have to hold.

A score is the inner product in float64. Tiles are computed in float32, whose rounding error has a
bound; only scores closer to a threshold than this bound are computed again, in float64. So ranks
do not depend on the size of tiles, the library or the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

DIRECTIONS = ("speech_to_text", "text_to_speech")
CHUNK = 1024  # queries in a tile; ranks do not depend on it
ACROSS = 8192  # items in a tile
PAIR_CHUNK = 8192  # pairs whose scores are computed at a time
CROWDED = 64  # if more than 1 in 64 scores is in doubt, all are computed again
LONG = 2000  # tiles from which a progress bar is shown
FLOAT32_ROUNDING, FLOAT64_ROUNDING = 2.0**-24, 2.0**-53  # relative, of one operation


@dataclass(frozen=True)
class Ranking:
    """The ranks of the relevant items of every query, as P pairs by query, then by item.

    Arguments
    ---------
    query, item : Tensor
        [P] int64, a query and an item that is relevant to it.
    rank : Tensor
        [P] int64, 1 for the first place.
    order : Tensor
        [P] int64, the item's place among the query's relevant items, from 1.
    total : Tensor
        [Q] int64, how many relevant items a query has.
    """

    query: Tensor
    item: Tensor
    rank: Tensor
    order: Tensor
    total: Tensor

    def first(self) -> Tensor:
        """Return [Q] int64, the rank of each query's first relevant item."""
        best = torch.zeros(len(self.total), dtype=torch.long, device=self.rank.device)
        leads = self.order == 1
        best[self.query[leads]] = self.rank[leads]
        return best

    def average_precision(self, depth: int) -> np.ndarray:
        """Return [Q] float64: mean precision at the relevant items among the first ``depth``.

        The mean is over the query's relevant items, but over at most ``depth`` of them.
        """
        precision = self.order.double() / self.rank * (self.rank <= depth)
        sums = torch.zeros(len(self.total), dtype=torch.double, device=self.rank.device)
        sums.index_add_(0, self.query, precision)
        return (sums / self.total.clamp(max=depth)).cpu().numpy()


def rank_pairs(queries: Tensor, gallery: Tensor, pairs: Tensor | None = None) -> Ranking:
    """Rank every query's relevant items among all items.

    Arguments
    ---------
    queries : Tensor
        [Q, D] of any float type; float16 halves what a million rows take.
    gallery : Tensor
        [G, D].
    pairs : Tensor, optional
        [P, 2] int64: query, and an item that is relevant to it. Every query is in at least one.
        Default: item i is the one for query i.

    Returns
    -------
    Ranking
        A wrong item with the same score as the relevant one stands above it, so that a constant
        model ranks last rather than first.

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
    pairs = _checked_pairs(queries, gallery, pairs)
    side = _Side(queries, gallery, pairs)
    _count_tiles(queries, gallery, rows=side)
    return side.ranking()


def rank_directions(
    speech: Tensor, text: Tensor, pairs: Tensor | None = None
) -> dict[str, Ranking]:
    """Rank captions for clips and clips for captions, from one pass over the similarity matrix.

    Arguments
    ---------
    speech, text, pairs
        Queries and items of :func:`rank_pairs`; every caption must be in a pair, too.

    Returns
    -------
    dict
        A Ranking for ``speech_to_text``, then one for ``text_to_speech``.

    Example
    -------
    >>> pairs = torch.tensor([[0, 0], [0, 1], [1, 2]])
    >>> both = rank_directions(torch.eye(3)[:2], torch.eye(3)[[0, 1, 1]], pairs)
    >>> {direction: ranking.rank.tolist() for direction, ranking in both.items()}
    {'speech_to_text': [1, 3, 2], 'text_to_speech': [1, 2, 1]}
    """
    pairs = _checked_pairs(speech, text, pairs)
    forth, back = _Side(speech, text, pairs), _Side(text, speech, pairs.flip(1))
    _count_tiles(speech, text, rows=forth, columns=back)
    return dict(zip(DIRECTIONS, (forth.ranking(), back.ranking())))


class _Side:
    """The rows of the matrix, or its columns; the scores of relevant items are the thresholds."""

    def __init__(self, vectors: Tensor, others: Tensor, pairs: Tensor) -> None:
        # By query, each pair once.
        pairs = pairs.to(vectors.device)
        keys = torch.unique(pairs[:, 0] * len(others) + pairs[:, 1])
        self.vectors, self.query, self.item = vectors, keys // len(others), keys % len(others)
        self.total = torch.bincount(self.query, minlength=len(vectors))
        if (self.total == 0).any():
            number = int((self.total == 0).nonzero()[0, 0])
            raise ValueError(f"Query {number} has no relevant item")
        self.first = self.total.cumsum(0) - self.total
        self.scores = _pair_scores(vectors, others, self.query, self.item)
        # How far inner products can be off, in units of one operation's rounding error.
        bound = 2 * (vectors.shape[1] + 4) * _norms(vectors) * _norms(others).max()
        self.error = bound * FLOAT32_ROUNDING
        # What float64 cannot tell apart is a tie.
        self.thresholds = self.scores - (bound * FLOAT64_ROUNDING)[self.query]
        self.counts = torch.zeros_like(self.query)

    def count(self, tile: Tensor, rows: slice, others: Tensor) -> None:
        """Count the scores in a tile [r, c] that are at least the thresholds of its rows."""
        total, first = self.total[rows], self.first[rows]
        vectors, error = self.vectors[rows], self.error[rows]
        for k in range(int(total.max())):
            some = (total > k).nonzero()[:, 0]  # few have many relevant items
            ours = slice(None) if len(some) == len(total) else some
            pair = first[some] + k
            self.counts[pair] += _count_at_least(
                tile[ours], self.thresholds[pair], error[ours], vectors[ours], others
            )

    def ranking(self) -> Ranking:
        """Turn counts into ranks: relevant items above do not count as wrong ones."""
        ranks, orders = [], []
        for rows in _slices(len(self.vectors), CHUNK):
            total = self.total[rows]
            pairs = slice(int(self.first[rows.start]), int(self.first[rows.stop - 1] + total[-1]))
            place = torch.arange(int(total.max()), device=total.device) < total[:, None]
            relevant, thresholds = (
                torch.full(
                    place.shape, -torch.inf, dtype=torch.double, device=total.device
                ).masked_scatter_(place, values[pairs])
                for values in (self.scores, self.thresholds)
            )
            order, relevant_above = _places(relevant, thresholds)
            ranks.append(self.counts[pairs] + (order - relevant_above)[place])
            orders.append(order[place])
        return Ranking(self.query, self.item, torch.cat(ranks), torch.cat(orders), self.total)


def _count_tiles(
    queries: Tensor, gallery: Tensor, rows: _Side, columns: _Side | None = None
) -> None:
    """Count in every tile of the similarity matrix, along rows and maybe along columns."""
    tiles = [(r, c) for r in _slices(len(queries), CHUNK) for c in _slices(len(gallery), ACROSS)]
    with _true_float32():
        for down, across in tqdm(tiles, desc="Ranking", unit="tile", disable=len(tiles) < LONG):
            tile = queries[down].float() @ gallery[across].float().T
            rows.count(tile, down, gallery[across])
            if columns:
                columns.count(tile.T, across, queries[down])


def _norms(rows: Tensor) -> Tensor:
    """Return the norms [N] of rows, in float64."""
    return torch.cat([part.double().norm(dim=1) for part in rows.split(PAIR_CHUNK)])


def _pair_scores(queries: Tensor, gallery: Tensor, query: Tensor, item: Tensor) -> Tensor:
    """Return the float64 scores [P] of pairs of rows, given by [P] indices of each."""
    parts = [
        (queries[one].double() * gallery[other].double()).sum(dim=1)
        for one, other in zip(query.split(PAIR_CHUNK), item.split(PAIR_CHUNK))
    ]
    return torch.cat(parts)


def _count_at_least(
    tile: Tensor, thresholds: Tensor, error: Tensor, queries: Tensor, gallery: Tensor
) -> Tensor:
    """Count, for each of q queries, the items whose float64 score is at least its threshold [q].

    ``tile`` [q, g] is ``queries @ gallery.T`` in float32, ``error`` [q] how far it can be off.
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
    settled = _pair_scores(queries, gallery, row, column) >= thresholds[row]
    return counts.index_add_(0, row, settled.long())


@contextmanager
def _true_float32() -> Iterator[None]:
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
    """Count along rows [q] of a mask."""
    if not mask.is_cpu:
        return mask.sum(dim=1)
    return torch.from_numpy(mask.numpy().sum(axis=1, dtype=np.int32)).long()


def _places(scores: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """Return places of [q, K] relevant items, and how many of them reach each one's threshold."""
    descending = scores.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(1, scores.shape[1] + 1, device=scores.device)
    places = places.expand_as(scores).contiguous()
    order = torch.empty_like(descending).scatter_(1, descending, places)
    above = [(scores >= thresholds[:, k, None]).sum(dim=1) for k in range(scores.shape[1])]
    return order, torch.stack(above, dim=1)


def _slices(size: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def _checked_pairs(queries: Tensor, gallery: Tensor, pairs: Tensor | None) -> Tensor:
    """Return the pairs of queries and relevant items, or raise ValueError."""
    are_rows = queries.dim() == gallery.dim() == 2 and queries.shape[1] == gallery.shape[1]
    if not are_rows or (pairs is None and len(queries) != len(gallery)):
        raise ValueError(
            f"queries {list(queries.shape)} and gallery {list(gallery.shape)} must both be [N, D],"
            " or pairs must tell which rows belong together"
        )
    if not len(queries) or not len(gallery):
        raise ValueError("There is nothing to rank: queries or gallery are empty")
    for rows in (queries, gallery):
        if not all(part.isfinite().all() for part in rows.split(CHUNK)):
            raise ValueError("Embeddings hold NaN or infinite values: they cannot be ranked")
    if pairs is None:
        return torch.arange(len(queries))[:, None].expand(-1, 2)
    if pairs.dim() != 2 or pairs.shape[1:] != (2,):
        raise ValueError(f"pairs {list(pairs.shape)} must be [P, 2]: query, item")
    sizes = torch.tensor([len(queries), len(gallery)])
    if not len(pairs) or int(pairs.min()) < 0 or (pairs.amax(dim=0).cpu() >= sizes).any():
        raise ValueError("pairs name rows that do not exist")
    return pairs
