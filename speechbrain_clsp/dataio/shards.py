"""Audio inside tar files, without unpacking them.

One scan of a shard's headers tells where each member's bytes are; from then on a clip is one read
at an offset and one decode. Of a damaged shard, the undamaged members are listed.
"""

from __future__ import annotations

import math
import os
import tarfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from speechbrain_clsp.dataio.audio import (
    SAMPLE_RATE,
    AudioError,
    read_audio,
    read_samples,
    read_windows,
)
from speechbrain_clsp.utils.content import HEAD, describe_content
from speechbrain_clsp.utils.files import expand

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".mp3", ".ogg", ".opus"})  # what libsndfile decodes
BLOCK = tarfile.BLOCKSIZE


class Member(NamedTuple):
    """Where a file lies in a shard."""

    name: str
    offset: int  # its first byte
    nbytes: int


class Scan(NamedTuple):
    """The result of a scan."""

    members: list[Member]
    problems: list[str]  # what was left out, with byte positions


def scan_shard(path: str | os.PathLike) -> Scan:
    """List the audio files in an uncompressed tar file, reading its headers only.

    Returns undamaged members, and a line for everything damaged: a header (the search goes on
    behind it), a member that is empty or cut off, a missing end mark.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.tar"
    >>> clip = path.with_name("clip.mp3")
    >>> _ = clip.write_bytes(b"sound")
    >>> with tarfile.open(path, "w") as tar:
    ...     tar.add(clip, "clip.mp3")
    >>> (member,), problems = scan_shard(path)
    >>> member.name, path.read_bytes()[member.offset :][: member.nbytes], problems
    ('clip.mp3', b'sound', [])
    """
    path = expand(path)
    members, problems, expected = [], [], 0
    size = path.stat().st_size
    with open(path, "rb") as file:
        try:
            # ignore_zeros: else the list ends silently at the first damaged header.
            with tarfile.open(fileobj=file, mode="r:", ignore_zeros=True) as tar:
                for info in tar:
                    problems += _gap(path, expected, info.offset)
                    expected = info.offset_data + -(-info.size // BLOCK) * BLOCK
                    if not info.isreg() or not _is_audio(info.name):
                        continue
                    if info.size == 0:
                        problems.append(f"{info.name}: empty")
                    elif info.offset_data + info.size > size:
                        problems.append(f"{info.name}: cut off at byte {size}")
                    else:
                        members.append(Member(info.name, info.offset_data, info.size))
        except tarfile.TarError as error:
            if not expected:
                file.seek(0)
                kind = describe_content(file.read(HEAD))
                reason = f"it is {kind}" if kind else error
                return Scan([], [f"not read, no tar file: {reason}"])
    if expected >= size:
        problems.append(f"no end mark after byte {min(expected, size)}: probably cut off")
    else:
        problems += _gap(path, expected, size)
    return Scan(members, problems)


def _is_audio(name: str) -> bool:
    hidden = os.path.basename(name).startswith("._")  # what macOS adds
    return not hidden and os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES


def _gap(path: Path, start: int, end: int) -> list[str]:
    """Tell of bytes between members that are not the zeros of an end mark."""
    if start >= end:
        return []
    with open(path, "rb") as file:
        file.seek(start)
        if not any(file.read(BLOCK)):
            return []
    return [f"{end - start} bytes from byte {start} on belong to no member: damaged header"]


class ClipReader:
    """Reads the audio of manifest rows: plain files, members of shards, parts of either.

    Keeps some shards open; copies of it in other processes open their own.

    Arguments
    ---------
    max_open : int
        Shards that are open at once.

    Example
    -------
    >>> import numpy, soundfile
    >>> folder = getfixture("tmp_path")
    >>> soundfile.write(folder / "a.wav", numpy.zeros(16000), 16000)
    >>> size = (folder / "a.wav").stat().st_size
    >>> _ = (folder / "shard").write_bytes(b"?" * 100 + (folder / "a.wav").read_bytes())
    >>> row = {"id": "a", "audio": str(folder / "shard"), "offset": 100, "nbytes": size}
    >>> ClipReader()(row | {"start": 0.5, "duration": 0.25}).shape
    torch.Size([4000])
    """

    def __init__(self, max_open: int = 64) -> None:
        self.max_open = max_open
        self._open: OrderedDict[str, int] = OrderedDict()

    def __reduce__(self) -> tuple:
        return ClipReader, (self.max_open,)

    def __del__(self) -> None:
        for descriptor in getattr(self, "_open", {}).values():
            os.close(descriptor)

    def __call__(self, row: Mapping[str, Any]) -> Tensor:
        """Return a row's clip, [T] float32 at 16 kHz.

        A row is a dict of ``audio`` and, where they apply, ``offset``, ``nbytes``, ``start``,
        ``duration``, ``channel``; ``duration`` counts only with ``start``.

        Raises
        ------
        FileNotFoundError, AudioError
            As :func:`~speechbrain_clsp.dataio.audio.read_audio`; also if a shard is shorter than
            it was. The message names clip, shard and byte.
        """
        return read_audio(**self._arguments(row))

    def read_windows(self, row: Mapping[str, Any], longest: float) -> Iterator[Tensor]:
        """Return a row's clip as equal consecutive windows [T] of at most ``longest`` seconds.

        A clip that is all of its file is decoded one window at a time, as by
        :func:`~speechbrain_clsp.dataio.audio.read_windows`. Errors are those of a call.
        """
        if row.get("start") is None and row.get("channel") is None:
            arguments = self._arguments(row)
            yield from read_windows(arguments["source"], longest, arguments["name"])
        else:
            wav = self(row)
            n_windows = math.ceil(len(wav) / SAMPLE_RATE / longest)
            yield from wav.split(math.ceil(len(wav) / n_windows))

    def read_samples(self, row: Mapping[str, Any]) -> tuple[np.ndarray, int]:
        """Return a row's clip as it is, [T, channels] float32, and its rate in Hz.

        Arguments and errors are those of a call.
        """
        return read_samples(**self._arguments(row))

    def _arguments(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of the functions that decode."""
        offset, start = row.get("offset"), row.get("start")
        name = row["audio"] if offset is None else f"{row['audio']}, byte {offset}"
        part = {} if start is None else {"start": start, "duration": row["duration"]}
        source = self.source_of(row)
        return {"source": source, "name": name, "channel": row.get("channel"), **part}

    def source_of(self, row: Mapping[str, Any]) -> str | bytes:
        """Return a row's file: its path, or its bytes if it is a member of a shard."""
        return row["audio"] if row.get("offset") is None else self.read_bytes(row)

    def read_bytes(self, row: Mapping[str, Any]) -> bytes:
        """Return the bytes of a row's file, still encoded."""
        if row.get("offset") is None:
            return Path(row["audio"]).read_bytes()
        data = os.pread(self._descriptor(row["audio"]), row["nbytes"], row["offset"])
        if len(data) < row["nbytes"]:
            raise AudioError(
                f"{row['audio']}: ends before byte {row['offset'] + row['nbytes']}, where a clip"
                " should end; it has changed or was cut off, prepare the data again"
            )
        return data

    def _descriptor(self, path: str) -> int:
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{path}: no such shard") from error
        self._open[path] = descriptor
        if len(self._open) > self.max_open:
            os.close(self._open.popitem(last=False)[1])
        return descriptor
