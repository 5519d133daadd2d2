"""Which texts a clip gets.

A policy is called with a manifest row, a random generator and the number of the training step, and
returns K captions.

Authors
 * The speechbrain-clsp authors 2026
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

N_POSITIVES = 2  # true texts per clip, the first of those that a policy returns


class OneFineCaption:
    """One text per clip, a fine caption drawn anew in every epoch (CLSP, stage 1).

    Example
    -------
    >>> row = {"id": "a", "global_captions": ["G"], "fine_captions": ["F"]}
    >>> OneFineCaption()(row, random.Random(0))
    ['F']
    """

    def __call__(
        self, row: Mapping[str, Any], generator: random.Random, step: int = 0
    ) -> list[str]:
        """Draw; a clip without fine captions gets a global one."""
        return [generator.choice(_pool(row))]


class TwoCaptions:
    """Two positive texts per clip, drawn anew in every epoch (CLSP, stage 2).

    Either a global and a fine caption, or two different fine ones. A clip that lacks one kind
    gets what it has.

    Arguments
    ---------
    global_probability : float or sequence of float
        How often the first text is a global caption: always as often, or (first, last, steps): from
        ``first`` it goes linearly to ``last`` over so many steps. Published: (0.95, 0.5, 10000).

    Example
    -------
    >>> row = {"id": "a", "global_captions": ["G"], "fine_captions": ["F"]}
    >>> TwoCaptions(global_probability=1.0)(row, random.Random(0))
    ['G', 'F']
    >>> round(TwoCaptions((0.95, 0.5, 10000)).probability(step=5000), 3)
    0.725
    """

    def __init__(self, global_probability: float | Sequence[float] = 0.5) -> None:
        if isinstance(global_probability, int | float):
            global_probability = (global_probability, global_probability, 1)
        self.first, self.last, self.steps = global_probability

    def probability(self, step: int) -> float:
        """Return how often a global caption comes first at a step."""
        progress = min(1.0, step / self.steps)
        return self.first + (self.last - self.first) * progress

    def __call__(
        self, row: Mapping[str, Any], generator: random.Random, step: int = 0
    ) -> list[str]:
        """Draw.

        Arguments
        ---------
        row : dict
            A row of the manifest.
        generator : random.Random
            Where chance comes from.
        step : int
            Number of the training step, from 0.

        Returns
        -------
        list of str
            Two captions; the same twice if the clip has only one.

        Raises
        ------
        ValueError
            If the clip has no caption.
        """
        pool, globals_ = _pool(row), row["global_captions"]
        both = globals_ and row["fine_captions"]
        if both and generator.random() < self.probability(step):
            return [generator.choice(globals_), generator.choice(pool)]
        return generator.sample(pool, 2) if len(pool) > 1 else [pool[0], pool[0]]


class WithHardNegatives:
    """A policy's texts, and after them false ones: the first text with an attribute swapped.

    Arguments
    ---------
    policy : callable
        Draws the true texts.
    swap : callable
        (caption, random.Random, row) -> caption, as
        :class:`~speechbrain_clsp.dataio.perturbation.AttributeSwap`.
    n_negatives : int
        False texts per clip. Where nothing can be swapped, the true text is repeated, and the Brain
        leaves it out.

    Example
    -------
    >>> policy = WithHardNegatives(TwoCaptions(), lambda text, generator, row: f"not {text}")
    >>> row = {"id": "a", "global_captions": ["G"], "fine_captions": []}
    >>> policy(row, random.Random(0))
    ['G', 'G', 'not G']
    """

    def __init__(self, policy, swap, n_negatives: int = 1) -> None:
        self.policy = policy
        self.swap = swap
        self.n_negatives = n_negatives

    def __call__(
        self, row: Mapping[str, Any], generator: random.Random, step: int = 0
    ) -> list[str]:
        """Draw the true texts, then the false ones."""
        texts = self.policy(row, generator, step)
        return texts + [self.swap(texts[0], generator, row) for _ in range(self.n_negatives)]


def evaluation_captions(
    row: Mapping[str, Any], generator: random.Random | None = None, step: int = 0
) -> list[str]:
    """Return a clip's first global and last fine caption, as in the published evaluation.

    Arguments
    ---------
    row : dict
        A row of the manifest.
    generator, step : optional
        Not used: there is nothing to draw. They make this a policy like any other.

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


def _pool(row: Mapping[str, Any]) -> list[str]:
    """Return the fine captions, or the global ones where there are none."""
    pool = row["fine_captions"] or row["global_captions"]
    if not pool:
        raise ValueError(f"Clip {row['id']!r} has no caption: leave it out of the manifest")
    return pool
