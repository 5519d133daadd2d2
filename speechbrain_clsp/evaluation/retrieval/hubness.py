"""Corrections for hubs, items that are near to everything. None of them is in the paper.

Each subtracts from an item's score how near the item is to queries in general:
``q . g - offset(g)``. With one more dimension this is an inner product again, so ranks stay exact.

Metrics with and without a correction are not comparable, nor are those of different corrections:

- *querybank normalization* (arXiv 2112.12777) looks at a bank of training queries. Each test query
  is still answered on its own.
- *dual softmax* looks at all test queries at once: **transductive**. It knows that every item is
  wanted by about one of them, which no deployed search does.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from speechbrain_clsp.evaluation.retrieval.ranking import CHUNK, Ranking, rank_pairs

SCALE = 20.0  # factor of the cosine in the softmax


def querybank_ranks(
    queries: Tensor,
    gallery: Tensor,
    pairs: Tensor,
    bank: Tensor,
    scale: float = SCALE,
) -> Ranking:
    """Rank with querybank normalization: an inverted softmax over a bank of training queries.

    Only queries whose nearest item is also nearest to a query of the bank are corrected.

    Arguments
    ---------
    queries, gallery : Tensor
        [Q, D] and [G, D], of unit norm.
    pairs : Tensor
        [P, 2] int64: query, item.
    bank : Tensor
        [B, D] queries from training data, of the same kind as ``queries``. Test data here would be
        a leak.
    scale : float
        Factor of scores in the softmax.

    Returns
    -------
    Ranking
        As of :func:`~speechbrain_clsp.evaluation.retrieval.ranking.rank_pairs`.

    Raises
    ------
    ValueError
        If the bank is empty or holds a test query.

    Example
    -------
    >>> pairs = torch.arange(4)[:, None].expand(4, 2)
    >>> bank = torch.nn.functional.normalize(torch.eye(4) + 0.1, dim=1)
    >>> querybank_ranks(torch.eye(4), torch.eye(4), pairs, bank).rank.tolist()
    [1, 1, 1, 1]
    """
    _check_bank(queries, bank)
    shifted = rank_pairs(*_with_offsets(queries, gallery, bank, scale, 1.0), pairs)
    plain = rank_pairs(queries, gallery, pairs)
    hubs = torch.zeros(len(gallery), dtype=torch.bool, device=gallery.device)
    hubs[_nearest(bank, gallery)] = True
    corrected = hubs[_nearest(queries, gallery)][plain.query]
    return replace(
        plain,
        rank=torch.where(corrected, shifted.rank, plain.rank),
        order=torch.where(corrected, shifted.order, plain.order),
    )


def dual_softmax_ranks(
    queries: Tensor, gallery: Tensor, pairs: Tensor, scale: float = SCALE
) -> Ranking:
    """Rank by the product of both softmaxes, over items and over queries (transductive).

    Arguments
    ---------
    queries, gallery : Tensor
        [Q, D] and [G, D], of unit norm; the whole test set.
    pairs : Tensor
        [P, 2] int64: query, item.
    scale : float
        Factor of scores in the softmaxes.

    Returns
    -------
    Ranking
        As of :func:`~speechbrain_clsp.evaluation.retrieval.ranking.rank_pairs`.

    Example
    -------
    >>> pairs = torch.arange(4)[:, None].expand(4, 2)
    >>> dual_softmax_ranks(torch.eye(4), torch.eye(4), pairs).rank.tolist()
    [1, 1, 1, 1]
    """
    # log(softmax over items * softmax over queries) = 2 scale s - offset(query) - offset(item), and
    # offset(query) is the same for all items of a query.
    return rank_pairs(*_with_offsets(queries, gallery, queries, scale, 2.0), pairs)


def corrected_rankings(
    speech: Tensor, text: Tensor, pairs: Tensor, bank: tuple[Tensor, Tensor] | None = None
) -> dict[str, dict[str, Ranking]]:
    """Rank in both directions with each of the corrections.

    Arguments
    ---------
    speech, text : Tensor
        [N, D] and [M, D].
    pairs : Tensor
        [P, 2] int64: clip, caption.
    bank : (Tensor, Tensor), optional
        Embeddings of training clips and training captions, for querybank normalization.

    Returns
    -------
    dict
        By the correction's name, a ranking per direction.
    """
    ways = {
        "speech_to_text": (speech, text, pairs),
        "text_to_speech": (text, speech, pairs.flip(1)),
    }
    found = {
        "dual softmax (transductive; not in the paper)": {
            name: dual_softmax_ranks(*way) for name, way in ways.items()
        }
    }
    if bank is not None:
        found["querybank normalization from training data (not in the paper)"] = {
            name: querybank_ranks(*way, queries) for (name, way), queries in zip(ways.items(), bank)
        }
    return found


def _with_offsets(
    queries: Tensor, gallery: Tensor, bank: Tensor, scale: float, weight: float
) -> tuple[Tensor, Tensor]:
    """Return queries [Q, D+1] and items [G, D+1] with products weight * s - logsumexp / scale."""
    scaled = [scale * chunk.float() for chunk in bank.split(CHUNK)]
    offsets = []
    for items in gallery.split(CHUNK):
        items = items.float().T
        parts = torch.stack([(chunk @ items).logsumexp(dim=0) for chunk in scaled])
        offsets.append(parts.logsumexp(dim=0) / scale)
    one = queries.new_ones(len(queries), 1, dtype=torch.float32)
    items = torch.cat([weight * gallery.float(), -torch.cat(offsets)[:, None]], dim=1)
    return torch.cat([queries.float(), one], dim=1), items


def _nearest(queries: Tensor, gallery: Tensor) -> Tensor:
    """Return [Q] int64, each query's nearest item."""
    chunks = queries.split(CHUNK)
    return torch.cat([(chunk.float() @ gallery.float().T).argmax(dim=1) for chunk in chunks])


def _check_bank(queries: Tensor, bank: Tensor) -> None:
    if bank.dim() != 2 or not len(bank) or bank.shape[1] != queries.shape[1]:
        raise ValueError(f"bank {list(bank.shape)} must be [B, {queries.shape[1]}] with B > 0")
    known = {hash(row.numpy().tobytes()) for row in bank.float().cpu()}
    leaked = sum(hash(row.numpy().tobytes()) in known for row in queries.float().cpu())
    if leaked:
        raise ValueError(
            f"The bank holds {leaked} of the test queries: fill it from training data only"
        )
