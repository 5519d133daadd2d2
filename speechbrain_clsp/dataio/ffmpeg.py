"""Sound that libsndfile cannot decode, such as m4a, aac and the tracks of videos, by PyAV.

PyAV (extra ``video``) brings FFmpeg's libraries with it. Only :mod:`speechbrain_clsp.dataio.audio`
opens files by it, and decides which.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

PREROLL = 0.5  # seconds that are decoded before a part: codecs need what came before
TOLERANCE_SECONDS = 0.1  # by which the tracks of a recording may end before its header says
# By FFmpeg's name of the format. Time stamps in MPEG-4 count samples; in others they are rounded
# to milliseconds, or estimated from the bit rate: only reading from the start is exact.
EXACT_TIMES = "mp4"
TRUE_DURATION = "matroska"


class FFmpegError(ValueError):
    """A file that FFmpeg cannot read, or not to its end."""


class FFmpegFile:
    """The sound of a file, with the part of soundfile.SoundFile's interface that is used here.

    Arguments
    ---------
    content : path or bytes
        A file, or what it holds. A track of video is not decoded.

    Raises
    ------
    ImportError
        If PyAV is not installed.
    FFmpegError
        If FFmpeg cannot read it, or there is no sound in it; also of its methods.

    Example
    -------
    >>> import av
    >>> path = getfixture("tmp_path") / "a.m4a"
    >>> with av.open(path, "w") as container:
    ...     stream = container.add_stream("aac", rate=16000, layout="mono")
    ...     silence = np.zeros((1, 16000), np.float32)
    ...     frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
    ...     frame.sample_rate, frame.pts = 16000, 0
    ...     container.mux([*stream.encode(frame), *stream.encode()])
    >>> with FFmpegFile(path) as file:
    ...     file.samplerate, file.channels, file.frames, file.read(800).shape
    (16000, 1, 16000, (800, 1))
    """

    extra_info = ""  # as of a SoundFile

    def __init__(self, content: Path | bytes) -> None:
        self._content = content
        self._file: BinaryIO = _opened(content)
        try:
            self._container, self._track = _sound_of(self._file)
        except BaseException:
            self._file.close()
            raise
        self.format = self._container.format.name
        self.samplerate: int = self._track.codec_context.sample_rate
        self.channels: int = self._track.codec_context.channels
        self._start: int = self._track.start_time or 0  # in the unit of its time stamps
        self._position = 0  # of the next sample to read
        self._has_decoded = False
        self._blocks = self._decode(0)
        self._rest = np.zeros((0, self.channels), np.float32)  # decoded, not read yet

    def __enter__(self) -> FFmpegFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()
        self._file.close()

    @cached_property
    def frames(self) -> int:
        """Samples per channel, by the header if it is exact, else by decoding all of them."""
        if EXACT_TIMES in self.format and self._track.duration is not None:
            return round(self._track.duration * self._track.time_base * self.samplerate)
        with _explained(), _opened(self._content) as file:
            container, track = _sound_of(file)
            with container:
                n_samples, end = 0, 0.0
                for packet in container.demux():
                    if packet.pts is not None:
                        end = max(end, float((packet.pts + packet.duration) * packet.time_base))
                    if packet.stream_index == track.index:
                        n_samples += sum(frame.samples for frame in packet.decode())
                promised = (container.duration or 0) / 1e6
        if TRUE_DURATION in self.format and end < promised - TOLERANCE_SECONDS:
            return round(promised * self.samplerate)  # it is cut off
        return n_samples

    def seek(self, position: int) -> None:
        """Go to a sample; ValueError if it is not there."""
        self._position = position
        self._blocks = self._decode(position)
        first = next(self._blocks, None)
        if first is None or (EXACT_TIMES in self.format and position > self.frames):
            raise ValueError(f"there is no sample {position}")
        self._rest = first

    def read(self, n_frames: int, dtype: str = "float32", always_2d: bool = True) -> np.ndarray:
        """Return the next samples [T, channels] float32; all that are left for -1."""
        if EXACT_TIMES in self.format:  # the last packet is longer than the sound
            left = max(0, self.frames - self._position)
            n_frames = left if n_frames < 0 else min(n_frames, left)
        parts, missing = [], n_frames
        while missing:
            if not len(self._rest):
                block = next(self._blocks, None)
                if block is None:
                    break
                self._rest = block
            part = self._rest if missing < 0 else self._rest[:missing]
            self._rest = self._rest[len(part) :]
            parts.append(part)
            missing -= len(part) if missing > 0 else 0
        samples = np.concatenate(parts) if parts else np.zeros((0, self.channels), np.float32)
        self._position += len(samples)
        return samples

    def _decode(self, first: int) -> Iterator[np.ndarray]:
        """Yield blocks [T, channels] from sample ``first`` on."""
        import av

        exact = EXACT_TIMES in self.format
        with _explained():
            if exact:
                seconds = max(0.0, first / self.samplerate - PREROLL)
                place = self._start + int(seconds / self._track.time_base)
                self._container.seek(place, stream=self._track)
            elif self._has_decoded:
                self._rewind()
            self._has_decoded = True
            position = None if exact else 0
            resampler = av.AudioResampler(format="fltp")  # of the form of samples, not of the rate
            for frame in self._container.decode(self._track):
                if position is None:
                    time = ((frame.pts or 0) - self._start) * frame.time_base
                    position = round(time * self.samplerate)
                for converted in resampler.resample(frame):
                    block = converted.to_ndarray().T
                    skipped = min(max(0, first - position), len(block))
                    position += len(block)
                    if skipped < len(block):
                        yield block[skipped:]

    def _rewind(self) -> None:
        """Open the file anew, since decoding from its start is exact where seeking is not."""
        self._container.close()
        self._file.close()
        self._file = _opened(self._content)
        self._container, self._track = _sound_of(self._file)


def _opened(content: Path | bytes) -> BinaryIO:
    # A file and not its name, in which FFmpeg would find protocols.
    return io.BytesIO(content) if isinstance(content, bytes) else open(os.fspath(content), "rb")


@contextmanager
def _explained() -> Iterator[None]:
    import av

    try:
        yield
    except (av.error.FFmpegError, UnicodeDecodeError) as error:
        raise FFmpegError(f"FFmpeg: {error}") from error


def _sound_of(file: BinaryIO) -> tuple[Any, Any]:
    """Return an open container and its first track of sound."""
    import av

    with _explained():
        container = av.open(file)
    track = next(iter(container.streams.audio), None)
    if track is None or not track.codec_context or not track.codec_context.sample_rate:
        container.close()
        raise FFmpegError("it has no track of sound")
    return container, track
