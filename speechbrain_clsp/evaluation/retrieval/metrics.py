"""Retrieval between speech and captions: R@k, mAP@10 and median rank, with chance levels.

Two clips may be described by the very same caption. *As published*, either copy is wrong for the
other clip, so that no model can be perfect. *Merged*, equal captions are one item that is relevant
to all of their clips.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

import numpy as np
import torch
from scipy.stats import hypergeom
from torch import Tensor

from speechbrain_clsp.evaluation.retrieval.ranking import Ranking, rank_directions
from speechbrain_clsp.evaluation.statistics import Estimate, bootstrap_mean, median_interval

RECALLS = (1, 5, 10)
PRECISION_DEPTH = 10
MEDIAN = "median_rank"
Name = TypeVar("Name", bound=Hashable)


def retrieval_metrics(
    speech: Tensor, text: Tensor, pairs: Tensor | None = None
) -> dict[str, float]:
    """Compute R@1, R@5, R@10 and mAP@10 in both directions, in [0, 1].

    Arguments
    ---------
    speech, text : Tensor
        [N, D] and [M, D], of unit norm.
    pairs : Tensor, optional
        [P, 2] int64, which rows belong together, as :func:`caption_pairs` returns them. Default:
        row i of one and row i of the other.

    Returns
    -------
    dict of float
        ``{speech_to_text,text_to_speech}_{R@1,R@5,R@10,mAP@10}``.

    Example
    -------
    >>> retrieval_metrics(torch.eye(4), torch.eye(4))["text_to_speech_R@1"]
    1.0
    """
    return {
        f"{direction}_{name}": float(values.mean())
        for direction, ranking in rank_directions(speech, text, pairs).items()
        for name, values in query_values(ranking).items()
    }


def retrieval_estimates(rankings: dict[str, Ranking], seed: int = 0) -> dict[str, Estimate]:
    """Compute the metrics of both directions, and median ranks, with intervals and chance levels.

    Arguments
    ---------
    rankings : dict
        As :func:`~speechbrain_clsp.evaluation.retrieval.ranking.rank_directions` returns them.
    seed : int
        Seed of the bootstrap.

    Example
    -------
    >>> retrieval_estimates(rank_directions(torch.eye(4), torch.eye(4)))["text_to_speech_R@1"]
    Estimate(value=1.0, low=1.0, high=1.0, chance=0.25)
    """
    estimates = {}
    for (direction, ranking), other in zip(rankings.items(), reversed(rankings.values())):
        # The items of one direction are the queries of the other.
        chance = chance_levels(ranking.total.tolist(), len(other.total))
        for name, values in query_values(ranking).items():
            interval = bootstrap_mean(values, seed)
            estimates[f"{direction}_{name}"] = Estimate(
                float(values.mean()), *interval, chance[name]
            )
        first = ranking.first().cpu().numpy().astype(float)
        estimates[f"{direction}_{MEDIAN}"] = Estimate(
            float(np.median(first)), *median_interval(first), chance[MEDIAN]
        )
    return estimates


def caption_pairs(captions: Sequence[Name]) -> tuple[list[Name], Tensor]:
    """Merge the equal ones of N clips' captions.

    Arguments
    ---------
    captions : sequence
        The captions, or anything that is equal for equal ones, such as numbers.

    Returns
    -------
    (list, Tensor)
        M captions, each once, and [N, 2] int64: clip, caption.

    Example
    -------
    >>> texts, pairs = caption_pairs(["He shouts.", "Loud.", "He shouts."])
    >>> texts, pairs.tolist()
    (['He shouts.', 'Loud.'], [[0, 0], [1, 1], [2, 0]])
    """
    numbers = {text: number for number, text in enumerate(dict.fromkeys(captions))}
    pairs = [(clip, numbers[caption]) for clip, caption in enumerate(captions)]
    return list(numbers), torch.tensor(pairs)


def query_values(ranking: Ranking) -> dict[str, np.ndarray]:
    """Turn ranks of Q queries into one value per query and metric, each [Q] float64.

    ``R@k``: whether a relevant item is among the first k; ``mAP@10``: average precision. A metric
    is the mean of its values.

    Example
    -------
    >>> from speechbrain_clsp.evaluation.retrieval.ranking import rank_pairs
    >>> ranking = rank_pairs(torch.eye(2), torch.eye(2), torch.tensor([[0, 0], [1, 0], [1, 1]]))
    >>> query_values(ranking)["mAP@10"].tolist()
    [1.0, 1.0]
    """
    first = ranking.first().cpu().numpy()
    values = {f"R@{k}": (first <= k).astype(float) for k in RECALLS}
    values[f"mAP@{PRECISION_DEPTH}"] = ranking.average_precision(PRECISION_DEPTH)
    return values


def chance_levels(totals: Sequence[int], size: int) -> dict[str, float]:
    """Return what a random order gives on average, also as the median of first ranks.

    Arguments
    ---------
    totals : sequence of int
        How many relevant items each query has.
    size : int
        Number of items.

    Example
    -------
    >>> chance_levels([1, 1], 100)["R@5"]
    0.05
    """
    distinct, counts = np.unique(np.asarray(totals), return_counts=True)
    weights = counts / counts.sum()
    chance = {f"R@{k}": float(weights @ hypergeom.sf(0, size, distinct, k)) for k in RECALLS}
    # The item on place r is as likely as any to be relevant; so are those before it, without it.
    places = np.arange(1, min(PRECISION_DEPTH, size) + 1)[:, None]
    before = (places - 1) * (distinct - 1) / max(size - 1, 1)
    precision = (distinct / size * (1 + before) / places).sum(axis=0)
    precision = precision / np.minimum(distinct, PRECISION_DEPTH)
    chance[f"mAP@{PRECISION_DEPTH}"] = float(weights @ precision)
    # P(first rank > r) = P(nothing relevant among r): the median is where this is a half.
    ranks = np.arange(1, size + 1)
    beyond = sum(w * hypergeom.cdf(0, size, d, ranks) for w, d in zip(weights, distinct))
    chance[MEDIAN] = float(ranks[np.argmax(beyond <= 0.5)])
    return chance
