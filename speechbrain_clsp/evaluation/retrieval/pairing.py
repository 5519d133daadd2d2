"""Retrieval where clips have several captions, and captions several clips.

Two clips may be described by the very same caption. *As published*, either copy is wrong for the
other clip, so that no model can be perfect. *Merged*, equal captions are one item that belongs to
all of their clips.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.stats import hypergeom
from torch import Tensor

from speechbrain_clsp.evaluation.retrieval.metrics import DIRECTIONS, PRECISION_DEPTH, RECALLS
from speechbrain_clsp.evaluation.retrieval.ranking import Ranking, rank_both
from speechbrain_clsp.evaluation.statistics import bootstrap_mean, median_interval

MEDIAN = "median_rank"


def caption_pairs(
    captions: Sequence[Sequence[str]], merge: bool = False
) -> tuple[list[str], Tensor]:
    """List the captions of a test set, and which clip each belongs to.

    Arguments
    ---------
    captions : list of list of str
        For each clip, its captions.
    merge : bool
        Whether equal captions are one.

    Returns
    -------
    texts : list of str
        M captions.
    pairs : Tensor
        [P, 2] int64: clip, caption.

    Raises
    ------
    ValueError
        If a clip has no caption.

    Example
    -------
    >>> texts, pairs = caption_pairs([["He shouts."], ["He shouts.", "Loud."]], merge=True)
    >>> texts, pairs.tolist()
    (['He shouts.', 'Loud.'], [[0, 0], [1, 0], [1, 1]])
    """
    texts: list[str] = []
    known: dict[str, int] = {}
    pairs: dict[tuple[int, int], None] = {}
    for clip, group in enumerate(captions):
        if not group:
            raise ValueError(f"Clip {clip} (counted from 0) has no caption: leave it out")
        for caption in group:
            if not merge or caption not in known:
                known[caption] = len(texts)
                texts.append(caption)
            pairs[clip, known[caption]] = None
    return texts, torch.tensor(list(pairs))


def rank_both_ways(speech: Tensor, text: Tensor, pairs: Tensor) -> dict[str, Ranking]:
    """Rank captions for clips and clips for captions.

    Arguments
    ---------
    speech, text : Tensor
        [N, D] and [M, D].
    pairs : Tensor
        [P, 2] int64: clip, caption.

    Returns
    -------
    dict
        A :class:`~speechbrain_clsp.evaluation.retrieval.ranking.Ranking` per direction.
    """
    return dict(zip(DIRECTIONS, rank_both(speech, text, pairs)))


def query_values(ranking: Ranking, recalls: Sequence[int] = RECALLS) -> dict[str, np.ndarray]:
    """Turn ranks into one value per query and figure.

    Arguments
    ---------
    ranking : Ranking
        Of Q queries.
    recalls : sequence of int
        Depths k of R@k.

    Returns
    -------
    dict
        ``R@k``: whether one of the own items is among the first k; ``mAP@10``: average precision;
        ``median_rank``: the best own item's rank. Each [Q] float64.

    Example
    -------
    >>> from speechbrain_clsp.evaluation.retrieval.ranking import rank_pairs
    >>> ranking = rank_pairs(torch.eye(2), torch.eye(2), torch.tensor([[0, 0], [1, 0], [1, 1]]))
    >>> query_values(ranking)["mAP@10"].tolist()
    [1.0, 1.0]
    """
    first = ranking.first().cpu().numpy()
    values = {f"R@{k}": (first <= k).astype(float) for k in recalls}
    values[f"mAP@{PRECISION_DEPTH}"] = ranking.average_precision(PRECISION_DEPTH)
    values[MEDIAN] = first.astype(float)
    return values


def pair_chance(
    totals: Sequence[int], size: int, recalls: Sequence[int] = RECALLS
) -> dict[str, float]:
    """Return what a random order gives on average, for queries with several own items.

    Arguments
    ---------
    totals : sequence of int
        How many own items each query has.
    size : int
        Number of items.
    recalls : sequence of int
        Depths k of R@k.

    Returns
    -------
    dict
        Keys as of :func:`query_values`.

    Example
    -------
    >>> pair_chance([1, 1], 100)["R@5"]
    0.05
    """
    distinct, counts = np.unique(np.asarray(totals), return_counts=True)
    weights = counts / counts.sum()
    chance = {f"R@{k}": float(weights @ hypergeom.sf(0, size, distinct, k)) for k in recalls}
    # The item on place r is an own one as often as any; so are those before it, without it.
    places = np.arange(1, min(PRECISION_DEPTH, size) + 1)[:, None]
    before = (places - 1) * (distinct - 1) / max(size - 1, 1)
    precision = (distinct / size * (1 + before) / places).sum(axis=0)
    precision = precision / np.minimum(distinct, PRECISION_DEPTH)
    chance[f"mAP@{PRECISION_DEPTH}"] = float(weights @ precision)
    # Of the first rank r: P(> r) = P(no own item among r), so the median is where this is a half.
    ranks = np.arange(1, size + 1)
    beyond = sum(w * hypergeom.cdf(0, size, d, ranks) for w, d in zip(weights, distinct))
    chance[MEDIAN] = float(ranks[np.argmax(beyond <= 0.5)])
    return chance


def pair_figures(
    speech: Tensor, text: Tensor, pairs: Tensor, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Compute all retrieval figures with intervals and chance levels.

    Arguments
    ---------
    speech, text : Tensor
        [N, D] and [M, D].
    pairs : Tensor
        [P, 2] int64: clip, caption.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    dict
        Keys such as ``speech_to_text_R@1`` and ``text_to_speech_median_rank``; each a dict of
        ``value``, ``low``, ``high`` (95 %; captions of a clip are resampled together) and
        ``chance``.

    Example
    -------
    >>> own = torch.arange(4)[:, None].expand(4, 2)
    >>> pair_figures(torch.eye(4), torch.eye(4), own)["text_to_speech_R@1"]["value"]
    1.0
    """
    rankings = rank_both_ways(speech, text, pairs)
    return figures_of(rankings, {"speech_to_text": len(text), "text_to_speech": len(speech)}, seed)


def figures_of(
    rankings: dict[str, Ranking], sizes: dict[str, int], seed: int = 0
) -> dict[str, dict[str, float]]:
    """Turn rankings of galleries of the given sizes into figures; see :func:`pair_figures`."""
    clip_of = _first_clip(rankings)
    figures = {}
    for way, ranking in rankings.items():
        chance = pair_chance(ranking.total.tolist(), sizes[way])
        groups = clip_of if way == "text_to_speech" else None
        for name, values in query_values(ranking).items():
            median = name == MEDIAN
            value = np.median(values) if median else values.mean()
            low, high = median_interval(values) if median else bootstrap_mean(values, seed, groups)
            figures[f"{way}_{name}"] = {
                "value": float(value),
                "low": low,
                "high": high,
                "chance": chance[name],
            }
    return figures


def _first_clip(rankings: dict[str, Ranking]) -> np.ndarray:
    """Return, for every caption, the first clip that it belongs to."""
    ranking = rankings["text_to_speech"]
    clips = np.full(len(ranking.total), -1)
    captions = ranking.query.cpu().numpy()[::-1]
    clips[captions] = ranking.item.cpu().numpy()[::-1]  # the first pair is written last
    return clips
