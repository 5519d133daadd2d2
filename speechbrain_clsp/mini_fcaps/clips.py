"""MiniFCaps clip by clip: what is planned, rendered and written down.

A clip's sound and captions are functions of its plan alone, so clips can be made in any order,
in any process, and made again after an interruption.

Authors
 * The speechbrain-clsp authors 2026
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np

from speechbrain_clsp.mini_fcaps.captions import fine_caption, global_caption
from speechbrain_clsp.mini_fcaps.sentences import draw_sentence
from speechbrain_clsp.mini_fcaps.style import (
    ACCENTS,
    LEVEL_DBFS,
    PITCH_SETTING,
    RANGE_COMPENSATION,
    RANGE_SETTING,
    VARIANTS,
    WORDS_PER_MINUTE,
    Style,
    draw_style,
)
from speechbrain_clsp.mini_fcaps.synthesis import SAMPLE_RATE, shared_synthesizer

GAP_SECONDS = 0.06  # between parts that follow each other
PAUSE_SECONDS = (0.45, 0.65)
# Where a boundary lies, as a share of the speaking time; what lies between bands is redrawn.
PLACES = {"early": (0.0, 0.40), "middle": (0.45, 0.56), "late": (0.62, 1.0)}
PITCH_TAG = "{}-pitched"
RATE_TAG = "{} speed"


@dataclass(frozen=True)
class Part:
    """A stretch of speech with constant settings, followed by silence.

    Arguments
    ---------
    text : str
        What is said.
    rate, pitch, pitch_range : int
        espeak's settings.
    level : float
        Root mean square, in dB re full scale.
    silence : float
        Seconds of silence after it.
    """

    text: str
    rate: int
    pitch: int
    pitch_range: int
    level: float
    silence: float


@dataclass(frozen=True)
class Clip:
    """A planned clip.

    Arguments
    ---------
    id : str
        Its name, and that of its file.
    split : str
        ``train``, ``dev`` or ``test``.
    style : Style
        How it is spoken.
    voice : str
        espeak voice and variant.
    parts : tuple of Part
        What is rendered.
    place, pause_place : str or None
        Where the change and the pause are.
    """

    id: str
    split: str
    style: Style
    voice: str
    parts: tuple[Part, ...]
    place: str | None
    pause_place: str | None


def plan_clips(sizes: dict[str, int], seed: int) -> list[Clip]:
    """Plan all clips.

    Test and dev hold one clip per signature; neither their signatures nor their sentences occur in
    another split.

    Arguments
    ---------
    sizes : dict
        Number of clips per split: ``test``, ``dev`` and ``train``.
    seed : int
        Everything drawn is a function of it.

    Returns
    -------
    list of Clip
        The clips, split by split.

    Example
    -------
    >>> clips = plan_clips({"test": 3, "dev": 2, "train": 5}, seed=0)
    >>> [clip.id for clip in clips[:4]]
    ['test_00000', 'test_00001', 'test_00002', 'dev_00000']
    """
    generator = random.Random(seed)
    held_out: set[tuple] = set()
    sentences: set[tuple] = set()
    clips = []
    for split in ("test", "dev", "train"):
        for number in range(sizes[split]):
            style = draw_style(generator)
            while style.signature in held_out:
                style = draw_style(generator)
            if split != "train":
                held_out.add(style.signature)
            clips.append(_plan_clip(f"{split}_{number:05d}", split, style, generator, sentences))
    return clips


def _plan_clip(name: str, split: str, style: Style, generator, sentences: set) -> Clip:
    """Draw sentences until the boundaries of change and pause lie clearly in one place."""
    while True:
        sentence = draw_sentence(generator)
        if sentence in sentences:
            continue
        boundary = generator.choice((1, 2)) if style.change else None
        pause = generator.choice((1, 2)) if style.pause else None
        seconds = [
            len(text) / WORDS_PER_MINUTE[_rate(style, i, boundary)][0]
            for i, text in enumerate(sentence)
        ]
        place, pause_place = (_place(seconds, where) for where in (boundary, pause))
        if "between" not in (place, pause_place):
            break
    sentences.add(sentence)
    variant = generator.choice(VARIANTS[style.kind])
    parts = _parts(style, sentence, boundary, pause, generator)
    return Clip(name, split, style, f"{ACCENTS[style.accent]}+{variant}", parts, place, pause_place)


def _rate(style: Style, index: int, boundary: int | None) -> str:
    return style.level("rate", boundary is not None and index >= boundary)


def _place(seconds: list[float], boundary: int | None) -> str | None:
    if boundary is None:
        return None
    share = sum(seconds[:boundary]) / sum(seconds)
    for place, (low, high) in PLACES.items():
        if low <= share <= high:
            return place
    return "between"


def _parts(style: Style, sentence, boundary, pause, generator) -> tuple[Part, ...]:
    """Join texts up to each boundary, and draw the settings of each part."""
    cuts = sorted({cut for cut in (boundary, pause) if cut}) + [len(sentence)]
    settings = {after: _settings(style, after, generator) for after in (False, True)}
    silence = generator.uniform(*PAUSE_SECONDS)
    parts, start = [], 0
    for end in cuts:
        text = " ".join(sentence[start:end])
        after = GAP_SECONDS if end != pause else silence
        is_changed = boundary is not None and start >= boundary
        parts.append(
            Part(text, **settings[is_changed], silence=after if end < len(sentence) else 0.0)
        )
        start = end
    return tuple(parts)


def _settings(style: Style, after_change: bool, generator: random.Random) -> dict[str, Any]:
    """Draw espeak's settings within the bands of the style's levels."""
    expressiveness = style.expressiveness or "natural"
    pitch = style.level("pitch", after_change) or "medium"
    setting = generator.randint(*PITCH_SETTING[pitch]) + RANGE_COMPENSATION[expressiveness]
    return {
        "rate": generator.randint(*WORDS_PER_MINUTE[style.level("rate", after_change)]),
        "pitch": min(max(setting, 0), 99),
        "pitch_range": RANGE_SETTING[expressiveness],
        "level": generator.uniform(*LEVEL_DBFS[style.level("loudness", after_change)]),
    }


def render(clip: Clip) -> np.ndarray:
    """Synthesise a clip.

    Arguments
    ---------
    clip : Clip
        The plan.

    Returns
    -------
    numpy.ndarray
        [T] float32 at 16 kHz, in [-1, 1].
    """
    pieces = []
    for part in clip.parts:
        wav = shared_synthesizer().speak(
            part.text, clip.voice, part.rate, part.pitch, part.pitch_range
        )
        wav = wav * 10 ** (part.level / 20) / np.sqrt(np.mean(wav**2))
        pieces += [wav, np.zeros(round(part.silence * SAMPLE_RATE), np.float32)]
    return np.concatenate(pieces).clip(-1.0, 1.0)


def manifest_row(clip: Clip, duration: float, seed: int) -> dict[str, Any]:
    """Write down a clip, with its captions.

    Arguments
    ---------
    clip : Clip
        The plan.
    duration : float
        Seconds of the rendered file.
    seed : int
        Together with the clip's id it fixes the wording of its captions.

    Returns
    -------
    dict
        A row of the manifest.
    """
    style = clip.style
    generator = random.Random(f"{seed} captions {clip.id}")
    return {
        "id": clip.id,
        "audio": f"wavs/{clip.split}/{clip.id}.wav",
        "duration": duration,
        "sample_rate": SAMPLE_RATE,
        "speaker": clip.voice,
        "gender": style.kind if style.kind in ("male", "female") else None,
        "accent": style.accent,
        "pitch": PITCH_TAG.format(style.pitch) if style.pitch else None,
        "speaking_rate": RATE_TAG.format(style.rate) if style.rate else None,
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
    heard = (style.kind, style.expressiveness, style.loudness)
    return [tag for level, tag in words.items() if level in heard]


def _labels(style: Style) -> dict[str, str]:
    labels = {"whisper": "whispered" if style.kind == "whisper" else "voiced"}
    labels |= {"loudness": style.loudness} if style.loudness else {}
    labels |= {"expressiveness": style.expressiveness} if style.expressiveness else {}
    labels["change"] = (
        f"{style.change.dimension} {'up' if style.change.rises else 'down'}"
        if style.change
        else "none"
    )
    return labels


def _distinct(number: int, write) -> list[str]:
    captions: dict[str, None] = {}
    for _ in range(20 * number):
        captions[write()] = None
        if len(captions) == number:
            break
    return list(captions)
