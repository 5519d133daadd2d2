"""A synthesizer of five settings: espeak-ng's voice, rate, pitch, range and volume."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from speechbrain_clsp.inference.files import pad
from speechbrain_clsp.mini_fcaps.sentences import draw_sentence
from speechbrain_clsp.mini_fcaps.style import ACCENTS
from speechbrain_clsp.mini_fcaps.synthesis import Synthesizer

ACTIONS = {  # what each setting can be
    "voice": ("m3", "m6", "m7", "f2", "f4", "f5"),
    "rate": (110, 140, 170, 205, 250, 315),  # words per minute
    "pitch": (10, 30, 50, 70, 90),  # of 0 to 99
    "range": (0, 20, 50),  # of 0 to 99
    "volume": (-44.0, -39.0, -34.0, -29.0, -24.0),  # root mean square, dB re full scale
}


def action_sizes() -> list[int]:
    """Return how many choices each setting has."""
    return [len(choices) for choices in ACTIONS.values()]


def draw_action(generator: random.Random) -> tuple[int, ...]:
    """Draw an index for each setting, all equally likely.

    Example
    -------
    >>> len(draw_action(random.Random(0)))
    5
    """
    return tuple(generator.randrange(size) for size in action_sizes())


def draw_text(generator: random.Random) -> str:
    """Draw a sentence to be spoken."""
    return " ".join(draw_sentence(generator))


def speak(text: str, action: Sequence[int], accent: str = "American") -> Tensor:
    """Speak a text; returns [T] float32 at 16 kHz.

    Arguments
    ---------
    text : str
        What is said.
    action : sequence of int
        Index of each setting's choice, in the order of ``ACTIONS``.
    accent : str
        A key of MiniFCaps' ``ACCENTS``.
    """
    chosen = {name: ACTIONS[name][index] for name, index in zip(ACTIONS, action)}
    with Synthesizer() as synthesizer:
        voice = f"{ACCENTS[accent]}+{chosen['voice']}"
        wav = synthesizer.speak(text, voice, chosen["rate"], chosen["pitch"], chosen["range"])
    wav = wav * 10 ** (chosen["volume"] / 20) / np.sqrt(np.mean(wav**2))
    return torch.from_numpy(wav.astype(np.float32))


def gender_of(action: Sequence[int]) -> str:
    """Return ``male`` or ``female``, that of the voice."""
    return "male" if ACTIONS["voice"][action[0]].startswith("m") else "female"


def count_phonemes(text: str) -> int:
    """Return how many phonemes espeak-ng speaks for a text."""
    with Synthesizer() as synthesizer:
        return len(re.sub(r"[\W\d\u02c8\u02cc\u02d0_]", "", synthesizer.phonemes(text, "en-us+m3")))


def speak_all(texts: Sequence[str], actions: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Speak texts; returns [B, T], zero padded, and lengths [B] relative to T."""
    return pad([speak(text, action) for text, action in zip(texts, actions)])


def random_candidates(
    text: str, caption: str, count: int, generator: random.Random
) -> list[tuple[Tensor, str]]:
    """Speak a text with settings by chance, whatever the caption asks for.

    Returns
    -------
    list of tuple
        Waveform [T] at 16 kHz and the voice's gender, ``count`` times.
    """
    actions = [draw_action(generator) for _ in range(count)]
    return [(speak(text, action), gender_of(action)) for action in actions]
