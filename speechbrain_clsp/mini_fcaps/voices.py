"""Voices of MiniFCaps, and the espeak settings that give each a wanted pitch.

The same pitch and range settings give different pitches for different voices. The constants here
were fitted to the median and the spread of the fundamental frequency, measured over four accents;
the median is reached within a few percent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# ln(F0 / F0 at setting 50) = _SLOPE * x + _BEND * x**2 with x = setting - 50, for every voice.
_SLOPE, _BEND = 1.142e-2, 1.54e-5
MAX_SETTING = 99


@dataclass(frozen=True)
class Voice:
    """An espeak voice variant and how its pitch follows the settings.

    Example
    -------
    >>> Voice("f4", base=160.0, lift=0.384, spread=10.7).settings(hertz=160.0, semitones=0.0)
    (50, 0)
    """

    variant: str  # espeak's name of it
    base: float  # median F0 [Hz] at pitch setting 50 and range setting 0
    lift: float  # Hz that each step of the range setting adds to the median F0
    spread: float  # 10th to 90th percentile of F0 [semitones], times F0 [Hz], per range step

    def settings(self, hertz: float, semitones: float) -> tuple[int, int]:
        """Return espeak's pitch and range settings for a median and a spread of F0.

        They are 0 to 99, the nearest ones if the pitch is out of reach. The spread is that between
        the 10th and the 90th percentile.
        """
        pitch_range = min(round(semitones * hertz / self.spread), MAX_SETTING)
        monotone_hertz = max(hertz - self.lift * pitch_range, 1.0)
        discriminant = _SLOPE**2 + 4 * _BEND * math.log(monotone_hertz / self.base)
        steps = (math.sqrt(max(discriminant, 0.0)) - _SLOPE) / (2 * _BEND)
        return min(max(round(50 + steps), 0), MAX_SETTING), pitch_range


# Variants whose timbre tells the gender at any pitch (not m1, m4, m5, m8, f1), whose pitch is
# unambiguous (not f3, which adds an octave below) and whose range is wide enough (not m2).
VOICES = {
    "male": (
        Voice("m3", base=88.5, lift=0.317, spread=7.2),
        Voice("m6", base=88.6, lift=0.250, spread=6.1),
        Voice("m7", base=85.7, lift=0.380, spread=8.5),
    ),
    "female": (
        Voice("f2", base=165.7, lift=0.563, spread=13.8),
        Voice("f4", base=160.0, lift=0.384, spread=10.7),
        Voice("f5", base=181.4, lift=0.460, spread=12.0),
    ),
    # Noise excitation: the pitch of these constants is not audible.
    "whisper": (
        Voice("whisper", base=100.0, lift=0.3, spread=7.0),
        Voice("whisperf", base=100.0, lift=0.3, spread=7.0),
    ),
    "croak": (Voice("croak", base=92.4, lift=0.229, spread=6.0),),
}
