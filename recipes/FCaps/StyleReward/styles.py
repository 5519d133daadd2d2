"""Styles that one may ask for, worded as MiniFCaps words them, and whether a clip has them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from speechbrain_clsp.captions.perturbation import AttributeSwap, between_values
from speechbrain_clsp.mini_fcaps.acoustics import (
    GENDERS,
    LOUDNESS_BOUNDS,
    PITCH_BOUNDS,
    decibels,
    median_pitch,
    pitch_spread,
    spectral_tilt,
)
from speechbrain_clsp.mini_fcaps.wording import LOUDNESS, NOUNS, PITCH, RATE

WORDINGS = {
    "rate": list(RATE.values()),
    "loudness": list(LOUDNESS.values()),
    # Not "low" and "high", which are also said of the volume.
    "pitch": [[word for word in words if word not in ("low", "high")] for words in PITCH.values()],
}
UNITS = {  # of what is measured
    "rate": "phonemes per second",
    "loudness": "dB",
    "pitch": "Hz",
    "spread": "semitones",
    "tilt": "dB above 1 kHz",
    "words": "% of words wrong",  # where there is a recognizer
}
PHONEME_RATE_BOUNDS = (13.1, 20.1)  # phonemes per second between MiniFCaps' levels
HELD_OUT_SHARE = 4  # one caption in so many is never trained on
MANY = 2000  # draws that give all wordings of a style


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
        0, 1 or 2 by attribute (those of ``WORDINGS``), for those that are asked for.
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


def captions_of(gender: str, levels: Mapping[str, int]) -> dict[str, list[str]]:
    """Return all wordings of a style, a quarter of them (one at least) held out.

    Example
    -------
    >>> captions_of("female", {"pitch": 2})["held_out"]
    ['A female speaker speaks in a high-pitched tone.']
    """
    draw = random.Random(0)
    drawn = {_caption(gender, levels, draw) for _ in range(MANY)}
    ordered = sorted(drawn, key=lambda caption: hashlib.sha256(caption.encode()).digest())
    count = max(1, len(ordered) // HELD_OUT_SHARE)
    return {"train": ordered[count:], "held_out": ordered[:count]}


def _caption(gender: str, levels: Mapping[str, int], generator: random.Random) -> str:
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


def measure(wav: np.ndarray, phonemes: int) -> dict[str, float]:
    """Measure a clip; see ``UNITS``.

    Arguments
    ---------
    wav : numpy.ndarray
        [T] float64 at 16 kHz.
    phonemes : int
        How many are spoken.

    Returns
    -------
    dict
        Phonemes per second, root mean square, median and spread of F0 (NaN without a pitch), and
        spectral tilt.
    """
    return {
        "rate": phonemes / (len(wav) / 16000),
        "loudness": decibels(wav),
        "pitch": median_pitch(wav),
        "spread": pitch_spread(wav),
        "tilt": spectral_tilt(wav),
    }


def is_met(request: StyleRequest, measured: Mapping[str, float], gender: str) -> dict[str, bool]:
    """Tell by attribute whether a clip has what was asked for.

    Arguments
    ---------
    request : StyleRequest
        What was asked for.
    measured : dict
        As :func:`measure` returns it.
    gender : str
        That of the voice that speaks.

    Example
    -------
    >>> request = StyleRequest("A man speaks loudly.", "male", {"loudness": 2})
    >>> is_met(request, {"loudness": -25.0}, "female")
    {'gender': False, 'loudness': True}
    """
    bounds = {
        "rate": PHONEME_RATE_BOUNDS,
        "loudness": LOUDNESS_BOUNDS,
        "pitch": PITCH_BOUNDS[gender],
    }
    return {
        "gender": gender == request.gender,
        **{
            name: not np.isnan(measured[name])
            and int(np.searchsorted(bounds[name], measured[name])) == level
            for name, level in request.levels.items()
        },
    }
