"""Neutral sentences for MiniFCaps, rich in sounds in which English accents differ.

Their content words do not occur in captions.
"""

from __future__ import annotations

import random

SUBJECTS = (
    "farmers", "barbers", "fathers", "nurses", "carvers", "sailors", "bakers", "porters", "girls",
    "teachers", "drivers", "brothers", "mothers", "doctors", "hunters", "painters", "lawyers",
    "potters", "gardeners", "dancers", "the boarders", "the rowers", "our partners", "her sisters",
)  # fmt: skip
VERBS = (
    "carried", "ordered", "guarded", "borrowed", "bought", "stored", "marked", "turned", "repaired",
    "returned", "adored", "admired", "discovered", "delivered", "purchased", "wanted", "bartered",
    "covered",
)  # fmt: skip
OBJECTS = (
    "a dark car", "a bird bath", "the third cart", "a glass jar", "a short coat", "torn shirts",
    "warm scarves", "an old boat", "rare cards", "a stone bowl", "four maps", "a purse", "carrots",
    "worn carpets", "garden forks", "a board", "turnips", "a pair of gloves", "the guitar", "pears",
    "the sword", "a leather cord",
)  # fmt: skip
PLACES = (
    "beside the barn", "at the harbour", "by the river", "on the north road", "in the park",
    "under the stairs", "behind the church", "across the yard", "at the corner", "in the garage",
    "on the grass", "over the water", "by the door", "at the airport", "in the market",
    "past the castle", "along the shore", "at the court", "under the stars", "by the arch",
)  # fmt: skip
TIMES = (
    "on Thursday", "before dark", "before four", "in March", "in October", "an hour later",
    "every Saturday", "each year", "in the afternoon", "over the winter", "on her birthday",
    "before the dance", "during the storm", "at a quarter past four", "this morning",
)  # fmt: skip


def draw_sentence(generator: random.Random) -> tuple[str, str, str]:
    """Draw a sentence in three parts, between which a speaker may pause.

    They are action, place and time, in one of three orders; there are 8.5 million combinations.

    Example
    -------
    >>> draw_sentence(random.Random(1))
    ('each year', 'carvers guarded rare cards', 'on the north road')
    """
    pick = generator.choice
    action = f"{pick(SUBJECTS)} {pick(VERBS)} {pick(OBJECTS)}"
    place, time = pick(PLACES), pick(TIMES)
    return pick(((action, place, time), (time, action, place), (time, place, action)))
