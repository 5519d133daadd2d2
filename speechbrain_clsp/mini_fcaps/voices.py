"""Voices of MiniFCaps, and the espeak settings that give each a wanted pitch.

The same pitch and range settings give different pitches for different voices. The constants here
were fitted to the median and the spread of the fundamental frequency, measured over four accents;
the median is reached within a few percent.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

# ln(F0 / F0 at setting 50) = _SLOPE * x + _BEND * x**2 with x = setting - 50, for every voice.
_SLOPE, _BEND = 1.142e-2, 1.54e-5
MAX_SETTING = 99


@dataclass(frozen=True)
class Voice:
    """An espeak voice variant and how its pitch follows the settings.

    Arguments
    ---------
    variant : str
        Espeak's name of it.
    base : float
        Median F0 [Hz] at pitch setting 50 and range setting 0.
    lift : float
        Hz that each step of the range setting adds to the median F0.
    spread : float
        10th to 90th percentile of F0 [semitones], times F0 [Hz], per step of the range setting.
    formants : float
        Factor of the formant frequencies, by playback at another rate.

    Example
    -------
    >>> Voice("f4", base=160.0, lift=0.384, spread=10.7).settings(hertz=160.0, semitones=0.0)
    (50, 0)
    """

    variant: str
    base: float
    lift: float
    spread: float
    formants: float = 1.0

    def with_formants(self, factor: float) -> Voice:
        """Return the voice of a shorter (factor above 1) or longer vocal tract.

        Its speech is synthesized lower and slower, and played back faster by ``factor``.

        Example
        -------
        >>> Voice("f4", 160.0, 0.384, 10.7).with_formants(1.1).settings(176.0, 0.0)
        (50, 0)
        """
        base, lift, spread = (factor * value for value in (self.base, self.lift, self.spread))
        return Voice(self.variant, base, lift, spread, factor * self.formants)

    def reaches(self, hertz: float, semitones: float) -> bool:
        """Return whether there are settings that give this median and spread of F0."""
        pitch, _ = self.settings(hertz, semitones)
        return 0 < pitch < MAX_SETTING

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

# For training clips, more voices. A male voice has the formants of a man: lower than its variant's
# if that is female; and the other way around.
_MORE_VOICES = {
    "male": (
        *VOICES["male"],
        Voice("m8", base=73.6, lift=0.254, spread=7.1),
        Voice("Denis", base=87.6, lift=0.234, spread=6.9),
        Voice("Diogo", base=92.0, lift=0.259, spread=7.9),
        Voice("Gene", base=85.3, lift=0.203, spread=5.7),
        Voice("sandro", base=86.6, lift=0.257, spread=7.0),
        Voice("victor", base=85.3, lift=0.203, spread=5.8),
        Voice("norbert", base=90.2, lift=0.240, spread=6.3),
        Voice("iven2", base=86.0, lift=0.305, spread=8.4),
        Voice("klatt4", base=89.0, lift=0.248, spread=7.7),
        Voice("klatt5", base=89.0, lift=0.256, spread=7.7),
        Voice("adam", base=89.0, lift=0.247, spread=8.2),
        Voice("RicishayMax2", base=89.2, lift=0.277, spread=6.5),
        Voice("antonio", base=95.0, lift=0.333, spread=7.1),
        Voice("Nguyen", base=124.0, lift=0.549, spread=16.0),
        Voice("f2", base=165.7, lift=0.563, spread=13.8).with_formants(0.9),
        Voice("f4", base=160.0, lift=0.384, spread=10.7).with_formants(0.84),
        Voice("f5", base=181.4, lift=0.460, spread=12.0).with_formants(0.9),
    ),
    "female": (
        *VOICES["female"],
        Voice("Andrea", base=222.0, lift=0.488, spread=9.8),
        Voice("Alicia", base=216.1, lift=0.702, spread=17.6).with_formants(0.9),
        Voice("belinda", base=213.3, lift=0.326, spread=9.4).with_formants(0.95),
        Voice("linda", base=213.3, lift=0.317, spread=9.6).with_formants(0.95),
        Voice("steph", base=173.2, lift=0.223, spread=6.7),
        *(
            Voice(variant, base, lift, spread).with_formants(1.16)
            for variant, base, lift, spread in (
                ("klatt4", 89.0, 0.248, 7.7),
                ("iven2", 86.0, 0.305, 8.4),
                ("antonio", 95.0, 0.333, 7.1),
                ("Nguyen", 124.0, 0.549, 16.0),
            )
        ),
    ),
}
_VOCAL_TRACT = (0.92, 1.06)  # factors of the formants of one voice


def draw_voice(
    kind: str, hertz: Sequence[float], semitones: float, generator: random.Random
) -> Voice:
    """Draw a voice, with a vocal tract of its own length, for training.

    Arguments
    ---------
    kind : str
        A key of ``VOICES``.
    hertz : sequence of float
        Medians of F0 that the voice reaches.
    semitones : float
        Spread of F0 that it reaches at them, 10th to 90th percentile.
    generator : random.Random
        Draws it.

    Example
    -------
    >>> voice = draw_voice("female", [265.0, 290.0], 1.5, random.Random(0))
    >>> 0.8 < voice.formants < 1.3
    True
    """
    factor = generator.uniform(*_VOCAL_TRACT)
    voices = [voice.with_formants(factor) for voice in _MORE_VOICES.get(kind, VOICES[kind])]
    return generator.choice([v for v in voices if all(v.reaches(h, semitones) for h in hertz)])
