"""Which of a clip's captions are kept: few that differ, and that fit the audio."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np

from speechbrain_clsp.utils.words import words_of


@dataclass(frozen=True)
class SelectSettings:
    """How many captions a clip keeps, and by which measure.

    Arguments
    ---------
    most : int
        Captions kept at most; the published corpora have 1 (Emilia) and up to 14 (PSCBase).
    least : int
        A clip that has fewer left loses all.
    clsp : str, optional
        Folder or Hub repository of a CLSP whose text embeddings measure how much captions differ;
        default: by their words and pairs of words.
    gate : float, optional
        Least cosine of speech and caption, by that CLSP.
    """

    most: int = 1
    least: int = 1
    clsp: str | None = None
    gate: float | None = None


def word_vectors(captions: Sequence[str]) -> np.ndarray:
    """Return unit vectors [N, V] of captions by the words and pairs of words in them.

    Example
    -------
    >>> vectors = word_vectors(["A man speaks.", "A man speaks", "A girl sings"])
    >>> (vectors @ vectors[0]).round(1).tolist()
    [1.0, 1.0, 0.2]
    """
    split = [words_of(caption) for caption in captions]
    counts = [Counter(chain(words, pairwise(words))) for words in split]
    parts = dict.fromkeys(chain(*counts))
    vectors = np.array([[count[part] for part in parts] for count in counts], dtype=float)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def most_different(vectors: np.ndarray, count: int) -> list[int]:
    """Choose at most ``count`` rows of unit vectors [N, D], each far from those before it.

    The first is the one nearest to all others, the most typical; each further one has the
    smallest largest cosine with those chosen (Gonzalez's rule for k centers). Ties go to the first.

    Example
    -------
    >>> most_different(np.array([[1.0, 0.0], [0.9, 0.435], [0.0, 1.0], [0.8, 0.6]]), 2)
    [3, 2]
    """
    cosines = vectors @ vectors.T
    chosen = [int(cosines.sum(axis=1).argmax())]
    while len(chosen) < min(count, len(vectors)):
        nearest = cosines[:, chosen].max(axis=1)
        nearest[chosen] = np.inf
        chosen.append(int(nearest.argmin()))
    return chosen


def select(
    captions: Sequence[str],
    settings: SelectSettings,
    vectors: np.ndarray | None = None,
    fit: Sequence[float] | None = None,
) -> tuple[list[str], list[dict[str, str]]]:
    """Choose captions of a clip.

    Arguments
    ---------
    captions : sequence of str
        Those that passed the stages before.
    settings : SelectSettings
        How many.
    vectors : np.ndarray, optional
        Their embeddings [N, D], of unit norm; default: :func:`word_vectors`.
    fit : sequence of float, optional
        Cosine of each caption with the clip's speech, for the gate.

    Returns
    -------
    tuple
        Captions in the order of :func:`most_different`, and what is dropped, as
        :func:`~speechbrain_clsp.annotation.stages.filter.filter_captions` returns it.

    Example
    -------
    >>> select(["A man.", "A calm man.", "Fast speech"], SelectSettings(most=2))[0]
    ['A man.', 'Fast speech']
    """
    why: dict[int, tuple[str, str]] = {}
    if settings.gate is not None and captions:
        if fit is None:
            raise ValueError("select: a gate needs a clsp to measure with")
        for n, cosine in enumerate(fit):
            if cosine < settings.gate:
                reason = f"cosine {cosine:.3f} with the speech, below {settings.gate:g}"
                why[n] = ("gate", reason)
    left = [n for n in range(len(captions)) if n not in why]
    if len(left) < settings.least:
        reason = f"{len(left)} captions are left, fewer than {settings.least}"
        why |= dict.fromkeys(left, ("too few", reason))
        left = []
    chosen = []
    if left:
        vectors = word_vectors(captions) if vectors is None else vectors
        chosen = [left[n] for n in most_different(vectors[left], settings.most)]
    others = [n for n in left if n not in chosen]
    why |= dict.fromkeys(others, ("selection", f"{settings.most} others differ more"))
    dropped = [
        {"caption": captions[n], "rule": r, "reason": reason} for n, (r, reason) in why.items()
    ]
    return [captions[n] for n in chosen], dropped
