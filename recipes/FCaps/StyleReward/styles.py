"""Styles that one may ask for, worded as MiniFCaps words them, and whether a clip has them.

Authors
 * The speechbrain-clsp authors 2026
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field

import numpy as np

from speechbrain_clsp.dataio.perturbation import AttributeSwap, between_values
from speechbrain_clsp.mini_fcaps.captions import LOUDNESS, NOUNS, PITCH, RATE
from speechbrain_clsp.mini_fcaps.listening import (
    GENDERS,
    LOUDNESS_BOUNDS,
    PITCH_BOUNDS,
    decibels,
    median_pitch,
)

WORDINGS = {
    "rate": list(RATE.values()),
    "loudness": list(LOUDNESS.values()),
    # Not "low" and "high", which are also said of the volume.
    "pitch": [[word for word in words if word not in ("low", "high")] for words in PITCH.values()],
}
PHONEME_RATE_BOUNDS = (13.1, 20.1)  # phonemes per second between MiniFCaps' levels
HELD_OUT_SHARE = 4  # one caption in so many is never trained on


@dataclass(frozen=True)
class StyleRequest:
    """A caption and what it asks for.

    Arguments
    ---------
    caption : str
        Such as ``A woman speaks quickly in a deep tone.``
    gender : str
        ``male`` or ``female``, always asked for: a pitch is low for a man or for a woman.
    levels : dict
        0, 1 or 2 by attribute (``rate``, ``pitch``, ``loudness``), those that are asked for.
    """

    caption: str
    gender: str
    levels: dict[str, int] = field(hash=False)

    @property
    def is_held_out(self) -> bool:
        """Whether it is kept for tests, by its words."""
        return hashlib.sha256(self.caption.encode()).digest()[0] % HELD_OUT_SHARE == 0


def draw_request(generator: random.Random, held_out: bool, most: int = 1) -> StyleRequest:
    """Draw a request for a gender and one attribute up to ``most``.

    Example
    -------
    >>> draw_request(random.Random(0), held_out=True).is_held_out
    True
    """
    while True:
        gender = generator.choice(list(GENDERS))
        asked = generator.sample(list(WORDINGS), generator.randint(1, most))
        levels = {name: generator.randrange(3) for name in asked}
        request = StyleRequest(_caption(gender, levels, generator), gender, levels)
        if request.is_held_out == held_out:
            return request


def _caption(gender: str, levels: dict[str, int], generator: random.Random) -> str:
    words = {name: generator.choice(WORDINGS[name][level]) for name, level in levels.items()}
    adverbs = [words[name] for name in ("rate", "loudness") if name in words]
    generator.shuffle(adverbs)
    parts = [" and ".join(adverbs)] if adverbs else []
    parts += [f"in a {words['pitch']} tone"] if "pitch" in words else []
    generator.shuffle(parts)
    return " ".join([f"A {generator.choice(NOUNS[gender])} speaks", *parts]) + "."


def contrast_swap() -> AttributeSwap:
    """Return what makes a request's caption false in one of the attributes that it asks for."""
    genders = [NOUNS[gender] for gender in GENDERS]
    return AttributeSwap(between_values({"speaker": genders, **WORDINGS}))


def is_met(request: StyleRequest, wav: np.ndarray, phonemes: int, gender: str) -> dict[str, bool]:
    """Measure whether a clip has what was asked for, by attribute.

    Arguments
    ---------
    request : StyleRequest
        What was asked for.
    wav : numpy.ndarray
        [T] float64 at 16 kHz.
    phonemes : int
        How many are spoken.
    gender : str
        That of the voice that speaks.
    """
    met = {"gender": gender == request.gender}
    for name, level in request.levels.items():
        if name == "rate":
            value, bounds = phonemes / (len(wav) / 16000), PHONEME_RATE_BOUNDS
        elif name == "loudness":
            value, bounds = decibels(wav), LOUDNESS_BOUNDS
        else:
            value, bounds = median_pitch(wav), PITCH_BOUNDS[gender]
        met[name] = int(np.searchsorted(bounds, value)) == level
    return met
