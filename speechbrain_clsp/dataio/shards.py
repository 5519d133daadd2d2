"""Audio inside tar files, without unpacking them.

One scan of a shard's headers tells where each member's bytes are; from then on a clip is one read
at an offset and one decode. Of a damaged shard, the undamaged members are listed.
"""

from __future__ import annotations

import hashlib
import math
import os
import tarfile
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

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
from speechbrain_clsp.utils.files import atomic_path, expand, sha256_of_file

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".mp3", ".ogg", ".opus"})  # what libsndfile decodes
# What needs PyAV, the extra ``video``.
FFMPEG_SUFFIXES = frozenset(
    {".m4a", ".aac", ".mp4", ".wma", ".webm", ".mkv", ".mka", ".mov", ".avi", ".3gp", ".amr"}
)
BLOCK = tarfile.BLOCKSIZE


class Member(NamedTuple):
    """Where a file lies in a shard."""

    name: str
    offset: int  # its first byte
    nbytes: int


class Place(NamedTuple):
    """Where the audio of a clip lies."""

    audio: str  # the file, or the shard that holds it
    offset: int | None = None  # first byte in the shard
    nbytes: int | None = None


class Scan(NamedTuple):
    """The result of a scan."""

    members: list[Member]
    problems: list[str]  # what was left out, with byte positions


def scan_shard(path: str | os.PathLike, suffixes: Collection[str] = AUDIO_SUFFIXES) -> Scan:
    """List the files with certain suffixes in an uncompressed tar file, reading its headers only.

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
                    if not info.isreg() or not _has_suffix(info.name, suffixes):
                        continue
                    if info.size == 0:
                        problems.append(f"{info.name}: empty")
                    elif info.offset_data + info.size > size:
                        problems.append(f"{info.name}: cut off at byte {size}")
                    else:
                        members.append(Member(info.name, info.offset_data, info.size))
        except tarfile.TarError as error:
            problem: object = error
        else:
            problem = "it has no header of a member"
        if not expected:
            file.seek(0)
            kind = describe_content(file.read(HEAD))
            return Scan([], [f"not read, no tar file: {f'it is {kind}' if kind else problem}"])
    if expected >= size:
        problems.append(f"no end mark after byte {min(expected, size)}: probably cut off")
    else:
        problems += _gap(path, expected, size)
    return Scan(members, problems)


def _has_suffix(name: str, suffixes: Collection[str]) -> bool:
    hidden = os.path.basename(name).startswith("._")  # what macOS adds
    return not hidden and os.path.splitext(name)[1].lower() in suffixes


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


class ShardWriter:
    """Writes audio that is in no file of its own to tar files, which are named by their content.

    Equal audio is stored once. Nothing is left of it if its block raises, or ends without
    :meth:`commit`.

    Arguments
    ---------
    folder : str or path
        Where the tar files go; it is made when the first one is.
    max_bytes : int
        Size from which on another tar file is begun.

    Example
    -------
    >>> folder = getfixture("tmp_path") / "train-audio"
    >>> with ShardWriter(folder) as writer:
    ...     place = writer.add(b"RIFF...", ".wav")
    ...     names = writer.commit()
    >>> ClipReader().read_bytes({**place._asdict(), "audio": names[place.audio]})
    b'RIFF...'
    """

    def __init__(self, folder: str | os.PathLike, max_bytes: int = 1 << 30) -> None:
        self.folder, self.max_bytes = Path(os.path.abspath(expand(folder))), max_bytes
        self._files = ExitStack()
        self._shard: BinaryIO | None = None
        self._paths: list[Path] = []  # of the temporary files
        self._places: dict[bytes, Place] = {}  # by SHA-256
        self._is_committed = False

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_committed:
            self._close()
            self._remove_temporary()
            if self._paths and not any(self.folder.iterdir()):
                self.folder.rmdir()

    def add(self, data: bytes, suffix: str = "") -> Place:
        """Store a clip; its ``audio`` is a temporary name until :meth:`commit`."""
        key = hashlib.sha256(data).digest()
        if key in self._places:
            return self._places[key]
        file = self._shard
        if file is None or file.tell() + len(data) > self.max_bytes:
            file = self._begin()
        info = tarfile.TarInfo(f"{len(self._places):08d}{suffix}")
        info.size = len(data)
        file.write(info.tobuf())  # not by a TarFile, which keeps all headers
        offset = file.tell()
        file.write(data + bytes(-len(data) % BLOCK))
        self._places[key] = Place(str(self._paths[-1]), offset, len(data))
        return self._places[key]

    def flush(self) -> None:
        """Write out what was added, so that it can be read."""
        self._close()

    def commit(self) -> dict[str, str]:
        """Keep the tar files; return their names by the temporary ones."""
        self._close()
        names = {}
        for path in self._paths:  # none gets a name that another process may give its own
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
            names[str(path)] = str(self.folder / f"{sha256_of_file(path)[:16]}.tar")
            os.replace(path, names[str(path)])
        self._remove_temporary()
        self._is_committed = True
        return names

    def _remove_temporary(self) -> None:
        self._files.__exit__(InterruptedError, InterruptedError(), None)

    def _begin(self) -> BinaryIO:
        self._close()
        final = self.folder / f"{len(self._paths):05d}.tar"
        self._paths.append(self._files.enter_context(atomic_path(final)))
        self._shard = open(self._paths[-1], "wb")
        return self._shard

    def _close(self) -> None:
        if self._shard is not None:
            self._shard.write(bytes(2 * BLOCK))  # the end mark
            self._shard.close()
            self._shard = None
