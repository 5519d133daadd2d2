"""Which texts a clip gets.

A policy is called with a manifest row, a random generator and a step, and returns :class:`Texts`:
captions that describe the clip, and possibly captions that do not. The step is the number of
batches that the process had since training began, through all epochs. With gradient accumulation
it is not the number of optimizer steps, of which each takes several batches.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

# Which caption of a clip is evaluated, as published: the first short and the last long one.
EVALUATED = {"global": 0, "fine": -1}


@dataclass(frozen=True)
class Texts:
    """What a policy returns for a clip.

    A policy returns the same number of positives and of negatives for every clip.

    Arguments
    ---------
    positives : list of str
        Captions that are true of the clip, at least one.
    negatives : list of str
        Captions that are false of the clip. One that repeats a positive stands for a negative that
        could not be made; the loss leaves it out.

    Raises
    ------
    TypeError
        If one of them is a string instead of a list.
    ValueError
        If there is no positive.

    Example
    -------
    >>> Texts(["He speaks slowly."])
    Texts(positives=['He speaks slowly.'], negatives=[])
    """

    positives: list[str]
    negatives: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if isinstance(self.positives, str) or isinstance(self.negatives, str):
            raise TypeError(f"Texts takes lists of captions, not a string: {self}")
        if not self.positives:
            raise ValueError("Texts needs at least one positive caption")


def draw_texts(
    policy: Callable[[Mapping[str, Any], random.Random, int], Texts],
    row: Mapping[str, Any],
    generator: random.Random,
    step: int = 0,
) -> Texts:
    """Return a policy's texts for a clip.

    Raises
    ------
    TypeError
        If the policy returns something else than :class:`Texts`.

    Example
    -------
    >>> row = {"id": "a", "global_captions": ["G"], "fine_captions": ["F"]}
    >>> draw_texts(OneFineCaption(), row, random.Random(0))
    Texts(positives=['F'], negatives=[])
    """
    texts = policy(row, generator, step)
    if not isinstance(texts, Texts):
        name = getattr(policy, "__qualname__", type(policy).__qualname__)
        raise TypeError(
            f"Clip {row['id']!r}: the caption policy {name} returned {type(texts).__name__} instead"
            " of Texts(positives, negatives)"
        )
    return texts


class OneFineCaption:
    """One text per clip, a fine caption drawn anew in every epoch (CLSP, stage 1).

    Example
    -------
    >>> row = {"id": "a", "global_captions": ["G"], "fine_captions": ["F"]}
    >>> OneFineCaption()(row, random.Random(0))
    Texts(positives=['F'], negatives=[])
    """

    def __call__(self, row: Mapping[str, Any], generator: random.Random, step: int = 0) -> Texts:
        """Draw; a clip without fine captions gets a global one."""
        return Texts([generator.choice(_pool(row))])


class TwoCaptions:
    """Two positive texts per clip, drawn anew in every epoch (CLSP, stage 2).

    Either a global and a fine caption, or two different fine ones. A clip that lacks one kind
    gets what it has.

    Arguments
    ---------
    global_probability : float or sequence of float
        How often the first text is a global caption: always as often, or (first, last, steps): from
        ``first`` it goes linearly to ``last`` over so many batches. Published: (0.95, 0.5, 10000).

    Example
    -------
    >>> row = {"id": "a", "global_captions": ["G"], "fine_captions": ["F"]}
    >>> TwoCaptions(global_probability=1.0)(row, random.Random(0))
    Texts(positives=['G', 'F'], negatives=[])
    >>> round(TwoCaptions((0.95, 0.5, 10000)).probability(step=5000), 3)
    0.725
    """

    def __init__(self, global_probability: float | Sequence[float] = 0.5) -> None:
        if isinstance(global_probability, int | float):
            global_probability = (global_probability, global_probability, 1)
        self.first, self.last, self.steps = map(float, global_probability)

    def probability(self, step: int) -> float:
        """Return how often a global caption comes first, so many batches into the training."""
        progress = min(1.0, step / self.steps)
        return self.first + (self.last - self.first) * progress

    def __call__(self, row: Mapping[str, Any], generator: random.Random, step: int = 0) -> Texts:
        """Draw two positives; the same twice if the clip has only one caption."""
        pool, globals_ = _pool(row), row["global_captions"]
        both = globals_ and row["fine_captions"]
        if both and generator.random() < self.probability(step):
            return Texts([generator.choice(globals_), generator.choice(pool)])
        return Texts(generator.sample(pool, 2) if len(pool) > 1 else [pool[0], pool[0]])


class WithHardNegatives:
    """A policy's texts, and more negatives: its positives, each made false by a swap.

    Arguments
    ---------
    policy : callable
        Draws the positives; negatives of its own come first.
    swap : callable
        (caption, random.Random, row) -> caption, as
        :class:`~speechbrain_clsp.captions.perturbation.AttributeSwap`.
    n_negatives : int
        Swapped texts per clip: of the first positive, of the second, and so on in turns. Published:
        1. Where nothing can be swapped, the positive is repeated, and the Brain leaves it out of
        the loss.

    Example
    -------
    >>> policy = WithHardNegatives(TwoCaptions(), lambda text, generator, row: f"not {text}")
    >>> row = {"id": "a", "global_captions": ["G"], "fine_captions": []}
    >>> policy(row, random.Random(0))
    Texts(positives=['G', 'G'], negatives=['not G'])
    """

    def __init__(
        self, policy: Callable[..., Texts], swap: Callable[..., str], n_negatives: int = 1
    ) -> None:
        self.policy = policy
        self.swap = swap
        self.n_negatives = n_negatives

    def __call__(self, row: Mapping[str, Any], generator: random.Random, step: int = 0) -> Texts:
        """Draw the positives, then swap."""
        texts = draw_texts(self.policy, row, generator, step)
        in_turns = islice(cycle(texts.positives), self.n_negatives)
        swapped = [self.swap(text, generator, row) for text in in_turns]
        return Texts(texts.positives, [*texts.negatives, *swapped])


class FewDraws:
    """A policy that draws the same few times for a clip, over and over.

    A frozen text encoder then sees few different captions, which it need not encode again.

    Arguments
    ---------
    policy : callable
        What draws.
    number : int
        Different draws of a clip; which of them an epoch gets is random.

    Example
    -------
    >>> policy = FewDraws(OneFineCaption(), number=1)
    >>> row = {"id": "a", "global_captions": [], "fine_captions": ["E", "F", "G", "H"]}
    >>> len({policy(row, random.Random(epoch)).positives[0] for epoch in range(99)})
    1
    """

    def __init__(self, policy: Callable[..., Texts], number: int) -> None:
        if number < 1:
            raise ValueError(f"number must be at least 1, not {number}")
        self.policy = policy
        self.number = number

    def __call__(self, row: Mapping[str, Any], generator: random.Random, step: int = 0) -> Texts:
        """Draw by the clip's id and one of few numbers."""
        seed = f"{generator.randrange(self.number)} {row['id']}"
        return draw_texts(self.policy, row, random.Random(seed), step)


def evaluation_captions(
    row: Mapping[str, Any], generator: random.Random | None = None, step: int = 0
) -> Texts:
    """Return a clip's first global and last fine caption, as in the published evaluation.

    Arguments
    ---------
    row : dict
        A clip with ``global_captions`` and ``fine_captions``.
    generator, step
        They make this a policy like any other; there is nothing to draw.

    Returns
    -------
    Texts
        Two positives and no negatives.

    Raises
    ------
    ValueError
        If the clip lacks one of them.

    Example
    -------
    >>> evaluation_captions({"global_captions": ["G", "H"], "fine_captions": ["E", "F"]})
    Texts(positives=['G', 'F'], negatives=[])
    """
    if not row["global_captions"] or not row["fine_captions"]:
        raise ValueError(f"Clip {row['id']!r} needs a global and a fine caption to be evaluated on")
    return Texts([row[f"{kind}_captions"][place] for kind, place in EVALUATED.items()])


class Contrasts:
    """The captions that are evaluated, and the fine one made false by each of several swaps.

    Arguments
    ---------
    swaps : dict of callable
        Name -> swap, as for :class:`WithHardNegatives`. A caption that a swap does not change
        stays as it is, and is not counted.

    Example
    -------
    >>> contrasts = Contrasts({"order": lambda text, generator, row: text[::-1]})
    >>> row = {"id": "a", "global_captions": ["G"], "fine_captions": ["AB"]}
    >>> contrasts(row, random.Random(0))
    Texts(positives=['G', 'AB'], negatives=['BA'])
    """

    def __init__(self, swaps: Mapping[str, Callable[..., str]]) -> None:
        self.swaps = dict(swaps)

    def __call__(self, row: Mapping[str, Any], generator: random.Random, step: int = 0) -> Texts:
        """Return the two captions and a negative for each swap, in order."""
        positives = evaluation_captions(row).positives
        return Texts(
            positives, [swap(positives[-1], generator, row) for swap in self.swaps.values()]
        )


def _pool(row: Mapping[str, Any]) -> list[str]:
    """Return the fine captions, or the global ones where there are none."""
    pool = row["fine_captions"] or row["global_captions"]
    if not pool:
        raise ValueError(f"Clip {row['id']!r} has no caption: leave it out of the manifest")
    return pool
