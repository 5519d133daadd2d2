"""Prepare the embedded voice: espeak-ng's speech with its phonemes, their durations and the pitch.

One voice is spoken at many pitches and levels, so that both can be asked for later. Phonemes and
their durations come from espeak-ng's events (extra ``mini``), pitch from the audio.
"""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from scipy.ndimage import median_filter
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from speechbrain_clsp.dataio.audio import SAMPLE_RATE
from speechbrain_clsp.mini_fcaps.acoustics import FRAME, pitch_track
from speechbrain_clsp.mini_fcaps.sentences import draw_sentence
from speechbrain_clsp.mini_fcaps.synthesis import Synthesizer
from speechbrain_clsp.mini_fcaps.voices import VOICES
from speechbrain_clsp.utils.files import atomic_write

logger = get_logger(__name__)

RATES = (150, 200)  # words per minute
HERTZ = {"male": (78.0, 160.0), "female": (145.0, 285.0)}  # median F0
SEMITONES = (0.5, 3.0)  # spread of F0
LEVELS = (-39.0, -17.0)  # root mean square, dB re full scale


def prepare_voice(
    data_folder: str | os.PathLike,
    skip_prep: bool = False,
    variant: str = "f4",
    hop: int = 256,
    n_train: int = 3000,
    n_valid: int = 60,
    n_test: int = 60,
    seed: int = 1986,
) -> None:
    """Write ``{train,valid,test}.json`` and ``wavs/``; a second call does nothing.

    Arguments
    ---------
    data_folder : str or path
        Where everything goes.
    skip_prep : bool
        If True, do nothing.
    variant : str
        A voice of MiniFCaps: m3, m6, m7, f2, f4 or f5.
    hop : int
        Samples from frame to frame, of durations and pitch.
    n_train, n_valid, n_test : int
        Clips per split, no sentence in two of them.
    seed : int
        The same seed and sizes give the same bytes.

    Raises
    ------
    ValueError
        If there is no such voice, or the folder holds one that was made with other settings.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> prepare_voice(folder, n_train=2, n_valid=1, n_test=1)
    >>> row = json.loads((folder / "train.json").read_text())["train_00001"]
    >>> sum(row["phone_frames"]) == len(row["f0"]) == 1 + round(row["duration"] * 16000) // 256
    True
    """
    if skip_prep:
        return
    folder = Path(data_folder)
    sizes = {"train": n_train, "valid": n_valid, "test": n_test}
    settings = {"variant": variant, "hop": hop, "seed": seed, **sizes}
    done = folder / "settings.json"
    if done.is_file():
        if (found := json.loads(done.read_text(encoding="utf-8"))) != settings:
            raise ValueError(
                f"{folder} holds a voice made with {found}, not {settings}: name another folder"
            )
        logger.info("The voice is ready in %s", folder)
        return
    draw, said = random.Random(seed), set()
    for split, size in sizes.items():
        (folder / "wavs" / split).mkdir(parents=True, exist_ok=True)
        rows = {}
        for number in tqdm(range(size), desc=split, unit="clip"):
            while (text := " ".join(draw_sentence(draw))) in said:
                continue
            said.add(text)
            name = f"{split}_{number:05d}"
            wav, row = _speak(text, variant, hop, draw)
            soundfile.write(folder / "wavs" / split / f"{name}.wav", wav, SAMPLE_RATE)
            rows[name] = {"wav": f"{{data_root}}/wavs/{split}/{name}.wav", "text": text, **row}
        atomic_write(folder / f"{split}.json", json.dumps(rows, indent=0, ensure_ascii=False))
    atomic_write(done, json.dumps(settings))  # last, since it says that all is there


def _speak(
    text: str, variant: str, hop: int, draw: random.Random
) -> tuple[np.ndarray, dict[str, Any]]:
    """Speak a sentence with random settings."""
    known = {voice.variant: (gender, voice) for gender in HERTZ for voice in VOICES[gender]}
    if variant not in known:
        raise ValueError(f"variant must be one of {sorted(known)}, not {variant!r}")
    gender, voice = known[variant]
    low, high = (math.log(hertz) for hertz in HERTZ[gender])
    hertz, semitones = math.exp(draw.uniform(low, high)), draw.uniform(*SEMITONES)
    with Synthesizer() as synthesizer:
        wav, phones = synthesizer.speak_phones(
            text, f"en-us+{variant}", draw.randint(*RATES), *voice.settings(hertz, semitones)
        )
    wav = wav * 10 ** (draw.uniform(*LEVELS) / 20) / np.sqrt(np.mean(wav**2))
    wav = np.clip(wav, -1.0, 1.0)
    symbols, frames = frames_of(phones, 1 + len(wav) // hop, hop)
    return wav, {
        "duration": len(wav) / SAMPLE_RATE,
        "phones": symbols,
        "phone_frames": frames,
        "f0": [round(float(value), 1) for value in continuous_pitch(wav, hop)],
    }


def frames_of(
    phones: Sequence[tuple[str, float]], total: int, hop: int
) -> tuple[list[str], list[int]]:
    """Return phonemes and how many frames each lasts, ``total`` in all.

    A phoneme too short for a frame is left out.

    Example
    -------
    >>> frames_of([("h", 0.0), ("", 0.031), ("i", 0.033)], total=5, hop=256)
    (['h', 'i'], [2, 3])
    """
    bounds = [round(start * SAMPLE_RATE / hop) for _, start in phones] + [total]
    bounds = np.clip(bounds, 0, total)
    bounds[0] = 0
    kept = [(symbol, int(n)) for (symbol, _), n in zip(phones, np.diff(bounds)) if n > 0]
    return [symbol or "pause" for symbol, _ in kept], [n for _, n in kept]


def continuous_pitch(wav: np.ndarray, hop: int) -> np.ndarray:
    """Return F0 of every frame in Hz, [1 + T // hop], interpolated where there is none."""
    wav = np.pad(wav.astype(np.float64), (FRAME // 2, FRAME // 2 + 1))
    track = pitch_track(wav, hop)
    voiced = np.flatnonzero(~np.isnan(track))
    if len(voiced) == 0:
        raise ValueError("No pitch in a clip: FastSpeech2 needs a voice that has one")
    # A median over five frames takes out single octave errors.
    smooth = median_filter(np.log(track[voiced]), size=5, mode="nearest")
    return np.exp(np.interp(np.arange(len(track)), voiced, smooth))
