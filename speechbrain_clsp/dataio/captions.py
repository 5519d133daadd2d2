"""Which texts a clip gets.

A policy is called with a manifest row and a random generator, and returns K captions.

Authors
 * The speechbrain-clsp authors 2026
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

N_POSITIVES = 2  # true texts per clip, the first of those that a policy returns


class TwoCaptions:
    """Two positive texts per clip, drawn anew in every epoch (CLSP, stage 2).

    Either a global and a fine caption, or two different fine ones. A clip that lacks one kind
    gets what it has.

    Arguments
    ---------
    global_probability : float
        How often the first text is a global caption.

    Example
    -------
    >>> row = {"id": "a", "global_captions": ["G"], "fine_captions": ["F"]}
    >>> TwoCaptions(global_probability=1.0)(row, random.Random(0))
    ['G', 'F']
    """

    def __init__(self, global_probability: float = 0.5) -> None:
        self.global_probability = global_probability

    def __call__(self, row: Mapping[str, Any], generator: random.Random) -> list[str]:
        """Draw.

        Arguments
        ---------
        row : dict
            A row of the manifest.
        generator : random.Random
            Where chance comes from.

        Returns
        -------
        list of str
            Two captions; the same twice if the clip has only one.

        Raises
        ------
        ValueError
            If the clip has no caption.
        """
        globals_, fines = row["global_captions"], row["fine_captions"]
        if not globals_ and not fines:
            raise ValueError(f"Clip {row['id']!r} has no caption: leave it out of the manifest")
        if globals_ and fines and generator.random() < self.global_probability:
            return [generator.choice(globals_), generator.choice(fines)]
        pool = fines or globals_
        return generator.sample(pool, 2) if len(pool) > 1 else [pool[0], pool[0]]


class WithHardNegatives:
    """A policy's texts, and after them false ones: the first text with an attribute swapped.

    Arguments
    ---------
    policy : callable
        Draws the true texts.
    swap : callable
        (caption, random.Random) -> caption, as
        :class:`~speechbrain_clsp.dataio.perturbation.AttributeSwap`.
    n_negatives : int
        False texts per clip.

    Example
    -------
    >>> policy = WithHardNegatives(TwoCaptions(), lambda text, generator: f"not {text}")
    >>> row = {"id": "a", "global_captions": ["G"], "fine_captions": []}
    >>> policy(row, random.Random(0))
    ['G', 'G', 'not G']
    """

    def __init__(self, policy, swap, n_negatives: int = 1) -> None:
        self.policy = policy
        self.swap = swap
        self.n_negatives = n_negatives

    def __call__(self, row: Mapping[str, Any], generator: random.Random) -> list[str]:
        """Draw the true texts, then the false ones."""
        texts = self.policy(row, generator)
        return texts + [self.swap(texts[0], generator) for _ in range(self.n_negatives)]


def evaluation_captions(
    row: Mapping[str, Any], generator: random.Random | None = None
) -> list[str]:
    """Return a clip's first global and last fine caption, as in the published evaluation.

    Arguments
    ---------
    row : dict
        A row of the manifest.
    generator : random.Random, optional
        Not used: there is nothing to draw. It makes this a policy like any other.

    Returns
    -------
    list of str
        The two captions.

    Raises
    ------
    ValueError
        If the clip lacks one of them.

    Example
    -------
    >>> evaluation_captions({"global_captions": ["G", "H"], "fine_captions": ["E", "F"]})
    ['G', 'F']
    """
    if not row["global_captions"] or not row["fine_captions"]:
        raise ValueError(f"Clip {row['id']!r} needs a global and a fine caption to be evaluated on")
    return [row["global_captions"][0], row["fine_captions"][-1]]
