"""Index of all audio below a folder, in plain files and in tar shards, by name.

Names are stored as 64-bit hashes in sorted arrays, which all processes map into memory: 18 M clips
take half a gigabyte once, not several in every process. At that size the probability that a look-up
of a missing clip finds another one is 1e-12.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from hashlib import blake2b
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from speechbrain_clsp.dataio.shards import AUDIO_SUFFIXES, scan_shard
from speechbrain_clsp.utils.files import atomic_path, atomic_write

UNREADABLE_SUFFIXES = {".m4a", ".aac", ".mp4", ".wma"}  # audio, but not for libsndfile
_ARRAYS = {"keys": np.uint64, "files": np.int32, "offsets": np.int64, "sizes": np.int64}


class Place(NamedTuple):
    """Location of a clip's audio."""

    audio: str  # the file, or the shard that holds it
    offset: int | None = None  # first byte in the shard
    nbytes: int | None = None


def key_of(name: str, depth: int) -> int:
    """Return the 64-bit hash of the last parts of a path without its suffix.

    Arguments
    ---------
    name : str
        A path, or an id in which the parts of a path are joined by ``-`` or ``_``.
    depth : int
        Number of parts that identify a clip.

    Example
    -------
    >>> key_of("wav/id1/x-y/00001.wav", 3) == key_of("id1-x-y-00001", 3) != key_of("00001", 3)
    True
    """
    stem, suffix = os.path.splitext(name)
    if suffix.lower() not in AUDIO_SUFFIXES | UNREADABLE_SUFFIXES:
        stem = name
    parts = [part for part in stem.split("/") if part not in ("", ".")]
    joined = "_".join(parts[-depth:]).replace("-", "_")
    return int.from_bytes(blake2b(joined.encode(), digest_size=8).digest(), "little")


class AudioIndex:
    """A written index, mapped into memory.

    Arguments
    ---------
    folder : path
        Folder written by :func:`build_index`.

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
        about = json.loads((self.folder / "index.json").read_text(encoding="utf-8"))
        self.depth: int = about["depth"]
        self.problems: list[str] = about["problems"]
        self.unreadable: int = about["unreadable"]
        self.shards: int = about["shards"]
        self.fingerprint: str = about["fingerprint"]
        arrays = {n: np.load(self.folder / f"{n}.npy", mmap_mode="r") for n in _ARRAYS}
        self.keys, self.files = arrays["keys"], arrays["files"]
        self.offsets, self.sizes = arrays["offsets"], arrays["sizes"]
        with pa.memory_map(str(self.folder / "paths.arrow")) as source:
            self.paths = pa.ipc.open_file(source).read_all().column("path")

    def __reduce__(self) -> tuple:
        return AudioIndex, (self.folder,)

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, name: str) -> Place | None:
        """Look up a clip.

        Arguments
        ---------
        name : str
            Path or id of the clip.

        Returns
        -------
        Place or None
            None if there is no such clip.

        Raises
        ------
        LookupError
            If there are several.
        """
        key = np.uint64(key_of(name, self.depth))
        first = int(np.searchsorted(self.keys, key))
        if first == len(self.keys) or self.keys[first] != key:
            return None
        place = self._place(first)
        if first + 1 < len(self.keys) and self.keys[first + 1] == key:
            raise LookupError(f"in {place.audio} and in {self._place(first + 1).audio}")
        return place

    def _place(self, entry: int) -> Place:
        audio, offset = self.paths[int(self.files[entry])].as_py(), int(self.offsets[entry])
        return (
            Place(audio, None, None) if offset < 0 else Place(audio, offset, int(self.sizes[entry]))
        )


def build_index(root: str | os.PathLike, depth: int, folder: Path, n_jobs: int = 1) -> AudioIndex:
    """Index all audio files, and all members of tar files, below a folder.

    Arguments
    ---------
    root : str or path
        The folder.
    depth : int
        As for :func:`key_of`.
    folder : path
        Where the index is written. Scans of shards are kept there and repeated only if a shard's
        size or modification time changes, so an interrupted call is resumed.
    n_jobs : int
        Number of processes.

    Returns
    -------
    AudioIndex
        Its ``problems`` list damage found in shards.
    """
    shards, files, unreadable = _walk(Path(root))
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    scan = partial(_scan_to_file, depth=depth, folder=folder / "shards")
    progress = tqdm(
        run_all(scan, shards, n_jobs), "tar files", len(shards), unit="file", disable=not shards
    )
    scans = [pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in progress]
    problems = [line for scan in scans for line in json.loads(scan.schema.metadata[b"problems"])]
    counts = np.array([len(scan) for scan in scans], dtype=np.int64)
    plain = np.fromiter((key_of(path, depth) for path in files), np.uint64, len(files))
    parts = {"keys": [plain], "offsets": [np.full(len(files), -1)], "sizes": [np.zeros(len(files))]}
    for name, found in parts.items():
        found.extend(scan.column(name).to_numpy() for scan in scans)
    arrays = {name: np.concatenate(found).astype(_ARRAYS[name]) for name, found in parts.items()}
    numbers = np.repeat(np.arange(len(files), len(files) + len(scans)), counts)
    arrays["files"] = np.concatenate([np.arange(len(files)), numbers]).astype(np.int32)
    order = np.argsort(arrays["keys"], kind="stable")
    arrays = {name: values[order] for name, values in arrays.items()}
    about = {"depth": depth, "problems": problems, "unreadable": unreadable, "shards": len(shards)}
    _save(folder, arrays, files + shards, about)
    return AudioIndex(folder)


def run_all(work: Callable, items: Iterable, n_jobs: int) -> Iterator:
    """Apply a function to all items in ``n_jobs`` processes; yield results in order."""
    if n_jobs == 1:
        yield from map(work, items)
        return
    # Spawned: forked children would inherit the locks of threads that they do not have.
    with ProcessPoolExecutor(n_jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(work, items)


def _walk(root: Path) -> tuple[list[str], list[str], int]:
    """Return the tar files, the audio files, and the number of undecodable audio files."""
    shards, files, unreadable = [], [], 0
    for parent, folders, names in os.walk(root, followlinks=True):
        folders.sort()
        for name in sorted(names):
            suffix = os.path.splitext(name)[1].lower()
            if name.startswith("."):
                continue
            if suffix == ".tar" or name.endswith((".tar.gz", ".tgz")):
                shards.append(os.path.join(parent, name))
            elif suffix in AUDIO_SUFFIXES:
                files.append(os.path.join(parent, name))
            unreadable += suffix in UNREADABLE_SUFFIXES
    return shards, files, unreadable


def _scan_to_file(shard: str, depth: int, folder: Path) -> Path:
    """Scan a shard into a file, unless that was done before; return the file."""
    status = os.stat(shard)
    state = json.dumps([os.path.abspath(shard), status.st_size, status.st_mtime_ns, depth])
    path = folder / f"{Path(shard).stem}-{blake2b(state.encode(), digest_size=8).hexdigest()}.arrow"
    if path.is_file():
        return path
    members, problems = scan_shard(shard)
    table = pa.table(
        {
            "keys": pa.array([key_of(m.name, depth) for m in members], pa.uint64()),
            "offsets": pa.array([m.offset for m in members], pa.int64()),
            "sizes": pa.array([m.nbytes for m in members], pa.int64()),
        }
    ).replace_schema_metadata({"problems": json.dumps([f"{shard}: {line}" for line in problems])})
    with atomic_path(path) as partial_path:
        _write_table(partial_path, table)
    return path


def _write_table(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _save(folder: Path, arrays: dict[str, np.ndarray], paths: list[str], about: dict) -> None:
    """Write an index; ``index.json`` is written last, so that an index is complete if it exists."""
    (folder / "index.json").unlink(missing_ok=True)
    digest = blake2b(digest_size=16)
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
        digest.update(values)
    _write_table(folder / "paths.arrow", pa.table({"path": pa.array(paths, pa.string())}))
    digest.update("\n".join(paths).encode())
    about["fingerprint"] = digest.hexdigest()
    atomic_write(folder / "index.json", json.dumps(about))
