"""Style of a MiniFCaps clip: all attributes that are audible in it, and no others."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

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
PLACES = ("early", "middle", "late")
NO_PAUSE = "none"

# Ranges that settings are drawn from; neighbors are far enough apart to be told by ear.
WORDS_PER_MINUTE = {"slow": (134, 146), "measured": (200, 218), "fast": (300, 330)}
PITCH_HERTZ = {  # median F0
    "male": {"low": (76.0, 86.0), "medium": (104.0, 116.0), "high": (145.0, 162.0)},
    "female": {"low": (142.0, 154.0), "medium": (190.0, 210.0), "high": (265.0, 290.0)},
}
SPREAD_SEMITONES = {  # of F0, 10th to 90th percentile
    "monotone": (0.0, 0.0), "natural": (1.2, 1.5), "lively": (3.6, 4.2)
}  # fmt: skip
# RMS. Recordings of people lie between -30 and -15. Peaks of speech lie up to 22 dB above their
# level: those of loud clips that go beyond full scale are clipped.
LEVEL_DBFS = {"quiet": (-39.0, -36.0), "moderate": (-29.5, -26.5), "loud": (-20.0, -17.0)}

CHANGE_PROBABILITY = 0.52
TWO_CHANGES_PROBABILITY = 0.25  # of the clips with a change
PAUSE_PROBABILITY = 0.3


@dataclass(frozen=True)
class Change:
    """Change of one attribute from one level to another at one point of the utterance.

    Example
    -------
    >>> Change("rate", "slow", "fast").exchanged()
    Change(dimension='rate', before='fast', after='slow')
    """

    dimension: str  # rate, pitch or loudness
    before: str
    after: str

    @property
    def rises(self) -> bool:
        """Whether the speech gets faster, higher or louder."""
        levels = LEVELS[self.dimension]
        return levels.index(self.after) > levels.index(self.before)

    def exchanged(self) -> Change:
        """Return the change between the same levels in the other direction."""
        return Change(self.dimension, self.after, self.before)


@dataclass(frozen=True)
class Style:
    """How a clip is spoken; an attribute that changes or is not audible is None.

    Arguments
    ---------
    kind : str
        Of voice: ``male``, ``female``, ``whisper`` or ``croak``. Whispers and croaks have no
        audible pitch, expressiveness or gender.
    accent : str
        A key of ``ACCENTS``.
    rate, pitch, loudness, expressiveness : str or None
        Levels, of ``RATES``, ``PITCHES``, ``LOUDNESSES`` and ``EXPRESSIVENESSES``.
    changes : tuple of Change
        None, one, or two at the same point.
    change_place : str or None
        One of ``PLACES``; None without a change, or if it is not stated.
    pause : str or None
        One of ``PLACES`` or ``none``; None if it is not stated.

    Example
    -------
    >>> style = draw_style("female", random.Random(0))
    >>> style.signature == draw_style("female", random.Random(0)).signature
    True
    """

    kind: str
    accent: str
    rate: str | None
    pitch: str | None
    loudness: str | None
    expressiveness: str | None
    changes: tuple[Change, ...] = ()
    change_place: str | None = None
    pause: str | None = None

    @property
    def signature(self) -> tuple:
        """All that a global caption states; clips of equal signatures could swap captions."""
        levels = (self.rate, self.pitch, self.loudness, self.expressiveness)
        directions = tuple((change.dimension, change.rises) for change in self.changes)
        return (self.kind, self.accent, *levels, directions)

    @property
    def change(self) -> Change | None:
        """The change, if there is exactly one."""
        return self.changes[0] if len(self.changes) == 1 else None

    def level(self, dimension: str, after_change: bool) -> str | None:
        """Return a dimension's level in the part before or after the change."""
        for change in self.changes:
            if change.dimension == dimension:
                return change.after if after_change else change.before
        return getattr(self, dimension)

    def direction(self, dimension: str) -> str | None:
        """Return how a dimension changes: ``none``, ``rising`` or ``falling``.

        It is None if the dimension is not audible.

        Example
        -------
        >>> whisper = Style("whisper", "British", None, None, "loud", None,
        ...                 changes=(Change("rate", "slow", "fast"),), change_place="early")
        >>> [whisper.direction(name) for name in LEVELS]
        ['rising', None, 'none']
        """
        for change in self.changes:
            if change.dimension == dimension:
                return "rising" if change.rises else "falling"
        return None if getattr(self, dimension) is None else "none"

    def exchanged(self, *dimensions: str) -> Style:
        """Return the style in which the changes of these dimensions have the other direction."""
        changes = tuple(
            change.exchanged() if change.dimension in dimensions else change
            for change in self.changes
        )
        return replace(self, changes=changes)


def draw_style(kind: str, generator: random.Random) -> Style:
    """Draw a style with every attribute that is audible in its kind of voice.

    Arguments
    ---------
    kind : str
        Of voice: ``male``, ``female``, ``whisper`` or ``croak``.
    generator : random.Random
        Draws it.

    Returns
    -------
    Style
        With one change, two or none.

    Example
    -------
    >>> style = draw_style("whisper", random.Random(1))
    >>> style.accent, style.pitch, style.changes
    ('Caribbean', None, (Change(dimension='rate', before='measured', after='slow'),))
    """
    pitched = kind in PITCH_HERTZ
    changes: tuple[Change, ...] = ()
    if generator.random() < CHANGE_PROBABILITY:
        audible = [name for name in LEVELS if pitched or name != "pitch"]
        number = 2 if generator.random() < TWO_CHANGES_PROBABILITY else 1
        dimensions = sorted(generator.sample(audible, number), key=audible.index)
        changes = tuple(Change(name, *generator.sample(LEVELS[name], 2)) for name in dimensions)
    levels: dict[str, str | None] = {
        name: generator.choice(choices) for name, choices in LEVELS.items()
    }
    levels["expressiveness"] = generator.choice(EXPRESSIVENESSES)
    if not pitched:
        levels["pitch"] = levels["expressiveness"] = None
    for change in changes:
        levels[change.dimension] = None
        if change.dimension == "pitch":  # a jump in pitch is neither monotone nor lively
            levels["expressiveness"] = None
    return Style(
        kind,
        generator.choice(list(ACCENTS)),
        **levels,
        changes=changes,
        change_place=generator.choice(PLACES) if changes else None,
        pause=generator.choice(PLACES) if generator.random() < PAUSE_PROBABILITY else NO_PAUSE,
    )
