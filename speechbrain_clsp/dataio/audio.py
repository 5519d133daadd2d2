"""Audio files of any common format, rate and channel count to 16 kHz mono.

Authors
 * The speechbrain-clsp authors 2026
"""

from __future__ import annotations

import io
import math
import os
from pathlib import Path

import numpy as np
import soundfile
import torch
from scipy.signal import resample_poly
from torch import Tensor

SAMPLE_RATE = 16000  # Hz
MINIMUM_SECONDS = 0.1  # the front end needs nine frames of 10 ms to give one frame
MAXIMUM_AMPLITUDE = 100.0  # full scale is 1: more is 16-bit values as floats, or damage
MAXIMUM_RATE = 400_000  # Hz; the resampling filter grows with the rate
MINIMUM_RATE = 1000  # Hz


class AudioError(ValueError):
    """A clip that cannot be used; the message names it and says why."""


def read_audio(source: str | os.PathLike | bytes | io.BytesIO, name: str | None = None) -> Tensor:
    """Read a clip.

    Channels are averaged. Other rates are resampled by a polyphase filter (Kaiser window,
    beta 5, ten zero crossings on each side): flat to 0.3 dB up to 7 kHz, -57 dB from 10 kHz on.

    Arguments
    ---------
    source : str, path, bytes or BytesIO
        A file (wav, flac, mp3, ogg, ...) or what such a file holds.
    name : str, optional
        What messages call the clip; default: its path.

    Returns
    -------
    Tensor
        [T] float32 at 16 kHz.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    AudioError
        If it is empty or no audio, has no samples or fewer than 0.1 s, or samples that are NaN,
        infinite or beyond 100, or a sample rate outside 1-400 kHz.

    Example
    -------
    >>> path = getfixture("tmp_path") / "stereo.flac"
    >>> soundfile.write(path, np.zeros((44100, 2)), 44100)
    >>> read_audio(path).shape
    torch.Size([16000])
    """
    name = name or _name_of(source)
    samples, rate = _decode(source, name)
    if len(samples) == 0:
        raise AudioError(f"{name}: holds no samples; write the file again")
    if not np.abs(samples).max() <= MAXIMUM_AMPLITUDE:  # NaN compares false
        raise AudioError(
            f"{name}: has samples that are NaN, infinite or far beyond [-1, 1]; write it again"
        )
    if not MINIMUM_RATE <= rate <= MAXIMUM_RATE:
        raise AudioError(f"{name}: states a sample rate of {rate} Hz; write the file again")
    wav = samples.mean(axis=1)
    if rate != SAMPLE_RATE:
        divisor = math.gcd(rate, SAMPLE_RATE)
        # torchaudio's resampler takes 12 GB and most of a minute for a rate like 44,099 Hz.
        wav = resample_poly(wav, SAMPLE_RATE // divisor, rate // divisor)
    if len(wav) < MINIMUM_SECONDS * SAMPLE_RATE:
        raise AudioError(
            f"{name}: lasts {len(wav) / SAMPLE_RATE:.3f} s, at least {MINIMUM_SECONDS} s are needed"
        )
    return torch.from_numpy(wav)


def _name_of(source: str | os.PathLike | bytes | io.BytesIO) -> str:
    return "audio" if isinstance(source, bytes | io.BytesIO) else str(source)


def _decode(source: str | os.PathLike | bytes | io.BytesIO, name: str) -> tuple[np.ndarray, int]:
    """Return samples [T, channels] float32 and their rate."""
    if isinstance(source, bytes | io.BytesIO):
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        size = file.getbuffer().nbytes
    else:
        file = Path(source)
        if not file.exists():
            raise FileNotFoundError(f"{name}: no such file")
        if not file.is_file():
            raise AudioError(f"{name}: is a folder or device, not an audio file")
        size = file.stat().st_size
    if size == 0:
        raise AudioError(f"{name}: the file is empty")
    try:
        return soundfile.read(file, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, TypeError, MemoryError) as error:
        # TypeError: a suffix that soundfile takes for headerless audio. MemoryError: a damaged
        # header that promises more samples than there are.
        raise AudioError(
            f"{name}: cannot be read as audio; it is damaged, or not wav, flac, mp3 or ogg"
        ) from error
