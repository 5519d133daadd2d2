"""Styles to ask for, worded as MiniFCaps words them; a quarter of the captions is held out."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from speechbrain_clsp.captions.perturbation import AttributeSwap, between_values
from speechbrain_clsp.mini_fcaps.wording import LOUDNESS, NOUNS, PITCH, RATE

GENDERS = ("male", "female")
WORDINGS = {
    "rate": list(RATE.values()),
    "loudness": list(LOUDNESS.values()),
    "pitch": list(PITCH.values()),
}
HELD_OUT_EVERY = 4  # one caption of so many is never trained on
N_DRAWS = 2000  # enough to draw every wording of a style


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
        return _digest(self.caption)[0] % HELD_OUT_EVERY == 0


class TargetStyle:
    """One style to tune a voice to, with all its captions.

    Arguments
    ---------
    gender : str
        Of the voice.
    pitch, loudness : int, optional
        0 low, 1 medium, 2 high; at least one is asked for.

    Raises
    ------
    ValueError
        If neither is given.

    Example
    -------
    >>> TargetStyle("female", pitch=2).held_out_captions
    ['A female speaker speaks in a high-pitched tone.', 'A female speaker speaks in a treble tone.']
    """

    def __init__(self, gender: str, pitch: int | None = None, loudness: int | None = None) -> None:
        levels = {"pitch": pitch, "loudness": loudness}
        self.gender = gender
        self.levels = {name: level for name, level in levels.items() if level is not None}
        if not self.levels:
            raise ValueError("Give --pitch or --loudness: 0 for low, 1 for medium, 2 for high")
        generator = random.Random(0)
        drawn = {_caption(gender, self.levels, generator) for _ in range(N_DRAWS)}
        captions = sorted(drawn, key=_digest)
        n_held_out = max(1, len(captions) // HELD_OUT_EVERY)
        self.held_out_captions = captions[:n_held_out]
        self.train_captions = captions[n_held_out:]


def draw_request(generator: random.Random, held_out: bool, max_attributes: int = 1) -> StyleRequest:
    """Draw a request for a gender and one attribute or more.

    Example
    -------
    >>> draw_request(random.Random(0), held_out=True).is_held_out
    True
    """
    while True:
        gender = generator.choice(GENDERS)
        asked = generator.sample(list(WORDINGS), generator.randint(1, max_attributes))
        levels = {name: generator.randrange(3) for name in asked}
        request = StyleRequest(_caption(gender, levels, generator), gender, levels)
        if request.is_held_out == held_out:
            return request


def contrast_swap() -> AttributeSwap:
    """Return a swap that makes a request's caption false in one of the attributes it names."""
    genders = [NOUNS[gender] for gender in GENDERS]
    return AttributeSwap(between_values({"speaker": genders, **WORDINGS}))


def _caption(gender: str, levels: Mapping[str, int], generator: random.Random) -> str:
    words = {name: generator.choice(WORDINGS[name][level]) for name, level in levels.items()}
    adverbs = [words[name] for name in ("rate", "loudness") if name in words]
    generator.shuffle(adverbs)
    parts = [" and ".join(adverbs)] if adverbs else []
    parts += [f"in a {words['pitch']} tone"] if "pitch" in words else []
    generator.shuffle(parts)
    return " ".join([f"A {generator.choice(NOUNS[gender])} speaks", *parts]) + "."


def _digest(caption: str) -> bytes:
    return hashlib.sha256(caption.encode()).digest()
