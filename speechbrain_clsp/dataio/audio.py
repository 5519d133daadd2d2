"""Audio of any common format, rate and channel count to 16 kHz mono."""

from __future__ import annotations

import io
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import numpy as np
import soundfile
import torch
from soundfile import LibsndfileError, SoundFile
from torch import Tensor

from speechbrain_clsp.dataio.ffmpeg import FFmpegError, FFmpegFile
from speechbrain_clsp.dataio.resample import resample, resample_blocks
from speechbrain_clsp.utils.content import CONVERT, HEAD, describe_content
from speechbrain_clsp.utils.files import expand
from speechbrain_clsp.utils.reading import printable

SAMPLE_RATE = 16000  # Hz
MINIMUM_SECONDS = 0.1  # the front end needs nine frames of 10 ms to give one frame
MAXIMUM_AMPLITUDE = 100.0  # full scale is 1: more is 16-bit values as floats, or damage
MAXIMUM_RATE = 400_000  # Hz; the resampling filter grows with the rate
MINIMUM_RATE = 1000  # Hz
TOLERANCE_SECONDS = 0.1  # by which a part may end after its recording: lossy codecs pad and cut
SILENCE = 1e-4  # largest difference of two samples in digital silence, dithered or not
SMALLEST_INTEGER_PEAK = 2.0  # of 16-bit values as floats: full scale is 1
SECONDS_AT_ONCE = 60.0  # of a recording that is only checked
# What libsndfile notes of a wav, aiff or au file: bytes by its header, and those that are there.
CUT_OFF = re.compile(r"(?:data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)")
UNKNOWN_SIZE = 0x7FFFFF00  # bytes, or more: what programs write that do not know it beforehand
OGG_HEADER, LONGEST_PAGE = 27, 65307  # bytes
SPHERE = b"NIST_1A"  # a format whose header is text
INSTALL = "install PyAV, by `pip install 'speechbrain-clsp[video]'`"
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
# The name of a file, what a file holds, an open file (read from its start, wherever its position
# is; it must be seekable), or a dict of the library datasets: {"bytes": ..., "path": ...} or
# {"array": ..., "sampling_rate": ...}.
Source = str | os.PathLike | bytes | BinaryIO | Mapping
_File: TypeAlias = SoundFile | FFmpegFile


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
    source : str, path, bytes, binary file or dict
        A file (wav, flac, mp3, ogg, ..., and with the extra ``video`` m4a, aac and the sound of
        videos; ``~`` is the home folder), what such a file holds, an open file, which is read from
        its start wherever its position is, or a dict of ``datasets``:
        ``{"bytes": ..., "path": ...}``, or ``{"array": ..., "sampling_rate": ...}`` with samples
        [T] or [channels, T].
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
    FileNotFoundError, PermissionError
        If there is no such file, or it may not be read.
    TypeError
        If ``source`` is something else, such as a waveform.
    AudioError
        If it is empty or not audio (the message says what it is, such as a Git LFS pointer or an
        m4a file), lasts less than 0.1 s, has samples that are NaN, infinite, beyond 100 or 16-bit
        values as floats, or a sample rate outside 1-400 kHz; if the part or the channel asked for
        is not there.

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
    name = _called(name, source)
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
    name = printable(name)
    with _open(source, name) as file:
        samples = _read_span(file, start, duration, name)
        return _select(samples, channel, name), file.samplerate


def check_audio(
    source: Source,
    name: str | None = None,
    start: float = 0.0,
    duration: float | None = None,
    channel: int | None = None,
) -> Header:
    """Decode a clip to its end, and refuse what no training should get.

    Arguments are those of :func:`read_audio`. A recording of any length takes the memory of a
    minute.

    Returns
    -------
    Header
        Its ``seconds`` are those that were decoded.

    Raises
    ------
    FileNotFoundError, PermissionError, TypeError, AudioError
        As :func:`read_audio`. AudioError also if the clip is silent, or ends before its header
        says, as files do whose download broke off.

    Example
    -------
    >>> path = getfixture("tmp_path") / "silent.flac"
    >>> soundfile.write(path, np.zeros(16000), 16000)
    >>> check_audio(path, name="clip 7")
    Traceback (most recent call last):
    ...
    speechbrain_clsp.dataio.audio.AudioError: clip 7: is silent: no sample differs from the others
    """
    name = _called(name, source)
    n_frames, low, high, widest = 0, math.inf, -math.inf, 0.0
    with _open(source, name) as file:
        rate = file.samplerate
        _seek(file, start, duration, name)
        if duration is None:
            wanted = max(file.frames, _promised_frames(file)) - round(start * rate)
        else:
            wanted = round(duration * rate)
        while n_frames == 0 or n_frames < wanted:
            n_next = min(wanted - n_frames, round(SECONDS_AT_ONCE * rate))
            samples = _select(_read(file, n_next, name), channel, name)
            if n_frames and len(samples) == 0:
                break
            wav = _mono(samples, rate, name)
            low, high = min(low, float(wav.min())), max(high, float(wav.max()))
            widest = max(widest, float(np.ptp(samples, axis=0).max()))
            n_frames += len(samples)
        if n_frames < wanted - TOLERANCE_SECONDS * rate:
            raise AudioError(
                f"{name}: should last {wanted / rate:.2f} s, and {n_frames / rate:.2f} s are there:"
                " it is cut off or damaged, get it again"
            )
        if file.format == "OGG" and _is_cut_off_ogg(_tail(source, name)):
            raise AudioError(
                f"{name}: ends within a page after {n_frames / rate:.2f} s: it is cut off, get it"
                " again"
            )
        _check_length(math.ceil(n_frames * SAMPLE_RATE / rate), name)
        if high - low < SILENCE <= widest:
            raise AudioError(f"{name}: its channels cancel each other: choose one of them")
        if high - low < SILENCE:
            raise AudioError(f"{name}: is silent: no sample differs from the others")
        return Header(n_frames / rate, rate, file.channels)


def read_windows(source: Source, longest: float, name: str | None = None) -> Iterator[Tensor]:
    """Read a clip as equal consecutive windows [T], of which one at a time is in memory.

    A clip of at most ``longest`` seconds is one window, as :func:`read_audio` gives it, whose
    ``source``, ``name`` and errors are those of this function, too.

    Example
    -------
    >>> import soundfile
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> soundfile.write(path, np.zeros(40000), 16000)
    >>> [len(window) for window in read_windows(path, longest=1.0)]
    [13334, 13334, 13332]
    """
    name = _called(name, source)
    with _open(source, name) as file:
        n_windows = math.ceil(file.frames / file.samplerate / longest)
        size = math.ceil(file.frames / max(n_windows, 1))
        for number in range(max(n_windows, 1)):
            samples = _read(file, size if n_windows > 1 else -1, name)
            if number > 0 and len(samples) < MINIMUM_SECONDS * file.samplerate:
                return  # the header promised more than there is
            yield _prepare(samples, file.samplerate, name)


def read_blocks(source: Source, seconds: float) -> Iterator[Tensor]:
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
    name, n_samples = name_of(source), 0
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
    with _open(source, _called(name, source)) as file:
        return Header(file.frames / file.samplerate, file.samplerate, file.channels)


def seconds_of(source: Source) -> float:
    """Return a clip's length as its header states it; 0 if it cannot be read."""
    try:
        return read_header(source).seconds
    except (OSError, TypeError, AudioError):
        return 0.0


def _prepare(samples: np.ndarray, rate: int, name: str) -> Tensor:
    """Check samples [T, channels]; return them as mono at 16 kHz, [T]."""
    wav = resample(_mono(samples, rate, name), rate, SAMPLE_RATE)
    _check_length(len(wav), name)
    return wav


def _mono_blocks(file: _File, n_frames: int, name: str) -> Iterator[Tensor]:
    samples = _read(file, n_frames, name)
    while True:
        yield _mono(samples, file.samplerate, name)
        samples = _read(file, n_frames, name)
        if len(samples) == 0:
            return


def _select(samples: np.ndarray, channel: int | None, name: str) -> np.ndarray:
    """Return one channel of samples [T, channels] as [T, 1]; all of them for None."""
    if channel is None:
        return samples
    if isinstance(channel, bool) or not isinstance(channel, Integral):
        raise TypeError(f"{name}: channel must be a whole number, not {channel!r}")
    if not 0 <= channel < samples.shape[1]:
        raise AudioError(f"{name}: has {samples.shape[1]} channels, not number {channel}, from 0")
    return samples[:, channel : channel + 1]


def _mono(samples: np.ndarray, rate: int, name: str) -> Tensor:
    """Check samples [T, channels]; return the mean of channels, [T]."""
    if len(samples) == 0:
        raise AudioError(f"{name}: holds no samples; write the file again")
    peak = max(-samples.min(), samples.max())
    if not peak <= MAXIMUM_AMPLITUDE:  # NaN compares false
        raise AudioError(
            f"{name}: has samples that are NaN, infinite or far beyond [-1, 1]; write it again"
        )
    if peak >= SMALLEST_INTEGER_PEAK and (samples == np.rint(samples)).all():
        raise AudioError(
            f"{name}: holds whole numbers up to {peak:g}, 16-bit values as floats: divide them by"
            " 32768 and write it again"
        )
    if not MINIMUM_RATE <= rate <= MAXIMUM_RATE:
        raise AudioError(f"{name}: states a sample rate of {rate} Hz; write the file again")
    return torch.from_numpy(samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1))


def _check_length(n_samples: int, name: str) -> None:
    if n_samples < MINIMUM_SECONDS * SAMPLE_RATE:
        seconds = n_samples / SAMPLE_RATE
        raise AudioError(f"{name}: lasts {seconds:.3f} s, at least {MINIMUM_SECONDS} s are needed")


def name_of(source: Any, unnamed: str = "audio") -> str:
    """Return how messages name a source; ``unnamed`` if it has no name.

    Example
    -------
    >>> name_of(Path("a.wav")), name_of({"bytes": b"", "path": "b.wav"}), name_of(b"RIFF")
    ('a.wav', 'b.wav', 'audio')
    """
    if isinstance(source, Mapping):
        source = source.get("path")
    elif not isinstance(source, str | os.PathLike):
        source = getattr(source, "name", None)
    return printable(os.fspath(source)) if isinstance(source, str | os.PathLike) else unnamed


def _called(name: str | None, source: Source) -> str:
    """Return what messages call a source: the name that it was given, or else its own."""
    return printable(name) if name else name_of(source)


@contextmanager
def _open(source: Source, name: str) -> Iterator[_File]:
    """Open audio; all that is wrong with the source itself, and not with its samples, is told."""
    content = _locate(source, name)
    if isinstance(content, Path):
        with _explained(content, name), open(content, "rb") as file:
            head = file.read(HEAD)
    else:
        head = content[:HEAD]
    if not head:
        raise AudioError(f"{name}: the file is empty")
    kind = "" if head.startswith(SPHERE) else describe_content(head)
    # By some suffixes, soundfile takes anything for headerless audio.
    if kind and not kind.endswith(CONVERT):
        raise AudioError(f"{name}: cannot be read as audio; it is {kind}")
    try:
        with FFmpegFile(content) if kind else _open_soundfile(content, name) as opened:
            yield opened
    except ImportError as error:
        raise AudioError(f"{name}: cannot be read as audio; it is {kind}, or {INSTALL}") from error
    except FFmpegError as error:
        raise AudioError(
            f"{name}: cannot be read as audio, it is damaged or cut off ({error}); it is {kind}"
        ) from error


def _open_soundfile(content: Path | bytes, name: str) -> SoundFile:
    try:
        # As bytes, since soundfile takes names for UTF-8.
        return SoundFile(_Memory(content) if isinstance(content, bytes) else _encoded(content))
    except (LibsndfileError, TypeError) as error:
        # TypeError: a suffix that soundfile takes for headerless audio.
        raise AudioError(_unreadable(name)) from error


class _Memory(io.BytesIO):
    """Bytes in which nothing is before the start, wherever a damaged header points to.

    An exception inside a callback of libsndfile would be printed with its traceback.
    """

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to an offset, at least to the start; returns the position."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: len(self.getbuffer())}
        return super().seek(max(0, origin[whence] + offset))


def _encoded(path: Path) -> bytes | Path:
    return path if os.name == "nt" else os.fsencode(path)


def _locate(source: Any, name: str) -> Path | bytes:
    """Return the path of a source that is a regular file, or the bytes of another one."""
    if isinstance(source, Mapping) or hasattr(source, "get_all_samples"):
        source = _of_dataset(source, name)
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if hasattr(source, "read"):
        return _read_all(source, name)
    if not isinstance(source, str | os.PathLike):
        raise TypeError(
            f"{name}: audio must be a file's name, bytes, an open file or a dict of datasets, not a"
            f" {type(source).__name__}; waveforms go to the methods ..._batch"
        )
    if URL.match(os.fsdecode(source)) and not os.path.exists(source):
        raise FileNotFoundError(f"{name}: is a URL, not a file: download it first, give its path")
    path = expand(os.fsdecode(source))
    with _explained(path, name):
        mode = path.stat().st_mode
    if not os.fspath(source):
        raise FileNotFoundError(f"{name!r}: the name of the audio file is empty")
    if not stat.S_ISREG(mode):
        raise AudioError(f"{name}: is a folder or device, not an audio file")
    return path


@contextmanager
def _explained(path: Path, name: str) -> Iterator[None]:
    """Tell in one sentence why a file cannot be opened."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        target = f"the target of a link, {os.readlink(path)}," if os.path.islink(path) else ""
        raise FileNotFoundError(
            f"{name}: {f'no such file: {target} is not there' if target else 'no such file'}"
        ) from error
    except PermissionError as error:
        raise PermissionError(
            f"{name}: permission denied: make it readable, as by `chmod u+r`, or ask its owner"
        ) from error
    except OSError as error:
        raise OSError(error.errno, f"{name}: {error.strerror}") from error
    except ValueError as error:  # a null byte, or a character that no name can have
        raise FileNotFoundError(f"{name!r}: no such file: {error}") from error


def _read_all(file: Any, name: str) -> bytes:
    """Return what an open file holds from its start on, and leave its position as it is."""
    try:
        position = file.tell()
        file.seek(0)
        content = file.read()
        file.seek(position)
    except (AttributeError, OSError, ValueError) as error:
        raise AudioError(
            f"{name}: cannot be read from its start ({error}): give what it holds, as bytes"
        ) from error
    if not isinstance(content, bytes):
        raise AudioError(f'{name}: is open as text: open it as open(path, "rb")')
    return content


def _of_dataset(audio: Any, name: str) -> str | bytes:
    """Return the path or the bytes of what the library datasets gives for audio."""
    if isinstance(audio, Mapping):
        if audio.get("array") is None and (content := audio.get("bytes") or audio.get("path")):
            return content
        if audio.get("array") is None or audio.get("sampling_rate") is None:
            raise AudioError(
                f"{name}: a dict must have 'array' and 'sampling_rate', or 'bytes' or 'path', as"
                f" those of datasets do; this one has {sorted(map(str, audio))}"
            )
    try:
        samples, rate = np.asarray(audio["array"]), int(audio["sampling_rate"])
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise AudioError(f"{name}: holds no samples and sampling rate: {error}") from error
    if samples.dtype.kind == "i" and samples.dtype.itemsize in (2, 4):
        _check_full_scale(samples, name)
        samples = samples / -float(np.iinfo(samples.dtype).min)
    if samples.dtype.kind != "f" or samples.ndim not in (1, 2):
        raise AudioError(
            f"{name}: the array must hold real samples (floating-point, int16 or int32), [T] or"
            f" [channels, T], not {samples.dtype} {list(samples.shape)}"
        )
    if samples.ndim == 2 and samples.shape[0] > samples.shape[1]:
        raise AudioError(f"{name}: the array must be [channels, T], not {list(samples.shape)}")
    if not MINIMUM_RATE <= rate <= MAXIMUM_RATE:
        raise AudioError(f"{name}: states a sample rate of {rate} Hz")
    content = io.BytesIO()
    with np.errstate(over="ignore"):  # of values that _mono refuses
        samples = samples.T.astype(np.float32)
    try:
        soundfile.write(content, samples, rate, format="WAV", subtype="FLOAT")
    except (LibsndfileError, ValueError) as error:
        raise AudioError(f"{name}: the array {list(samples.T.shape)} is not audio") from error
    return content.getvalue()


def _check_full_scale(samples: np.ndarray, name: str) -> None:
    """Raise AudioError for 16-bit values as int32, which would be read as silence."""
    highest = np.abs(samples, dtype=np.float64).max(initial=0.0)
    if samples.dtype.itemsize == 4 and 0 < highest <= 2**15:
        raise AudioError(
            f"{name}: the array holds int32 samples up to {highest:g} only, which are 16-bit"
            " values: give them as int16, or divide them by 32768"
        )


def _read(file: _File, n_frames: int, name: str) -> np.ndarray:
    """Return the next samples [T, channels] float32; all that are left for -1."""
    try:
        return file.read(n_frames, dtype="float32", always_2d=True)
    except FFmpegError:
        raise
    except (LibsndfileError, MemoryError, ValueError) as error:
        # MemoryError, ValueError: a damaged header that promises more samples than there are.
        raise AudioError(_unreadable(name)) from error


def _seek(file: _File, start: float, duration: float | None, name: str) -> None:
    """Go to the start of a part of a recording."""
    for what, value in (("start", start), ("duration", 1.0 if duration is None else duration)):
        if not isinstance(value, Real):
            raise TypeError(f"{name}: {what} must be seconds, not {value!r}")
    if not (0 <= start < math.inf and (duration is None or 0 < duration < math.inf)):
        raise AudioError(
            f"{name}: a part must begin at 0 s or later and last for some time, not start={start},"
            f" duration={duration}; correct the manifest"
        )
    first = round(start * file.samplerate)
    if first:
        try:
            file.seek(first)
        except (LibsndfileError, ValueError, OverflowError) as error:
            raise AudioError(
                f"{name}: lasts {file.frames / file.samplerate:.2f} s, a part from {start:.2f} s on"
                " is not there"
            ) from error


def _promised_frames(file: _File) -> int:
    """Return how many samples a file has by its header, where libsndfile counts what is there."""
    match = CUT_OFF.search(file.extra_info)
    if match is None or int(match[1]) >= UNKNOWN_SIZE or int(match[2]) == 0:
        return file.frames
    return round(file.frames * int(match[1]) / int(match[2]))


def _tail(source: Source, name: str) -> bytes:
    """Return the last bytes of audio, as many as two pages of Ogg can have."""
    content = _locate(source, name)
    if isinstance(content, bytes):
        return content[-2 * LONGEST_PAGE :]
    with open(content, "rb") as file:
        file.seek(max(0, content.stat().st_size - 2 * LONGEST_PAGE))
        return file.read()


def _is_cut_off_ogg(tail: bytes) -> bool:
    """Return whether the last page of an Ogg file is not there to its end.

    Its header does not say how long the whole is (RFC 3533, section 6: a page has 27 bytes, the
    last of which counts segments, then their sizes, then the segments).
    """
    page = tail[max(0, tail.rfind(b"OggS")) :]
    if len(page) < OGG_HEADER:
        return True
    n_segments = page[OGG_HEADER - 1]
    sizes = page[OGG_HEADER : OGG_HEADER + n_segments]
    return len(sizes) < n_segments or len(page) < OGG_HEADER + n_segments + sum(sizes)


def _read_span(file: _File, start: float, duration: float | None, name: str) -> np.ndarray:
    """Return the samples [T, channels] of a part of a recording."""
    _seek(file, start, duration, name)
    if duration is None:
        return _read(file, -1, name)
    wanted = round(duration * file.samplerate)
    samples = _read(file, wanted, name)
    if len(samples) < wanted - TOLERANCE_SECONDS * file.samplerate:
        end = round(start * file.samplerate) + len(samples)
        raise AudioError(
            f"{name}: ends {end / file.samplerate:.2f} s after its start, a part"
            f" of it should last until {start + duration:.2f} s; correct the manifest"
        )
    return samples


def _unreadable(name: str) -> str:
    return f"{name}: cannot be read as audio; it is damaged, or not wav, flac, mp3 or ogg"
