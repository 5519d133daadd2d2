"""MiniFCaps clip by clip: planning, rendering and the manifest row.

A clip's sound and captions are functions of its plan alone, so clips can be made in any order and
in any process, and again after an interruption.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean
from typing import Any

import numpy as np

from speechbrain_clsp.dataio.audio import SAMPLE_RATE
from speechbrain_clsp.mini_fcaps.recording import NO_RECORDING, Recording, draw_recording
from speechbrain_clsp.mini_fcaps.sentences import draw_sentence
from speechbrain_clsp.mini_fcaps.style import (
    ACCENTS,
    LEVEL_DBFS,
    LEVELS,
    NO_PAUSE,
    PITCH_HERTZ,
    PLACES,
    SPREAD_SEMITONES,
    WORDS_PER_MINUTE,
    Style,
    draw_style,
)
from speechbrain_clsp.mini_fcaps.synthesis import Synthesizer
from speechbrain_clsp.mini_fcaps.voices import VOICES, Voice, draw_voice
from speechbrain_clsp.mini_fcaps.wording import fine_caption, global_caption

# Probabilities of the kinds of voice. Whisper and croak have fewer signatures: fewer are held out.
TRAIN_KINDS = {"male": 0.38, "female": 0.38, "whisper": 0.14, "croak": 0.10}
HELD_OUT_KINDS = {"male": 0.455, "female": 0.455, "whisper": 0.045, "croak": 0.045}
MAX_HELD_OUT = 1000  # valid and test clips; more would leave few signatures for training

GAP_SECONDS = 0.06  # between parts that follow each other
PAUSE_SECONDS = (0.45, 0.65)
# Place of a boundary, as a fraction of the speaking time; sentences with others are redrawn.
PLACE_BOUNDS = {"early": (0.0, 0.36), "middle": (0.44, 0.56), "late": (0.64, 1.0)}
SPEAKING_SECONDS = (1.3, 2.8)
MIN_SECONDS_BESIDE_CHANGE = 0.5
# At one word per minute; measured. The first is what the end of a phrase adds.
SECONDS_PER_PHRASE, SECONDS_PER_CHARACTER = 10.0, 8.6
MEAN_RATE = {level: fmean(bounds) for level, bounds in WORDS_PER_MINUTE.items()}
NO_PAUSE_PROBABILITY = 0.5  # of fine captions to say that there is no pause
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
class Script:
    """What a clip says, in which voice, and after which phrases it changes and pauses."""

    phrases: tuple[str, ...]
    voice: Voice
    boundary: int | None  # number of phrases before the change
    pause: int | None  # number of phrases before the pause
    seed: str  # of the settings within the bands of the levels
    recording: Recording = NO_RECORDING


@dataclass(frozen=True)
class PlannedClip:
    """All that determines a clip.

    Arguments
    ---------
    id : str
        Name of the clip and of its file.
    split : str
        ``train``, ``valid``, ``test`` or ``probes``.
    style : Style
        How it is spoken.
    script : Script
        What is spoken, in which voice and recording.

    Example
    -------
    >>> clip = plan_clips({"test": 1, "valid": 0, "train": 0}, seed=0)[0]
    >>> clip.voice, [part.text for part in clip.parts]
    ('en-029+f4', ['painters admired the guitar behind the church in the afternoon'])
    """

    id: str
    split: str
    style: Style
    script: Script

    @property
    def voice(self) -> str:
        """Voice and variant, as espeak names them."""
        return f"{ACCENTS[self.style.accent]}+{self.script.voice.variant}"

    @property
    def parts(self) -> tuple[Part, ...]:
        """What is rendered, in order."""
        return _parts(self.style, self.script)


def plan_clips(sizes: dict[str, int], seed: int, recorded: float = 0.0) -> list[PlannedClip]:
    """Plan all clips.

    Test and valid hold one clip per signature; no other split has their signatures or sentences.

    Arguments
    ---------
    sizes : dict of int
        Numbers of clips by split: ``test``, ``valid`` and ``train``.
    seed : int
        Of all draws.
    recorded : float
        Probability of a training clip to have another voice and a
        :class:`~speechbrain_clsp.mini_fcaps.recording.Recording`, which its captions do not state.

    Returns
    -------
    list of PlannedClip
        Those of test, then valid, then train.

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
            name = f"{split}_{number:05d}"
            style, script = _draw_script(style, f"{seed} {name}", generator, sentences)
            if split == "train":
                script = _record(style, script, recorded)
            clips.append(PlannedClip(name, split, style, script))
    return clips


def _draw_script(
    style: Style, seed: str, generator: random.Random, sentences: set[tuple]
) -> tuple[Style, Script]:
    """Draw sentences until change and pause lie where the style has them.

    The place of the pause is drawn anew with each sentence, since that of the change may rule some
    out.
    """
    voice = generator.choice(VOICES[style.kind])
    has_pause = style.pause != NO_PAUSE
    while True:
        script = Script(
            draw_sentence(generator),
            voice,
            boundary=generator.choice((1, 2)) if style.changes else None,
            pause=generator.choice((1, 2)) if has_pause else None,
            seed=seed,
        )
        pause = generator.choice(PLACES) if has_pause else NO_PAUSE
        if script.phrases not in sentences:
            placed = with_places(style, script, SPEAKING_SECONDS, MIN_SECONDS_BESIDE_CHANGE)
            if placed and (placed.change_place, placed.pause) == (style.change_place, pause):
                sentences.add(script.phrases)
                return placed, script


def _record(style: Style, script: Script, probability: float) -> Script:
    """Give some scripts another voice, and a recording.

    What is drawn depends on the script's seed alone, and nothing else on what is drawn.
    """
    generator = random.Random(f"{script.seed} recording")
    if generator.random() >= probability:
        return script
    hertz = [bound for after in (False, True) for bound in _pitch_band(style, after)]
    voice = draw_voice(style.kind, hertz, max(_spread_band(style)), generator)
    recording = draw_recording(generator, whispered=style.kind == "whisper")
    return replace(script, voice=voice, recording=recording)


def with_places(
    style: Style, script: Script, limits: tuple[float, float], min_beside_change: float
) -> Style | None:
    """Return the style with the places that a script gives to its change and its pause.

    A place is None where it lies between those that have a name. The result is None if the speaking
    time is outside the limits [s], or if one side of the change is shorter than
    ``min_beside_change`` [s].
    """
    seconds = _seconds(style, script)
    if not limits[0] < sum(seconds) < limits[1]:
        return None
    pause = NO_PAUSE if script.pause is None else _place(seconds, script.pause)
    change_place = None
    if script.boundary is not None:
        sides = sum(seconds[: script.boundary]), sum(seconds[script.boundary :])
        change_place = _place(seconds, script.boundary)
        if min(sides) <= min_beside_change:
            return None
    return replace(style, change_place=change_place, pause=pause)


def _seconds(style: Style, script: Script) -> list[float]:
    """Estimate how long each phrase takes."""
    seconds = []
    for index, text in enumerate(script.phrases):
        rate = _level(style, "rate", script.boundary is not None and index >= script.boundary)
        effort = SECONDS_PER_PHRASE + SECONDS_PER_CHARACTER * len(text)
        seconds.append(effort / MEAN_RATE[rate])
    return seconds


def _place(seconds: list[float], boundary: int) -> str | None:
    fraction = sum(seconds[:boundary]) / sum(seconds)
    names = (name for name, (low, high) in PLACE_BOUNDS.items() if low <= fraction <= high)
    return next(names, None)


def _level(style: Style, dimension: str, after_change: bool) -> str:
    """Return the level of rate or loudness, which every kind of voice has."""
    level = style.level(dimension, after_change)
    assert level is not None
    return level


def _parts(style: Style, script: Script) -> tuple[Part, ...]:
    """Join phrases up to each boundary, and draw the settings of each part.

    What is drawn for one attribute does not depend on the others.
    """
    generator = random.Random(script.seed)
    boundary, pause, end = script.boundary, script.pause, len(script.phrases)
    cuts = [0, *sorted({cut for cut in (boundary, pause) if cut}), end]
    settings = {after: _settings(style, script.voice, after, generator) for after in (False, True)}
    silences = {pause: generator.uniform(*PAUSE_SECONDS), end: 0.0}
    parts = []
    for start, stop in pairwise(cuts):
        is_changed = boundary is not None and start >= boundary
        text = " ".join(script.phrases[start:stop])
        parts.append(Part(text, **settings[is_changed], silence=silences.get(stop, GAP_SECONDS)))
    return tuple(parts)


def _settings(
    style: Style, voice: Voice, after_change: bool, generator: random.Random
) -> dict[str, Any]:
    """Draw espeak's settings within the bands of the style's levels."""
    hertz = generator.uniform(*_pitch_band(style, after_change))
    semitones = generator.uniform(*_spread_band(style))
    pitch, pitch_range = voice.settings(hertz, semitones)
    rate = generator.uniform(*WORDS_PER_MINUTE[_level(style, "rate", after_change)])
    return {
        "rate": round(rate),
        "pitch": pitch,
        "pitch_range": pitch_range,
        "level": generator.uniform(*LEVEL_DBFS[_level(style, "loudness", after_change)]),
    }


def _pitch_band(style: Style, after_change: bool) -> tuple[float, float]:
    # Without a level to keep to, a middling one: a croak sounds least like a clear voice there.
    bands = PITCH_HERTZ.get(style.kind, PITCH_HERTZ["male"])
    return bands[style.level("pitch", after_change) or "medium"]


def _spread_band(style: Style) -> tuple[float, float]:
    return SPREAD_SEMITONES[style.expressiveness or "natural"]


def render(clip: PlannedClip) -> np.ndarray:
    """Synthesize a clip and record it.

    Arguments
    ---------
    clip : PlannedClip
        The clip.

    Returns
    -------
    numpy.ndarray
        [T] float32, 16 kHz, in [-1, 1]; the same clip gives the same samples.

    Raises
    ------
    ImportError
        If the extra ``mini`` is not installed.

    Example
    -------
    >>> clip = plan_clips({"test": 1, "valid": 0, "train": 0}, seed=0)[0]
    >>> round(len(render(clip)) / SAMPLE_RATE, 1)
    2.6
    """
    parts, script = clip.parts, clip.script
    spoken = []
    with Synthesizer() as synthesizer:
        for part in parts:
            settings = (part.rate, part.pitch, part.pitch_range, script.voice.formants)
            spoken.append(synthesizer.speak(part.text, clip.voice, *settings))
    silences = [round(part.silence * SAMPLE_RATE) for part in parts]
    mixed = np.zeros(sum(map(len, spoken)) + sum(silences), np.float32)
    start = 0
    for part, wav, silence in zip(parts, spoken, silences, strict=True):
        heard = script.recording.respond(wav)[: len(mixed) - start]
        heard *= 10 ** (part.level / 20) / np.sqrt(np.mean(heard[: len(wav)] ** 2))
        mixed[start : start + len(heard)] += heard
        start += len(wav) + silence
    noisy = script.recording.add_noise(mixed, min(part.level for part in parts))
    return np.clip(noisy, -1.0, 1.0)


def manifest_row(clip: PlannedClip, duration: float, seed: int) -> dict[str, Any]:
    """Return a clip's row of the manifest, with its labels and captions.

    Arguments
    ---------
    clip : PlannedClip
        The clip.
    duration : float
        Seconds of the rendered file.
    seed : int
        Determines, with the clip's id, the wording of the captions.

    Returns
    -------
    dict
        ``audio`` is relative to the data set's folder.

    Example
    -------
    >>> clip = plan_clips({"test": 1, "valid": 0, "train": 0}, seed=0)[0]
    >>> row = manifest_row(clip, duration=2.5, seed=0)
    >>> row["audio"], row["gender"], row["accent"], len(row["fine_captions"])
    ('wavs/test/test_00000.wav', 'female', 'Caribbean', 4)
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
        "pitch": f"{style.pitch}-pitched" if style.pitch else None,
        "speaking_rate": f"{style.rate} speed" if style.rate else None,
        "intrinsic_tags": _tags(style, {"monotone": "monotone", "croak": "vocal-fry"}),
        "situational_tags": _tags(
            style, {"lively": "animated", "loud": "loud", "whisper": "whispered"}
        ),
        "labels": _labels(style),
        "global_captions": _distinct(2, lambda: global_caption(style, generator)),
        "fine_captions": _distinct(
            4, lambda: fine_caption(with_fewer_details(style, generator), generator)
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
        **{f"{name}_change": style.direction(name) for name in LEVELS},
        "change_place": style.change_place,
        "pause": style.pause,
    }
    if len(style.changes) < 2:
        labels["change"] = CHANGE_LABELS[change.dimension, change.rises] if change else "none"
    return {name: label for name, label in labels.items() if label}


def with_fewer_details(style: Style, generator: random.Random) -> Style:
    """Leave out, at random, that there is no pause.

    As pauses are always stated, a caption without one says that there is none. Without the place of
    a change it would be true of the twin that differs in it, and the loss would ask of it what it
    does not say.
    """
    if generator.random() >= NO_PAUSE_PROBABILITY and style.pause == NO_PAUSE:
        style = replace(style, pause=None)
    return style


def _distinct(number: int, write: Callable[[], str]) -> list[str]:
    captions: dict[str, None] = {}
    for _ in range(20 * number):
        captions[write()] = None
        if len(captions) == number:
            break
    return list(captions)
