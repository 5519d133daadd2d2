"""Audio files of any common format, rate and channel count to 16 kHz mono."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from soundfile import LibsndfileError, SoundFile
from torch import Tensor

from speechbrain_clsp.dataio.resample import resample, resample_blocks

SAMPLE_RATE = 16000  # Hz
MINIMUM_SECONDS = 0.1  # the front end needs nine frames of 10 ms to give one frame
MAXIMUM_AMPLITUDE = 100.0  # full scale is 1: more is 16-bit values as floats, or damage
MAXIMUM_RATE = 400_000  # Hz; the resampling filter grows with the rate
MINIMUM_RATE = 1000  # Hz
Source = str | os.PathLike | bytes  # a file, or what a file holds
TOLERANCE_SECONDS = 0.1  # by which a part may end after its recording: lossy codecs pad and cut


class AudioError(ValueError):
    """A clip that cannot be used; the message names it and says why."""


def read_audio(
    source: Source,
    name: str | None = None,
    start: float = 0.0,
    duration: float | None = None,
    channel: int | None = None,
) -> Tensor:
    """Read a clip, or a part of a longer recording.

    Channels are averaged. Other rates are resampled by
    :func:`~speechbrain_clsp.dataio.resample.resample`.

    Arguments
    ---------
    source : str, path or bytes
        A file (wav, flac, mp3, ogg, ...) or what such a file holds.
    name : str, optional
        How messages name the clip; default: its path.
    start : float
        Seconds into the recording; what lies before is not decoded.
    duration : float, optional
        Seconds; default: all that is left.
    channel : int, optional
        The only channel to take, from 0; default: the mean of all.

    Returns
    -------
    Tensor
        [T] float32 at 16 kHz.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    AudioError
        If it is empty or not audio, lasts less than 0.1 s, has samples that are NaN, infinite or
        beyond 100, or a sample rate outside 1-400 kHz; if the part or the channel asked for is
        not there.

    Example
    -------
    >>> import soundfile
    >>> path = getfixture("tmp_path") / "stereo.flac"
    >>> soundfile.write(path, np.zeros((44100, 2)), 44100)
    >>> read_audio(path).shape
    torch.Size([16000])
    >>> read_audio(path, start=0.25, duration=0.5, channel=1).shape
    torch.Size([8000])
    """
    name = name or _name_of(source)
    return _prepare(*read_samples(source, name, start, duration, channel), name)


def read_samples(
    source: Source,
    name: str,
    start: float = 0.0,
    duration: float | None = None,
    channel: int | None = None,
) -> tuple[np.ndarray, int]:
    """Decode a clip, or a part of a longer recording, as it is.

    Arguments and errors are those of :func:`read_audio`, except that values and rate are not
    checked.

    Returns
    -------
    samples : numpy.ndarray
        [T, channels] float32; [T, 1] if ``channel`` is given.
    rate : int
        In Hz.
    """
    with _open(source, name) as file:
        samples = _read_span(file, start, duration, name)
        if channel is not None:
            if channel >= samples.shape[1]:
                raise AudioError(
                    f"{name}: has {samples.shape[1]} channels, not number {channel}, from 0"
                )
            samples = samples[:, channel : channel + 1]
        return samples, file.samplerate


def read_windows(source: str | os.PathLike, longest: float) -> Iterator[Tensor]:
    """Read a clip as equal consecutive windows [T], of which one at a time is in memory.

    A clip of at most ``longest`` seconds is one window, as :func:`read_audio` gives it, whose
    errors are raised.

    Example
    -------
    >>> import soundfile
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> soundfile.write(path, np.zeros(40000), 16000)
    >>> [len(window) for window in read_windows(path, longest=1.0)]
    [13334, 13334, 13332]
    """
    name = _name_of(source)
    with _open(source, name) as file:
        n_windows = math.ceil(file.frames / file.samplerate / longest)
        size = math.ceil(file.frames / max(n_windows, 1))
        for number in range(max(n_windows, 1)):
            samples = _read(file, size if n_windows > 1 else -1, name)
            if number > 0 and len(samples) < MINIMUM_SECONDS * file.samplerate:
                return  # the header promised more than there is
            yield _prepare(samples, file.samplerate, name)


def read_blocks(source: str | os.PathLike, seconds: float) -> Iterator[Tensor]:
    """Read a recording in consecutive blocks [T], of which one at a time is in memory.

    So many ``seconds`` are decoded at once. Joined, blocks are what :func:`read_audio` returns,
    whose errors are raised at the block where the fault is.

    Example
    -------
    >>> import soundfile
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> soundfile.write(path, np.zeros(40000), 16000)
    >>> [len(block) for block in read_blocks(path, seconds=1.0)]
    [16000, 16000, 8000]
    """
    name, n_samples = _name_of(source), 0
    with _open(source, name) as file:
        blocks = _mono_blocks(file, max(1, round(seconds * file.samplerate)), name)
        for block in resample_blocks(blocks, file.samplerate, SAMPLE_RATE):
            n_samples += len(block)
            yield block
    _check_length(n_samples, name)


class Header(NamedTuple):
    """The header of an audio file."""

    seconds: float
    sample_rate: int  # Hz
    n_channels: int


def read_header(source: Source, name: str | None = None) -> Header:
    """Read an audio file's header; arguments and errors are those of :func:`read_audio`.

    Example
    -------
    >>> import soundfile
    >>> path = getfixture("tmp_path") / "stereo.flac"
    >>> soundfile.write(path, np.zeros((44100, 2)), 44100)
    >>> read_header(path)
    Header(seconds=1.0, sample_rate=44100, n_channels=2)
    """
    with _open(source, name or _name_of(source)) as file:
        return Header(file.frames / file.samplerate, file.samplerate, file.channels)


def seconds_of(source: Source) -> float:
    """Return a clip's length as its header states it; 0 if it cannot be read."""
    try:
        return read_header(source).seconds
    except (OSError, AudioError):
        return 0.0


def _prepare(samples: np.ndarray, rate: int, name: str) -> Tensor:
    """Check samples [T, channels]; return them as mono at 16 kHz, [T]."""
    wav = resample(_mono(samples, rate, name), rate, SAMPLE_RATE)
    _check_length(len(wav), name)
    return wav


def _mono_blocks(file: SoundFile, n_frames: int, name: str) -> Iterator[Tensor]:
    samples = _read(file, n_frames, name)
    while True:
        yield _mono(samples, file.samplerate, name)
        samples = _read(file, n_frames, name)
        if len(samples) == 0:
            return


def _mono(samples: np.ndarray, rate: int, name: str) -> Tensor:
    """Check samples [T, channels]; return the mean of channels, [T]."""
    if len(samples) == 0:
        raise AudioError(f"{name}: holds no samples; write the file again")
    # NaN compares false
    if not (-MAXIMUM_AMPLITUDE <= samples.min() and samples.max() <= MAXIMUM_AMPLITUDE):
        raise AudioError(
            f"{name}: has samples that are NaN, infinite or far beyond [-1, 1]; write it again"
        )
    if not MINIMUM_RATE <= rate <= MAXIMUM_RATE:
        raise AudioError(f"{name}: states a sample rate of {rate} Hz; write the file again")
    return torch.from_numpy(samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1))


def _check_length(n_samples: int, name: str) -> None:
    if n_samples < MINIMUM_SECONDS * SAMPLE_RATE:
        seconds = n_samples / SAMPLE_RATE
        raise AudioError(f"{name}: lasts {seconds:.3f} s, at least {MINIMUM_SECONDS} s are needed")


def _name_of(source: Source) -> str:
    return "audio" if isinstance(source, bytes) else str(source)


@contextmanager
def _open(source: Source, name: str) -> Iterator[SoundFile]:
    if isinstance(source, bytes):
        size = len(source)
    else:
        source = Path(source)
        if not source.exists():
            raise FileNotFoundError(f"{name}: no such file")
        if not source.is_file():
            raise AudioError(f"{name}: is a folder or device, not an audio file")
        size = source.stat().st_size
    if size == 0:
        raise AudioError(f"{name}: the file is empty")
    try:
        opened = SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source)
    except (LibsndfileError, TypeError) as error:
        # TypeError: a suffix that soundfile takes for headerless audio.
        raise AudioError(_unreadable(name)) from error
    with opened:
        yield opened


def _read(file: SoundFile, n_frames: int, name: str) -> np.ndarray:
    """Return the next samples [T, channels] float32; all that are left for -1."""
    try:
        return file.read(n_frames, dtype="float32", always_2d=True)
    except (LibsndfileError, MemoryError, ValueError) as error:
        # MemoryError, ValueError: a damaged header that promises more samples than there are.
        raise AudioError(_unreadable(name)) from error


def _read_span(file: SoundFile, start: float, duration: float | None, name: str) -> np.ndarray:
    """Return the samples [T, channels] of a part of a recording."""
    first = round(start * file.samplerate)
    if first:
        try:
            file.seek(first)
        except (LibsndfileError, ValueError) as error:
            raise AudioError(
                f"{name}: lasts {file.frames / file.samplerate:.2f} s, a part from {start:.2f} s on"
                " is not there"
            ) from error
    if duration is None:
        return _read(file, -1, name)
    wanted = round(duration * file.samplerate)
    samples = _read(file, wanted, name)
    if len(samples) < wanted - TOLERANCE_SECONDS * file.samplerate:
        raise AudioError(
            f"{name}: ends {(first + len(samples)) / file.samplerate:.2f} s after its start, a part"
            f" of it should last until {start + duration:.2f} s; correct the manifest"
        )
    return samples


def _unreadable(name: str) -> str:
    return f"{name}: cannot be read as audio; it is damaged, or not wav, flac, mp3 or ogg"
