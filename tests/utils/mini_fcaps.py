"""MiniFCaps' clips taken apart and measured, to check labels and captions against the sound."""

import re

import numpy as np
import soundfile

from speechbrain_clsp.dataio.audio import SAMPLE_RATE
from speechbrain_clsp.mini_fcaps.acoustics import fundamental, pitch_spread
from speechbrain_clsp.mini_fcaps.recording import NO_RECORDING
from speechbrain_clsp.mini_fcaps.synthesis import Synthesizer

SIZES = {"train": 120, "valid": 20, "test": 60}
# Measured values that agree with a label; the bands of one attribute do not overlap.
LOUDNESS_DBFS = {"quiet": (-41, -34), "moderate": (-31, -25), "loud": (-22, -15)}
PHONEMES_PER_SECOND = {"slow": (6.6, 13.1), "measured": (13.1, 20.1), "fast": (20.1, 33)}
PITCH_HZ = {
    "male": {"low": (70, 96), "medium": (98, 128), "high": (130, 175)},
    "female": {"low": (130, 172), "medium": (174, 225), "high": (240, 310)},
}
SPREAD_SEMITONES = {"monotone": (0, 1.0), "natural": (1.0, 2.6), "lively": (2.6, 12)}


def waveform(folder, clip) -> np.ndarray:
    """Return a clip's samples."""
    return soundfile.read(folder / "wavs" / clip.split / f"{clip.id}.wav", dtype="float32")[0]


def parts_of(wav: np.ndarray, clip) -> list[np.ndarray]:
    """Cut a clip where its parts begin and end; each part is spoken again to know its length."""
    parts, start = [], 0
    with Synthesizer() as synthesizer:
        for part in clip.parts:
            settings = (part.rate, part.pitch, part.pitch_range, clip.script.voice.formants)
            length = len(synthesizer.speak(part.text, clip.voice, *settings))
            parts.append(wav[start : start + length])
            start += length + round(part.silence * SAMPLE_RATE)
    assert start == len(wav), clip.id
    return parts


def halves_of(wav: np.ndarray, clip) -> tuple[np.ndarray, np.ndarray, str, str]:
    """Return the sound and the text before and after the change."""
    settings = [(part.rate, part.pitch, part.level) for part in clip.parts]
    first = next(i for i, setting in enumerate(settings) if setting != settings[0])
    parts, texts = parts_of(wav, clip), [part.text for part in clip.parts]
    before, after = np.concatenate(parts[:first]), np.concatenate(parts[first:])
    return before, after, " ".join(texts[:first]), " ".join(texts[first:])


def is_recorded(clip) -> bool:
    """Return whether a clip has a recording that changes something."""
    return clip.script.recording != NO_RECORDING


def level_dbfs(wav: np.ndarray) -> float:
    """Return the root mean square in dB re full scale."""
    return 20 * np.log10(np.sqrt(np.mean(wav**2)))


def within(value: float, band: tuple[float, float]) -> bool:
    """Return whether a value lies in a band."""
    return bool(band[0] <= value <= band[1])


def voiced_fraction(wav: np.ndarray) -> float:
    """Return the fraction of a clip's frames with a pitch."""
    return len(fundamental(wav)) / (len(wav) / 160)


def phonemes_of(text: str, voice: str) -> str:
    """Return the phonemes of a text without stress and length marks."""
    with Synthesizer() as synthesizer:
        return re.sub(r"[\W\dˈˌː_]", "", synthesizer.phonemes(text, voice))


def speaking_rate(wav: np.ndarray, text: str, voice: str) -> float:
    """Return phonemes per second."""
    return len(phonemes_of(text, voice)) / (len(wav) / SAMPLE_RATE)


def measured(folder, clip, attribute: str) -> tuple[float, dict]:
    """Measure an attribute of a clip; also returns the band of each of its labels."""
    wav = waveform(folder, clip)
    if attribute in ("loudness", "rate"):
        wav = np.concatenate(parts_of(wav, clip))
    return measured_in(wav, " ".join(part.text for part in clip.parts), clip, attribute)


def measured_in(wav: np.ndarray, text: str, clip, attribute: str) -> tuple[float, dict]:
    """Measure an attribute of a part of a clip; for loudness and rate it is free of pauses."""
    if attribute == "loudness":
        return level_dbfs(wav), LOUDNESS_DBFS
    if attribute == "rate":
        return speaking_rate(wav, text, clip.voice), PHONEMES_PER_SECOND
    if attribute == "pitch":
        return float(np.median(fundamental(wav))), PITCH_HZ[clip.style.kind]
    return pitch_spread(wav), SPREAD_SEMITONES


def fraction(flags: list[bool]) -> float:
    """Return the fraction of true flags."""
    assert len(flags) > 15, "too few clips to say anything"
    return sum(flags) / len(flags)
