"""Audio files of any common format, rate and channel count to 16 kHz mono.

Authors
 * The speechbrain-clsp authors 2026
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor
from torchaudio.functional import resample

SAMPLE_RATE = 16000  # Hz
MINIMUM_SECONDS = 0.1  # the front end needs nine frames of 10 ms to give one frame


class AudioError(ValueError):
    """A clip that cannot be used; the message names it and says why."""


def read_audio(source: str | os.PathLike | bytes, name: str | None = None) -> Tensor:
    """Read a clip.

    Channels are averaged; other rates are resampled by a windowed sinc
    (``torchaudio.functional.resample``).

    Arguments
    ---------
    source : str, path or bytes
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
        If it is empty or no audio, has no samples or fewer than 0.1 s, or NaN or infinite ones.

    Example
    -------
    >>> path = getfixture("tmp_path") / "stereo.flac"
    >>> soundfile.write(path, np.zeros((44100, 2)), 44100)
    >>> read_audio(path).shape
    torch.Size([16000])
    """
    samples, rate = _decode(source, name or _name_of(source))
    name = name or _name_of(source)
    if not np.isfinite(samples).all():
        raise AudioError(f"{name}: has samples that are NaN or infinite; write the file again")
    wav = torch.from_numpy(samples).mean(dim=1)
    if rate != SAMPLE_RATE:
        wav = resample(wav, rate, SAMPLE_RATE)
    if len(wav) < MINIMUM_SECONDS * SAMPLE_RATE:
        raise AudioError(
            f"{name}: lasts {len(wav) / SAMPLE_RATE:.3f} s, at least {MINIMUM_SECONDS} s are needed"
        )
    return wav


def _name_of(source: str | os.PathLike | bytes) -> str:
    return "audio" if isinstance(source, bytes) else str(source)


def _decode(source: str | os.PathLike | bytes, name: str) -> tuple[np.ndarray, int]:
    """Return samples [T, channels] float32 and their rate."""
    if isinstance(source, bytes):
        size, file = len(source), io.BytesIO(source)
    else:
        path = Path(source)
        if not path.exists():
            raise FileNotFoundError(f"{name}: no such file")
        if not path.is_file():
            raise AudioError(f"{name}: is a folder, not an audio file")
        size, file = path.stat().st_size, path
    if size == 0:
        raise AudioError(f"{name}: the file is empty")
    try:
        return soundfile.read(file, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, TypeError) as error:
        # A TypeError stands for a suffix that soundfile takes for headerless audio.
        raise AudioError(f"{name}: cannot be read as audio ({error})") from error
