"""Style of a MiniFCaps clip: all attributes that are audible in it, and no others."""

from __future__ import annotations

import random
from dataclasses import dataclass

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

# Ranges that settings are drawn from; neighbors are far enough apart to be told by ear.
WORDS_PER_MINUTE = {"slow": (134, 146), "measured": (200, 218), "fast": (300, 330)}
PITCH_HERTZ = {  # median F0
    "male": {"low": (76.0, 86.0), "medium": (104.0, 116.0), "high": (145.0, 162.0)},
    "female": {"low": (142.0, 154.0), "medium": (190.0, 210.0), "high": (265.0, 290.0)},
}
SPREAD_SEMITONES = {  # of F0, 10th to 90th percentile
    "monotone": (0.0, 0.0), "natural": (1.2, 1.5), "lively": (3.6, 4.2)
}  # fmt: skip
# RMS; the peaks of speech lie up to 22 dB above it, and must stay below full scale.
LEVEL_DBFS = {"quiet": (-45.0, -42.0), "moderate": (-35.5, -32.5), "loud": (-26.0, -23.0)}

CHANGE_PROBABILITY = 0.42
PAUSE_PROBABILITY = 0.3


@dataclass(frozen=True)
class Change:
    """Change of one attribute from one level to another at one point of the utterance."""

    dimension: str  # rate, pitch or loudness
    before: str
    after: str

    @property
    def rises(self) -> bool:
        """Whether the speech gets faster, higher or louder."""
        levels = LEVELS[self.dimension]
        return levels.index(self.after) > levels.index(self.before)


@dataclass(frozen=True)
class Style:
    """How a clip is spoken; an attribute that changes or is not audible is None.

    Whispers and croaks have no audible pitch, expressiveness or gender.

    Example
    -------
    >>> style = draw_style("female", random.Random(0))
    >>> style.signature == draw_style("female", random.Random(0)).signature
    True
    """

    kind: str  # male, female, whisper or croak
    accent: str  # a key of ``ACCENTS``
    rate: str | None
    pitch: str | None
    loudness: str | None
    expressiveness: str | None
    change: Change | None
    pause: bool  # whether there is a clear one

    @property
    def signature(self) -> tuple:
        """All that a global caption states; clips of equal signatures could swap captions."""
        change = (self.change.dimension, self.change.rises) if self.change else None
        levels = (self.rate, self.pitch, self.loudness, self.expressiveness)
        return (self.kind, self.accent, *levels, change)

    def level(self, dimension: str, after_change: bool) -> str | None:
        """Return a dimension's level in the part before or after the change."""
        if self.change is not None and self.change.dimension == dimension:
            return self.change.after if after_change else self.change.before
        return getattr(self, dimension)


def draw_style(kind: str, generator: random.Random) -> Style:
    """Draw a style with every attribute that is audible in its kind of voice."""
    pitched = kind in PITCH_HERTZ
    change = None
    if generator.random() < CHANGE_PROBABILITY:
        dimension = generator.choice([name for name in LEVELS if pitched or name != "pitch"])
        change = Change(dimension, *generator.sample(LEVELS[dimension], 2))
    levels: dict[str, str | None] = {
        name: generator.choice(choices) for name, choices in LEVELS.items()
    }
    levels["expressiveness"] = generator.choice(EXPRESSIVENESSES)
    if not pitched:
        levels["pitch"] = levels["expressiveness"] = None
    if change is not None:
        levels[change.dimension] = None
        if change.dimension == "pitch":  # a jump in pitch is neither monotone nor lively
            levels["expressiveness"] = None
    return Style(
        kind,
        generator.choice(list(ACCENTS)),
        **levels,
        change=change,
        pause=generator.random() < PAUSE_PROBABILITY,
    )
