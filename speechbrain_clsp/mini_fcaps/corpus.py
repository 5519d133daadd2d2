"""MiniFCaps clip by clip: planning, rendering and the manifest row.

A clip's sound and captions are functions of its plan alone, so clips can be made in any order and
in any process, and again after an interruption.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

import numpy as np

from speechbrain_clsp.dataio.audio import SAMPLE_RATE
from speechbrain_clsp.mini_fcaps.sentences import draw_sentence
from speechbrain_clsp.mini_fcaps.style import (
    ACCENTS,
    LEVEL_DBFS,
    PITCH_HERTZ,
    SPREAD_SEMITONES,
    WORDS_PER_MINUTE,
    Style,
    draw_style,
)
from speechbrain_clsp.mini_fcaps.synthesis import Synthesizer
from speechbrain_clsp.mini_fcaps.voices import VOICES, Voice
from speechbrain_clsp.mini_fcaps.wording import fine_caption, global_caption

# Probabilities of the kinds of voice. Whisper and croak have fewer signatures: fewer are held out.
TRAIN_KINDS = {"male": 0.38, "female": 0.38, "whisper": 0.14, "croak": 0.10}
HELD_OUT_KINDS = {"male": 0.455, "female": 0.455, "whisper": 0.045, "croak": 0.045}
MAX_HELD_OUT = 1000  # valid and test clips; more would leave few signatures for training

GAP_SECONDS = 0.06  # between parts that follow each other
PAUSE_SECONDS = (0.45, 0.65)
# Place of a boundary, as a fraction of the speaking time; sentences with others are redrawn.
PLACES = {"early": (0.0, 0.36), "middle": (0.44, 0.56), "late": (0.64, 1.0)}
SPEAKING_SECONDS = (1.3, 2.8)
MIN_SECONDS_BESIDE_CHANGE = 0.5
# At one word per minute; measured. The first is what the end of a phrase adds.
SECONDS_PER_PHRASE, SECONDS_PER_CHARACTER = 10.0, 8.6
CHANGE_LABELS = {
    ("rate", True): "faster",
    ("rate", False): "slower",
    ("pitch", True): "rising pitch",
    ("pitch", False): "falling pitch",
    ("loudness", True): "louder",
    ("loudness", False): "softer",
}


@dataclass(frozen=True)
class Part:
    """A stretch of speech with constant settings, followed by silence."""

    text: str
    rate: int  # this and the next two are espeak's settings
    pitch: int
    pitch_range: int
    level: float  # root mean square, in dB re full scale
    silence: float  # seconds after it


@dataclass(frozen=True)
class PlannedClip:
    """All that determines a clip."""

    id: str  # name of the clip and of its file
    split: str  # train, valid or test
    style: Style
    voice: str  # espeak voice and variant
    parts: tuple[Part, ...]  # what is rendered, in order
    place: str | None  # of the change, a key of ``PLACES``
    pause_place: str | None


def plan_clips(sizes: dict[str, int], seed: int) -> list[PlannedClip]:
    """Plan all clips.

    ``sizes`` are the numbers of clips by split: ``test``, ``valid`` and ``train``. Test and valid
    hold one clip per signature; no other split has their signatures or sentences.

    Raises
    ------
    ValueError
        If valid and test are so large that training would lack signatures.

    Example
    -------
    >>> clips = plan_clips({"test": 3, "valid": 2, "train": 5}, seed=0)
    >>> [clip.id for clip in clips[:4]]
    ['test_00000', 'test_00001', 'test_00002', 'valid_00000']
    """
    if sizes["test"] + sizes["valid"] > MAX_HELD_OUT:
        raise ValueError(
            f"n_valid + n_test may be {MAX_HELD_OUT} at most: each clip has a signature of its own"
        )
    generator = random.Random(seed)
    held_out: set[tuple] = set()
    sentences: set[tuple] = set()
    clips = []
    for split in ("test", "valid", "train"):
        kinds = TRAIN_KINDS if split == "train" else HELD_OUT_KINDS
        for number in range(sizes[split]):
            kind = generator.choices(list(kinds), list(kinds.values()))[0]
            style = draw_style(kind, generator)
            while style.signature in held_out:
                style = draw_style(kind, generator)
            if split != "train":
                held_out.add(style.signature)
            clips.append(_plan_clip(f"{split}_{number:05d}", split, style, generator, sentences))
    return clips


def _plan_clip(
    name: str, split: str, style: Style, generator: random.Random, sentences: set[tuple]
) -> PlannedClip:
    """Draw sentences until the boundaries of change and pause lie where they should."""
    place = generator.choice(list(PLACES)) if style.change else None
    while True:
        pause_place = generator.choice(list(PLACES)) if style.pause else None
        sentence = draw_sentence(generator)
        boundary = generator.choice((1, 2)) if style.change else None
        pause = generator.choice((1, 2)) if style.pause else None
        seconds = _seconds(style, sentence, boundary)
        if (
            sentence not in sentences
            and SPEAKING_SECONDS[0] < sum(seconds) < SPEAKING_SECONDS[1]
            and (not boundary or _shorter_side(seconds, boundary) > MIN_SECONDS_BESIDE_CHANGE)
            and _lies_in(seconds, boundary, place)
            and _lies_in(seconds, pause, pause_place)
        ):
            break
    sentences.add(sentence)
    voice = generator.choice(VOICES[style.kind])
    parts = _parts(style, voice, sentence, boundary, pause, generator)
    voice_name = f"{ACCENTS[style.accent]}+{voice.variant}"
    return PlannedClip(name, split, style, voice_name, parts, place, pause_place)


def _seconds(style: Style, sentence: tuple[str, ...], boundary: int | None) -> list[float]:
    """Estimate how long each phrase takes."""
    seconds = []
    for index, text in enumerate(sentence):
        rate = _level(style, "rate", boundary is not None and index >= boundary)
        effort = SECONDS_PER_PHRASE + SECONDS_PER_CHARACTER * len(text)
        seconds.append(effort / fmean(WORDS_PER_MINUTE[rate]))
    return seconds


def _level(style: Style, dimension: str, after_change: bool) -> str:
    """Return the level of rate or loudness, which every kind of voice has."""
    level = style.level(dimension, after_change)
    assert level is not None
    return level


def _shorter_side(seconds: list[float], boundary: int) -> float:
    return min(sum(seconds[:boundary]), sum(seconds[boundary:]))


def _lies_in(seconds: list[float], boundary: int | None, place: str | None) -> bool:
    if boundary is None:
        return True
    assert place is not None  # drawn for every boundary
    low, high = PLACES[place]
    return low <= sum(seconds[:boundary]) / sum(seconds) <= high


def _parts(
    style: Style,
    voice: Voice,
    sentence: tuple[str, ...],
    boundary: int | None,
    pause: int | None,
    generator: random.Random,
) -> tuple[Part, ...]:
    """Join phrases up to each boundary, and draw the settings of each part."""
    cuts = [0, *sorted({cut for cut in (boundary, pause) if cut}), len(sentence)]
    settings = {after: _settings(style, voice, after, generator) for after in (False, True)}
    silences = {pause: generator.uniform(*PAUSE_SECONDS), len(sentence): 0.0}
    parts = []
    for start, end in pairwise(cuts):
        is_changed = boundary is not None and start >= boundary
        text, silence = " ".join(sentence[start:end]), silences.get(end, GAP_SECONDS)
        parts.append(Part(text, **settings[is_changed], silence=silence))
    return tuple(parts)


def _settings(
    style: Style, voice: Voice, after_change: bool, generator: random.Random
) -> dict[str, Any]:
    """Draw espeak's settings within the bands of the style's levels."""
    # Without a level to keep to, a middling one: a croak sounds least like a clear voice there.
    bands = PITCH_HERTZ.get(style.kind, PITCH_HERTZ["male"])
    hertz = generator.uniform(*bands[style.level("pitch", after_change) or "medium"])
    semitones = generator.uniform(*SPREAD_SEMITONES[style.expressiveness or "natural"])
    pitch, pitch_range = voice.settings(hertz, semitones)
    return {
        "rate": generator.randint(*WORDS_PER_MINUTE[_level(style, "rate", after_change)]),
        "pitch": pitch,
        "pitch_range": pitch_range,
        "level": generator.uniform(*LEVEL_DBFS[_level(style, "loudness", after_change)]),
    }


def render(clip: PlannedClip) -> np.ndarray:
    """Synthesize a clip, [T] float32 at 16 kHz, in [-1, 1]."""
    pieces = []
    with Synthesizer() as synthesizer:
        for part in clip.parts:
            wav = synthesizer.speak(part.text, clip.voice, part.rate, part.pitch, part.pitch_range)
            wav = wav * 10 ** (part.level / 20) / np.sqrt(np.mean(wav**2))
            pieces += [wav, np.zeros(round(part.silence * SAMPLE_RATE), np.float32)]
    return np.concatenate(pieces)


def manifest_row(clip: PlannedClip, duration: float, seed: int) -> dict[str, Any]:
    """Return a clip's row of the manifest, with its labels and captions.

    The seed and the clip's id determine the wording of the captions; ``duration`` [s] is that of
    the rendered file, and ``audio`` is relative to the data set's folder.
    """
    style = clip.style
    # "dev" is what the valid split was called when the seeds were fixed.
    generator = random.Random(f"{seed} captions {clip.id.replace('valid_', 'dev_')}")
    return {
        "id": clip.id,
        "audio": f"wavs/{clip.split}/{clip.id}.wav",
        "duration": duration,
        "sample_rate": SAMPLE_RATE,
        "speaker": clip.voice,
        "gender": style.kind if style.kind in ("male", "female") else None,
        "accent": style.accent,
        "pitch": f"{style.pitch}-pitched" if style.pitch else None,
        "speaking_rate": f"{style.rate} speed" if style.rate else None,
        "intrinsic_tags": _tags(style, {"monotone": "monotone", "croak": "vocal-fry"}),
        "situational_tags": _tags(
            style, {"lively": "animated", "loud": "loud", "whisper": "whispered"}
        ),
        "labels": _labels(style),
        "global_captions": _distinct(2, lambda: global_caption(style, generator)),
        "fine_captions": _distinct(
            4, lambda: fine_caption(style, clip.place, clip.pause_place, generator)
        ),
        "split": clip.split,
        "source": "mini_fcaps",
    }


def _tags(style: Style, words: dict[str, str]) -> list[str]:
    levels = (style.kind, style.expressiveness, style.loudness)
    return [tag for level, tag in words.items() if level in levels]


def _labels(style: Style) -> dict[str, str]:
    change = style.change
    labels = {
        "voice": style.kind,
        "whisper": "whispered" if style.kind == "whisper" else "voiced",
        "loudness": style.loudness,
        "expressiveness": style.expressiveness,
        "change": CHANGE_LABELS[change.dimension, change.rises] if change else "none",
    }
    return {name: label for name, label in labels.items() if label}


def _distinct(number: int, write: Callable[[], str]) -> list[str]:
    captions: dict[str, None] = {}
    for _ in range(20 * number):
        captions[write()] = None
        if len(captions) == number:
            break
    return list(captions)
