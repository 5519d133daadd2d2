"""What a clip of MiniFCaps sounds like: every attribute that can be heard, and nothing else.

Authors
 * The speechbrain-clsp authors 2026
"""

from __future__ import annotations

import random
from dataclasses import dataclass

KINDS = {"male": 0.39, "female": 0.39, "whisper": 0.11, "croak": 0.11}
VARIANTS = {
    "male": ("m2", "m3", "m5", "m6", "m7"),
    "female": ("f1", "f2", "f3", "f4", "f5"),
    "whisper": ("whisper", "whisperf"),
    "croak": ("croak",),
}
ACCENTS = {
    "American": "en-us",
    "British": "en-gb-x-rp",
    "Scottish": "en-gb-scotland",
    "Caribbean": "en-029",
}
RATES = ("slow", "measured", "fast")
PITCHES = ("low", "medium", "high")
LOUDNESSES = ("quiet", "moderate", "loud")
EXPRESSIVENESSES = ("monotone", "natural", "lively")
LEVELS = {"rate": RATES, "pitch": PITCHES, "loudness": LOUDNESSES}

# Bands that settings are drawn from; neighbours lie far enough apart to be heard.
WORDS_PER_MINUTE = {"slow": (120, 132), "measured": (180, 198), "fast": (275, 305)}
PITCH_SETTING = {"low": (12, 22), "medium": (52, 60), "high": (92, 99)}  # espeak, 0..99
RANGE_SETTING = {"monotone": 0, "natural": 50, "lively": 99}  # espeak, 0..99
# A wider range also lifts espeak's mean pitch; this much less on the pitch setting undoes it.
RANGE_COMPENSATION = {"monotone": 7, "natural": 0, "lively": -7}
LEVEL_DBFS = {"quiet": (-41.0, -38.0), "moderate": (-31.0, -28.0), "loud": (-21.0, -18.0)}  # rms

CHANGE_PROBABILITY = 0.42
PAUSE_PROBABILITY = 0.3


@dataclass(frozen=True)
class Change:
    """One attribute that goes from one level to another at one point of the utterance.

    Arguments
    ---------
    dimension : str
        ``rate``, ``pitch`` or ``loudness``.
    before, after : str
        Levels of that dimension.
    """

    dimension: str
    before: str
    after: str

    @property
    def rises(self) -> bool:
        """Whether it goes faster, higher or louder."""
        levels = LEVELS[self.dimension]
        return levels.index(self.after) > levels.index(self.before)


@dataclass(frozen=True)
class Style:
    """How a clip is spoken. An attribute that changes or cannot be heard is None.

    A whisper has neither pitch nor expressiveness nor gender; a croak hides all three.

    Arguments
    ---------
    kind : str
        ``male``, ``female``, ``whisper`` or ``croak``.
    accent : str
        A key of ``ACCENTS``.
    rate, pitch, loudness, expressiveness : str or None
        Levels.
    change : Change or None
        What changes inside the utterance.
    pause : bool
        Whether there is a clear pause.

    Example
    -------
    >>> style = draw_style(random.Random(0))
    >>> style.signature == draw_style(random.Random(0)).signature
    True
    """

    kind: str
    accent: str
    rate: str | None
    pitch: str | None
    loudness: str | None
    expressiveness: str | None
    change: Change | None
    pause: bool

    @property
    def signature(self) -> tuple:
        """All that a global caption states: equal signatures have interchangeable captions."""
        change = (self.change.dimension, self.change.rises) if self.change else None
        levels = (self.rate, self.pitch, self.loudness, self.expressiveness)
        return (self.kind, self.accent, *levels, change)

    def level(self, dimension: str, after_change: bool) -> str | None:
        """Return a dimension's level in the part before or after the change."""
        if self.change is not None and self.change.dimension == dimension:
            return self.change.after if after_change else self.change.before
        return getattr(self, dimension)


def draw_style(generator: random.Random) -> Style:
    """Draw a style.

    Arguments
    ---------
    generator : random.Random
        Where chance comes from.

    Returns
    -------
    Style
        With every attribute that its kind of voice lets one hear.
    """
    kind = generator.choices(list(KINDS), list(KINDS.values()))[0]
    pitched = kind in ("male", "female")
    change = None
    if generator.random() < CHANGE_PROBABILITY:
        dimension = generator.choice(
            ["rate", "pitch", "loudness"] if pitched else ["rate", "loudness"]
        )
        change = Change(dimension, *generator.sample(LEVELS[dimension], 2))
    levels = {name: generator.choice(choices) for name, choices in LEVELS.items()}
    levels["expressiveness"] = generator.choice(EXPRESSIVENESSES)
    if not pitched:
        levels["pitch"] = levels["expressiveness"] = None
    if change is not None:
        levels[change.dimension] = None
        if change.dimension == "pitch":  # a jump in pitch is neither monotone nor lively
            levels["expressiveness"] = None
    accent = generator.choice(list(ACCENTS))
    return Style(
        kind, accent, **levels, change=change, pause=generator.random() < PAUSE_PROBABILITY
    )
