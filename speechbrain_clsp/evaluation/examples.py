"""Single clips for the report: the best and worst retrievals, a similarity matrix, worst pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from speechbrain_clsp.evaluation.probes.pairs import ProbePair
from speechbrain_clsp.evaluation.probes.scoring import ProbeScores

MATRIX_CLIPS = 16
EXAMPLES = 5
PAIRS = 3  # of each kind of probes
SCORES = 2**24  # of clips that examples are picked from, 64 MiB


@dataclass(frozen=True)
class Retrieval:
    """A clip as a query, and the caption that was found for it.

    Arguments
    ---------
    row : dict
        The clip's row of the manifest.
    rank : int
        Rank of its own caption, from 1.
    caption, found : str
        Its own caption, and the one on the first place.
    score, found_score : float
        Their cosines with the clip.
    """

    row: Mapping[str, Any]
    rank: int
    caption: str
    score: float
    found: str
    found_score: float


@dataclass(frozen=True)
class RetrievalExamples:
    """What a report shows of a model's retrieval.

    Arguments
    ---------
    kind : str
        Of the captions, ``global`` or ``fine``.
    best, worst : list of Retrieval
        Clips whose own caption lies furthest before, or behind, the best other one.
    captions, names : list of str
        Captions and ids of K clips.
    cosines : numpy.ndarray
        [K, K], captions by clips.
    """

    kind: str
    best: list[Retrieval]
    worst: list[Retrieval]
    captions: list[str]
    names: list[str]
    cosines: np.ndarray


def pick_examples(
    kind: str,
    rows: Sequence[Mapping[str, Any]],
    captions: Sequence[str],
    speech: Tensor,
    text: Tensor,
    ranks: Tensor,
) -> RetrievalExamples:
    """Pick what a report shows, from all of up to 4,096 clips, or from fewer, evenly spread.

    Arguments
    ---------
    kind : str
        Of the captions.
    rows, captions : list
        N rows of the manifest and their captions.
    speech, text : Tensor
        [N, D] each, of unit norm.
    ranks : Tensor
        [N] int64, ranks of the clips' own captions.

    Example
    -------
    >>> rows, captions = [{"id": "a"}, {"id": "b"}], ["A man.", "A woman."]
    >>> text = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    >>> found = pick_examples("fine", rows, captions, torch.eye(2), text, torch.tensor([1, 1]))
    >>> found.best[0].row["id"], found.worst[0].row["id"]
    ('b', 'a')
    """
    size = len(rows)
    n_queries = min(size, max(EXAMPLES, SCORES // size))
    queries = torch.linspace(0, size - 1, n_queries).long()
    scores = speech[queries] @ text.T
    position = torch.arange(n_queries)
    own = scores[position, queries]
    others = scores.clone()
    others[position, queries] = -2.0
    margin = own - others.max(dim=1).values

    def retrieval(number: int) -> Retrieval:
        clip, found = int(queries[number]), int(scores[number].argmax())
        return Retrieval(
            rows[clip],
            int(ranks[clip]),
            captions[clip],
            float(own[number]),
            captions[found],
            float(scores[number, found]),
        )

    shown = torch.linspace(0, size - 1, min(MATRIX_CLIPS, size)).long()
    return RetrievalExamples(
        kind,
        [retrieval(number) for number in margin.argsort(descending=True)[:EXAMPLES].tolist()],
        [retrieval(number) for number in margin.argsort()[:EXAMPLES].tolist()],
        [captions[i] for i in shown],
        [rows[i]["id"] for i in shown],
        (text[shown] @ speech[shown].T).numpy(),
    )


@dataclass(frozen=True)
class ProbeExample:
    """A minimal pair and what a model gave to it.

    Arguments
    ---------
    pair : ProbePair
        The pair.
    true, false : float
        Cosines of the anchor with the true and with the false one.
    rows : dict
        Rows of its clips by id.
    """

    pair: ProbePair
    true: float
    false: float
    rows: Mapping[str, Mapping[str, Any]]


def worst_pairs(scores: ProbeScores, rows: Sequence[Mapping[str, Any]]) -> list[ProbeExample]:
    """Pick the pairs with the lowest margins, up to three of each kind; the worst come first.

    ``rows`` are those of the manifest.
    """
    by_id = {row["id"]: row for row in rows}
    order = np.argsort(scores.margins, kind="stable")
    kinds: dict[str, list[ProbeExample]] = {}
    for number in order.tolist():
        pair = scores.pairs[number]
        shown = kinds.setdefault(pair.kind, [])
        if len(shown) < PAIRS:
            clips = {clip: by_id[clip] for clip in pair.clips}
            true, false = float(scores.true[number]), float(scores.false[number])
            shown.append(ProbeExample(pair, true, false, clips))
    return [example for shown in kinds.values() for example in shown]
