"""Index of all audio below a folder, in plain files and in tar shards, by name.

Names are stored as 64-bit hashes in sorted arrays, which all processes map into memory: 18 M clips
take half a gigabyte once, not several in every process. At that size the probability that a look-up
of a missing clip finds another one is 1e-12.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from hashlib import blake2b
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from speechbrain_clsp.dataio.shards import AUDIO_SUFFIXES, FFMPEG_SUFFIXES, Place, scan_shard
from speechbrain_clsp.utils.files import atomic_path
from speechbrain_clsp.utils.reading import printable

_SCAN = pa.schema({"key": pa.uint64(), "offset": pa.int64(), "nbytes": pa.int64()})


def key_of(name: str, depth: int) -> int:
    """Return the 64-bit hash of the last ``depth`` parts of a path without its suffix.

    ``name`` may also be an id in which the parts of a path are joined by ``-`` or ``_``.

    Example
    -------
    >>> key_of("wav/id1/x-y/00001.wav", 3) == key_of("id1-x-y-00001", 3) != key_of("00001", 3)
    True
    """
    stem, suffix = os.path.splitext(name)
    if suffix.lower() not in AUDIO_SUFFIXES | FFMPEG_SUFFIXES:
        stem = name
    parts = [part for part in stem.split("/") if part not in ("", ".")]
    joined = "_".join(parts[-depth:]).replace("-", "_").encode(errors="surrogateescape")
    return int.from_bytes(blake2b(joined, digest_size=8).digest(), "little")


class AudioIndex:
    """A folder written by :func:`build_index`, mapped into memory.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "p001").mkdir()
    >>> _ = (folder / "p001" / "happy.wav").write_bytes(b"RIFF")
    >>> index = build_index(folder, 2, folder / "index", n_jobs=1)
    >>> index.find("p001/happy").audio == str(folder / "p001" / "happy.wav")
    True
    >>> index.find("p002/happy") is None
    True
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        clips = _read_table(self.folder / "clips.arrow")
        about = json.loads(clips.schema.metadata[b"about"])
        self.depth: int = about["depth"]
        self.problems: list[str] = about["problems"]
        self.unreadable: int = about["unreadable"]
        self.fingerprint: str = about["fingerprint"]
        self.keys = clips.column("key").to_numpy()
        self.places = clips.select(["file", "offset", "nbytes"])
        self.paths = _read_table(self.folder / "paths.arrow").column("path")

    def __reduce__(self) -> tuple:
        return AudioIndex, (self.folder,)

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, name: str) -> Place | None:
        """Look up a clip by a path or id of it; raise LookupError if there are several."""
        key = np.uint64(key_of(name, self.depth))
        first = int(np.searchsorted(self.keys, key))
        if first == len(self.keys) or self.keys[first] != key:
            return None
        place = self._place(first)
        if first + 1 < len(self.keys) and self.keys[first + 1] == key:
            raise LookupError(f"in {place.audio} and in {self._place(first + 1).audio}")
        return place

    def _place(self, entry: int) -> Place:
        file, offset, nbytes = (column[entry].as_py() for column in self.places.columns)
        return Place(self.paths[file].as_py(), offset, nbytes)


def build_index(root: str | os.PathLike, depth: int, folder: Path, n_jobs: int = 1) -> AudioIndex:
    """Index all audio files, and all members of tar files, below a folder.

    The index is written to ``folder``; ``depth`` is that of :func:`key_of`. Scans of shards are
    kept and repeated only if a shard's size or modification time changes, so an interrupted call is
    resumed.
    """
    shards, files, unreadable, unnamed = _walk(Path(root))
    scan = partial(_scan_to_file, depth=depth, folder=folder / "shards")
    progress = tqdm(
        run_all(scan, shards, n_jobs), "tar files", len(shards), unit="file", disable=not shards
    )
    scans = [_read_table(path) for path in progress]
    problems = [f"{path}: the name is not UTF-8, rename it" for path in unnamed]
    problems += [line for scan in scans for line in json.loads(scan.schema.metadata[b"problems"])]
    keys = np.fromiter((key_of(path, depth) for path in files), np.uint64, len(files))
    nulls = pa.nulls(len(files), pa.int64())
    plain = pa.table([pa.array(keys), nulls, nulls], schema=_SCAN)
    clips = pa.concat_tables([plain, *(scan.replace_schema_metadata() for scan in scans)])
    counts = [1] * len(files) + [len(scan) for scan in scans]
    numbers = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    order = np.argsort(clips.column("key").to_numpy(), kind="stable")
    clips = clips.append_column("file", pa.array(numbers)).take(order).combine_chunks()
    digest = blake2b("\n".join(files + shards).encode(), digest_size=16)
    for column in clips.columns:
        digest.update(np.ascontiguousarray(column.to_numpy()).data)
    about = {"depth": depth, "problems": problems, "unreadable": unreadable}
    about["fingerprint"] = digest.hexdigest()
    paths = pa.array(files + shards, pa.string())
    _write_table(folder / "paths.arrow", pa.table({"path": paths}))
    _write_table(
        folder / "clips.arrow", clips.replace_schema_metadata({"about": json.dumps(about)})
    )
    return AudioIndex(folder)


def run_all(work: Callable, items: Iterable, n_jobs: int) -> Iterator:
    """Apply a function to all items in ``n_jobs`` processes; yield results in order.

    Items are read as results are taken, so that few of either are in memory.
    """
    if n_jobs == 1:
        yield from map(work, items)
        return
    # Spawned: forked children would inherit the locks of threads that they do not have, and the
    # state of libraries such as libespeak-ng.
    pool = ProcessPoolExecutor(n_jobs, mp_context=get_context("spawn"))
    try:
        waiting: deque[Future] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * n_jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _walk(root: Path) -> tuple[list[str], list[str], int, list[str]]:
    """Return the tar files, the audio files, and the number of undecodable audio files.

    The last are files of which a table cannot hold the name, as messages show it.
    """
    shards, files, unreadable = [], [], 0
    unnamed: list[str] = []
    for parent, folders, names in os.walk(root, followlinks=True):
        folders.sort()
        for name in sorted(names):
            suffix = os.path.splitext(name)[1].lower()
            if name.startswith("."):
                continue
            path = os.path.join(parent, name)
            if printable(path) != path:
                unnamed += [printable(path)] if suffix in {".tar", *AUDIO_SUFFIXES} else []
                continue
            if suffix == ".tar" or name.endswith((".tar.gz", ".tgz")):
                shards.append(path)
            elif suffix in AUDIO_SUFFIXES:
                files.append(path)
            unreadable += suffix in FFMPEG_SUFFIXES
    return shards, files, unreadable, unnamed


def _scan_to_file(shard: str, depth: int, folder: Path) -> Path:
    """Scan a shard into a file, unless that was done before; return the file."""
    status = os.stat(shard)
    state = json.dumps([os.path.abspath(shard), status.st_size, status.st_mtime_ns, depth])
    path = folder / f"{Path(shard).stem}-{blake2b(state.encode(), digest_size=8).hexdigest()}.arrow"
    if path.is_file():
        return path
    members, problems = scan_shard(shard)
    keys = [key_of(member.name, depth) for member in members]
    places = [m.offset for m in members], [m.nbytes for m in members]
    metadata = {"problems": json.dumps([printable(f"{shard}: {p}") for p in problems])}
    _write_table(path, pa.table([keys, *places], schema=_SCAN.with_metadata(metadata)))
    return path


def _read_table(path: Path) -> pa.Table:
    """Map a table into memory."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _write_table(path: Path, table: pa.Table) -> None:
    """Write a table atomically."""
    with (
        atomic_path(path) as partial_path,
        pa.OSFile(str(partial_path), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)
