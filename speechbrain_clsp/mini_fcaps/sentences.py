"""Neutral sentences for MiniFCaps, rich in the sounds in which English accents differ.

Authors
 * The speechbrain-clsp authors 2026
"""

from __future__ import annotations

import random

SUBJECTS = (
    "farmers", "barbers", "fathers", "nurses", "carvers", "sailors", "bakers", "porters", "girls",
    "teachers", "drivers", "brothers", "mothers", "doctors", "hunters", "painters", "lawyers",
    "potters", "gardeners", "dancers", "the boarders", "the rowers", "our partners", "her sisters",
)  # fmt: skip
VERBS = (
    "parked", "carved", "carried", "wore", "burned", "turned", "stored", "poured", "ordered",
    "guarded", "borrowed", "bought", "hurled", "started", "stirred", "marked", "served", "lost",
)  # fmt: skip
OBJECTS = (
    "a dark car", "a bird bath", "the last cart", "a glass jar", "a short coat", "torn shirts",
    "warm scarves", "an old boat", "rare cards", "a stone bowl", "a map", "a purse", "carrots",
    "worn carpets", "garden forks", "a board", "turnips", "a pair of gloves", "the guitar", "pears",
    "the sword", "a leather cord",
)  # fmt: skip
PLACES = (
    "near the barn", "at the harbour", "by the river", "on north roads", "in the park",
    "under stairs", "behind the church", "across yards", "at the corner", "in a storm",
    "on the grass", "over water", "by the door", "near the airport", "in the market",
    "past the castle", "along the shore", "at the court", "under a star", "by the arch",
)  # fmt: skip
TIMES = (
    "on Thursday", "after dark", "before four", "in March", "last October", "an hour later",
    "every Saturday", "all year", "in the afternoon", "over the winter", "on her birthday",
    "before the dance", "after the storm", "at half past four", "this morning",
)  # fmt: skip


def draw_sentence(generator: random.Random) -> tuple[str, str, str]:
    """Draw a sentence in three parts, between which a speaker may pause.

    Arguments
    ---------
    generator : random.Random
        Where chance comes from.

    Returns
    -------
    tuple of str
        What is done, where, and when; 2.8 million combinations.

    Example
    -------
    >>> draw_sentence(random.Random(1))
    ('one gardener turned the last cart', 'past the castle', 'an hour later')
    """
    pick = generator.choice
    return f"{pick(SUBJECTS)} {pick(VERBS)} {pick(OBJECTS)}", pick(PLACES), pick(TIMES)
