"""A synthesizer of five settings: espeak-ng's voice, rate, pitch, range and volume."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from speechbrain_clsp.mini_fcaps.sentences import draw_sentence
from speechbrain_clsp.mini_fcaps.synthesis import Synthesizer

SETTINGS = {
    "voice": ("m3", "m6", "m7", "f2", "f4", "f5"),
    "rate": (110, 140, 170, 205, 250, 315),  # words per minute
    "pitch": (10, 30, 50, 70, 90),  # of 0 to 99
    "range": (0, 20, 50),  # of 0 to 99
    "volume": (-38.0, -33.0, -28.0, -23.0, -18.0),  # root mean square, dB re full scale
}


def setting_sizes() -> list[int]:
    """Return how many values each setting has."""
    return [len(values) for values in SETTINGS.values()]


def draw_action(generator: random.Random) -> tuple[int, ...]:
    """Draw the index of a value for each setting, all equally likely.

    Example
    -------
    >>> len(draw_action(random.Random(0)))
    5
    """
    return tuple(generator.randrange(size) for size in setting_sizes())


def draw_text(generator: random.Random) -> str:
    """Draw a sentence to be spoken."""
    return " ".join(draw_sentence(generator))


def speak(text: str, action: Sequence[int]) -> tuple[Tensor, str]:
    """Speak a text.

    Arguments
    ---------
    text : str
        What is said.
    action : sequence of int
        Index of each setting's value, in the order of ``SETTINGS``.

    Returns
    -------
    wav : Tensor
        [T] float32 at 16 kHz.
    gender : str
        ``male`` or ``female``, that of the voice.
    """
    chosen = {name: SETTINGS[name][index] for name, index in zip(SETTINGS, action)}
    with Synthesizer() as synthesizer:
        voice = f"en-us+{chosen['voice']}"
        wav = synthesizer.speak(text, voice, chosen["rate"], chosen["pitch"], chosen["range"])
    wav = wav * 10 ** (chosen["volume"] / 20) / np.sqrt(np.mean(wav**2))
    gender = "male" if chosen["voice"].startswith("m") else "female"
    return torch.from_numpy(wav.astype(np.float32)).clamp(-1.0, 1.0), gender


def count_phonemes(text: str) -> int:
    """Return how many phonemes espeak-ng speaks for a text."""
    with Synthesizer() as synthesizer:
        return len(re.sub(r"[\W\d\u02c8\u02cc\u02d0_]", "", synthesizer.phonemes(text, "en-us+m3")))


def random_candidates(
    text: str, caption: str, count: int, generator: random.Random
) -> list[tuple[Tensor, str]]:
    """Speak a text ``count`` times with random settings; returns as :func:`speak` does.

    The caption is not read: it is for synthesizers that take one.
    """
    actions = [draw_action(generator) for _ in range(count)]
    return [speak(text, action) for action in actions]
