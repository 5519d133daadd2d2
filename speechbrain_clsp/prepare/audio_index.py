"""Which audio there is below a folder, in files and in tar shards, found by name.

Names are kept as 64-bit hashes in sorted arrays that processes map into memory: 18 M clips take
half a gigabyte once, not several in every process. That a clip which is not there is taken for
another has a probability of 1e-12 per look-up at that size.
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

UNREADABLE_SUFFIXES = {".m4a", ".aac", ".mp4", ".wma"}  # audio, but not for libsndfile
_ARRAYS = {"keys": np.uint64, "files": np.int32, "offsets": np.int64, "sizes": np.int64}


class Place(NamedTuple):
    """Where a clip's audio is; offset and size are None for a file of its own."""

    audio: str
    offset: int | None
    nbytes: int | None


def key_of(name: str, depth: int) -> int:
    """Return the hash of the last parts of a path without its suffix.

    Arguments
    ---------
    name : str
        A path, or an id, in which parts are joined by ``/``, ``-`` or ``_``.
    depth : int
        How many parts of a path name a clip.

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
    """A written index.

    Arguments
    ---------
    folder : path
        Written by :func:`build_index`.

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
        """Return where the audio of a name is, None if it is nowhere.

        Raises
        ------
        LookupError
            If it is in more than one place.
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
    """Look through a folder: all audio files, and all tar files' members.

    Arguments
    ---------
    root : str or path
        Where the audio is.
    depth : int
        As for :func:`key_of`.
    folder : path
        Where the index goes. What was found in a shard is kept there, and looked up again only
        if the shard's size or time changed; so an interrupted scan goes on.
    n_jobs : int
        Processes.

    Returns
    -------
    AudioIndex
        Its ``problems`` tell what was damaged.
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
    """Apply a function to all items, in order, in so many processes."""
    if n_jobs == 1:
        yield from map(work, items)
        return
    # Spawned: forked children would inherit the locks of threads that they do not have.
    with ProcessPoolExecutor(n_jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(work, items)


def _walk(root: Path) -> tuple[list[str], list[str], int]:
    """Return the tar files and the audio files below a folder, and how many cannot be decoded."""
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
    """Scan one shard into a file, unless that was done; returns the file."""
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
    partial_path = path.with_suffix(f".{os.getpid()}.partial")
    with pa.OSFile(str(partial_path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    os.replace(partial_path, path)
    return path


def _save(folder: Path, arrays: dict[str, np.ndarray], paths: list[str], about: dict) -> None:
    """Write an index; ``index.json`` comes last and is what makes it one."""
    (folder / "index.json").unlink(missing_ok=True)
    digest = blake2b(digest_size=16)
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
        digest.update(values)
    table = pa.table({"path": pa.array(paths, pa.string())})
    with pa.OSFile(str(folder / "paths.arrow"), "wb") as sink:
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    digest.update("\n".join(paths).encode())
    about["fingerprint"] = digest.hexdigest()
    (folder / "index.json").write_text(json.dumps(about), encoding="utf-8")
