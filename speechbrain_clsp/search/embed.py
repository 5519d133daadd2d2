"""Embedding a corpus into a store, by any number of processes at once.

The unit of work is a shard of the manifest. Which clips are embedded together depends on the shard
alone, so that its bytes do not depend on who wrote it, or after how many kills.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile
from torch import Tensor
from tqdm import tqdm

from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.dataio.shards import ClipReader
from speechbrain_clsp.inference.clsp import CLSP
from speechbrain_clsp.inference.files import Window, batch_windows, plan_batches
from speechbrain_clsp.search.leases import STALE_AFTER, claim
from speechbrain_clsp.search.store import (
    EmbeddingStore,
    Provenance,
    complete_shards,
    complete_store,
    read_mark,
    shard_path,
    shard_schema,
    start_store,
    vector_column,
    vectors_of,
    write_shard,
)
from speechbrain_clsp.utils.checks import BadEntriesError
from speechbrain_clsp.utils.cluster import RayCluster
from speechbrain_clsp.utils.files import sha256_of_file

SHARD_ROWS = 1024  # of 10 s: minutes of work for a processor, seconds for a GPU
BATCH_TEXTS = 64
FEW_BAD = 10  # clips of a shard that may be bad, however few it has
HELD = 10  # batches that wait in memory until it is known whether their clips were embedded before
KINDS = ("speech", "global", "fine")


def describe_run(
    clsp: CLSP,
    manifest: Manifest,
    kind: str = "speech",
    precision: str | None = None,
    shard_rows: int = SHARD_ROWS,
    max_batch_seconds: float = 60.0,
) -> Provenance:
    """Return what a store of these vectors says about them.

    Arguments
    ---------
    clsp : CLSP
        The model in fp32; its precision is chosen by :meth:`~CLSP.set_precision` afterwards. An
        exported one has its own.
    manifest : Manifest
        What is embedded.
    kind : str
        ``speech``, or ``global`` or ``fine`` for captions.
    precision : str, optional
        Of the arithmetic; default: the model's.
    shard_rows : int
        Rows of the manifest in a shard.
    max_batch_seconds : float
        Padded length of a batch.

    Returns
    -------
    Provenance
        With the hashes of weights and manifest.

    Example
    -------
    >>> from speechbrain_clsp.inference.clsp import CLSP  # doctest: +SKIP
    >>> clsp = CLSP.from_pretrained("results/mini/model")  # doctest: +SKIP
    >>> describe_run(clsp, Manifest("m.arrow")).dim  # doctest: +SKIP
    256
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {KINDS}, not {kind!r}")
    about = clsp.provenance()
    about["precision"] = precision or about["precision"]
    if os.path.isdir(about["model"]):  # found from wherever the store is used
        about["model"] = os.path.abspath(about["model"])
    return Provenance(
        kind=kind,
        **about,
        dim=clsp.encode_text(["A voice."]).shape[1],
        source=str(manifest.path.absolute()),
        source_sha256=sha256_of_file(manifest.path),
        rows=len(manifest),
        shard_rows=shard_rows,
        max_batch_seconds=max_batch_seconds,
        decoder=f"libsndfile {soundfile.__libsndfile_version__}" if kind == "speech" else "",
        packages={name: version(name) for name in ("torch", "torchaudio", "numpy", "soundfile")},
    )


@dataclass(frozen=True)
class Settings:
    """How a process embeds; nothing here changes a vector.

    Arguments
    ---------
    max_bad : float
        Fraction of a shard's clips that may be bad, beyond ten of them; 0: none may be.
    num_workers : int
        Threads that decode ahead; 0: the one that embeds.
    stale_after : float
        Seconds without a sign of life after which the claim of another process counts no more.
    progress : bool
        Whether to show a progress bar.

    Example
    -------
    >>> Settings(max_bad=0.01).num_workers
    1
    """

    max_bad: float = 0.0
    num_workers: int = 1
    stale_after: float = STALE_AFTER
    progress: bool = False


def embed_corpus(
    clsp: CLSP,
    manifest: Manifest,
    folder: Path,
    provenance: Provenance,
    settings: Settings = Settings(),  # noqa: B008 - frozen
    known: KnownVectors | None = None,
    cluster: RayCluster | None = None,
) -> EmbeddingStore:
    """Embed what no other process does, until the store is complete.

    Arguments
    ---------
    clsp : CLSP
        The model, in the precision of ``provenance``.
    manifest : Manifest
        The corpus.
    folder : pathlib.Path
        The store; one that an earlier run began is continued.
    provenance : Provenance
        As :func:`describe_run` returns it.
    settings : Settings
        Of this process.
    known : KnownVectors, optional
        Vectors of earlier runs, which are taken where the audio is the same.
    cluster : RayCluster, optional
        Whose tasks embed, a shard each, instead of this process; each process of the cluster opens
        model and manifest by their names.

    Returns
    -------
    EmbeddingStore
        Complete.

    Raises
    ------
    BadEntriesError
        If more clips of a shard are bad than may be; the shard stays open.
    FileExistsError, ValueError
        If the folder holds something else, or the store of another run; or if the manifest has no
        captions to embed.

    Example
    -------
    >>> clsp = CLSP.from_pretrained("results/mini/model")  # doctest: +SKIP
    >>> manifest = Manifest("m.arrow")  # doctest: +SKIP
    >>> about = describe_run(clsp, manifest)  # doctest: +SKIP
    >>> embed_corpus(clsp, manifest, Path("store"), about).provenance == about  # doctest: +SKIP
    True
    """
    column = f"{provenance.kind}_captions"
    if provenance.kind != "speech" and not any(manifest.values(column)):
        raise ValueError(f"{manifest.path} has no {provenance.kind} captions to embed")
    start_store(folder, provenance)
    hours = _hours_of_shards(manifest, provenance)
    done = complete_shards(folder, provenance)
    run = _Run(clsp, manifest, folder, provenance, settings, known)
    with _Progress(hours, done, settings.progress) as bar:
        while len(done) < provenance.n_shards:
            left = [n for n in range(provenance.n_shards) if n not in done]
            for _ in run.here(left, bar.advance) if cluster is None else run.on(cluster, left):
                bar.show(complete_shards(folder, provenance))
            done = complete_shards(folder, provenance)
            if len(done) < provenance.n_shards:  # others are at the rest, or have died
                time.sleep(min(1.0, settings.stale_after / 10))
    marks = complete_store(folder, provenance)
    if not any(mark.embedded for mark in marks):
        reasons = [f"{name}: {reason}" for mark in marks for name, reason in mark.bad]
        raise BadEntriesError(f"{folder}: nothing could be embedded", reasons)
    return EmbeddingStore(folder)


@dataclass(frozen=True)
class _Run:
    """What a process needs to embed shards of a corpus."""

    clsp: CLSP
    manifest: Manifest
    folder: Path
    about: Provenance
    settings: Settings
    known: KnownVectors | None

    def here(
        self, shards: Sequence[int], advance: Callable[[float], None]
    ) -> Iterator[tuple[int, bool]]:
        """Embed shards that no other process has, one after the other."""
        for shard in shards:
            if self.embed(shard, advance):
                yield shard, True

    def on(self, cluster: RayCluster, shards: Sequence[int]) -> Iterator[tuple[int, bool]]:
        """Embed shards in tasks of a cluster."""
        reuse = [str(store.folder) for store in self.known.stores] if self.known else []
        task = _ShardTask(
            self.folder,
            str(self.manifest.path),
            "cuda" if cluster.gpus else "cpu",
            self.settings,
            tuple(reuse),
            self.about,
        )
        return cluster.run(task, shards)

    def embed(
        self, shard: int, advance: Callable[[float], None] = lambda hours: None
    ) -> bool | None:
        """Embed a shard unless it is complete; returns None if another process is at it."""
        if read_mark(self.folder, shard) is not None:
            return True
        lease = claim(shard_path(self.folder, shard, ".lease"), self.settings.stale_after)
        if lease is None:
            return None
        with lease:
            if read_mark(self.folder, shard) is not None:
                return True
            rows = [self.manifest[row] for row in self.about.rows_of(shard)]
            work = _ShardWork(self.clsp, rows, self.about, shard, self.settings, self.known)
            table, mark = work.run(advance)
            return write_shard(self.folder, shard, table, mark, lease.is_held) or None


@dataclass(frozen=True)
class _ShardTask:
    """Embeds a shard in a process of a cluster."""

    folder: Path
    manifest: str
    device: str
    settings: Settings
    reuse: tuple[str, ...]
    about: Provenance = field(compare=False)  # follows from the folder

    def __call__(self, shard: int) -> bool | None:
        return _open_run(self).embed(shard)


@lru_cache(maxsize=1)
def _open_run(task: _ShardTask) -> _Run:
    """Open once per process what its tasks need; raise ValueError if it would compute other bytes.

    Nodes may have another model or manifest under the same name, or other libraries.
    """
    clsp = CLSP.from_pretrained(task.about.model, run_opts={"device": task.device})
    manifest, about = Manifest(task.manifest), task.about
    here = describe_run(
        clsp, manifest, about.kind, about.precision, about.shard_rows, about.max_batch_seconds
    )
    start_store(task.folder, here)
    known = KnownVectors([EmbeddingStore(each) for each in task.reuse]) if task.reuse else None
    clsp.set_precision(about.precision)
    return _Run(clsp, manifest, task.folder, about, task.settings, known)


def _hours_of_shards(manifest: Manifest, provenance: Provenance) -> np.ndarray:
    seconds = manifest.array("duration").astype(float)
    starts = range(0, provenance.rows, provenance.shard_rows)
    return np.add.reduceat(seconds, list(starts)) / 3600


class _Progress:
    """A bar of hours of audio, of all processes together."""

    FORMAT = (
        "{percentage:3.0f}% |{bar}| {n:.2f} of {total:.2f} h [{elapsed}, {remaining} left{postfix}]"
    )

    def __init__(self, hours: np.ndarray, done: set[int], shown: bool) -> None:
        self._hours, self._start = hours, time.monotonic()
        self._first = float(hours[list(done)].sum())
        self._bar = tqdm(
            total=float(hours.sum()),
            initial=self._first,
            bar_format=self.FORMAT,
            disable=not shown,
        )

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self, hours: float) -> None:
        """Add what a batch brought."""
        self._bar.update(hours)

    def show(self, done: set[int]) -> None:
        """Show what all processes have done."""
        self._bar.n = float(self._hours[list(done)].sum())
        seconds = time.monotonic() - self._start
        speed = (self._bar.n - self._first) * 3600 / max(seconds, 1e-9)
        self._bar.set_postfix_str(f"{speed:.0f} hours per hour")


class KnownVectors:
    """Vectors of earlier stores of the same model, by the content of what was embedded.

    Arguments
    ---------
    stores : list of EmbeddingStore
        They must be of one model and precision.

    Example
    -------
    >>> from speechbrain_clsp.search.store import write_store
    >>> write_store(getfixture("tmp_path") / "s", ["a"], np.eye(1), weights_sha256="ab")
    >>> known = KnownVectors([EmbeddingStore(getfixture("tmp_path") / "s")])
    >>> known.find(b"0" * 32) is None  # a store that was not embedded here knows no content
    True
    """

    def __init__(self, stores: Sequence[EmbeddingStore]) -> None:
        self.stores = list(stores)
        keys, self._places = [np.empty(0, np.uint64)], []
        for store in self.stores:
            for table in store.tables():
                contents = table.column("content").drop_null().combine_chunks()
                if len(contents) == len(table) > 0:  # else the vectors were computed elsewhere
                    keys.append(np.array([_key(each) for each in contents.to_pylist()], np.uint64))
                    self._places += [table]
        self._ends = np.cumsum([len(part) for part in keys])
        joined = np.concatenate(keys)
        self._order = np.argsort(joined, kind="stable")
        self._keys = joined[self._order]

    def check(self, provenance: Provenance) -> None:
        """Raise ValueError if the vectors are not those that a run would compute."""
        for store in self.stores:
            for name in ("kind", "weights_sha256", "precision", "preprocessing", "decoder"):
                theirs, ours = getattr(store.provenance, name), getattr(provenance, name)
                if theirs != ours:
                    raise ValueError(
                        f"{store.folder} cannot be used again: its {name} is {theirs!r}, not"
                        f" {ours!r}"
                    )

    def find(self, content: bytes) -> np.ndarray | None:
        """Return the vector [D] of a content, or None."""
        first = int(np.searchsorted(self._keys, _key(content)))
        for place in self._order[first:]:
            number = int(np.searchsorted(self._ends, place, side="right")) - 1
            table, row = self._places[number], int(place - self._ends[number])
            there = table.column("content")[row].as_py()
            if there == content:
                return vectors_of(table.column("vector"))[row]
            if _key(there) != _key(content):
                break
        return None


def _key(content: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(content[:8], "big"))


class _ShardWork:
    """One shard: its clips or captions, and what becomes of them."""

    def __init__(
        self,
        clsp: CLSP,
        rows: Sequence[Mapping[str, Any]],
        provenance: Provenance,
        shard: int,
        settings: Settings,
        known: KnownVectors | None,
    ) -> None:
        self.clsp, self.rows, self.about, self.settings = clsp, rows, provenance, settings
        self.first, self.shard, self.known = provenance.rows_of(shard).start, shard, known
        self.contents: dict[int, bytes] = {}

    def run(self, advance: Callable[[float], None]) -> tuple[pa.Table, dict[str, Any]]:
        """Embed; returns the shard's table, and the values of its mark."""
        if self.about.kind == "speech":
            items = [(row["id"], number) for number, row in enumerate(self.rows)]
            found, errors = self._embed_speech(advance)
        else:
            captions = [
                (f"{row['id']}#{place}", number, text)
                for number, row in enumerate(self.rows)
                for place, text in enumerate(row[f"{self.about.kind}_captions"])
            ]
            items = [(name, number) for name, number, _ in captions]
            found, errors = self._embed_texts([text for _, _, text in captions])
        bad = [[items[n][0], " ".join(str(errors[n]).split())] for n in sorted(errors)]
        self._check_bad(bad, len(items))
        good = sorted(found)
        vectors = np.stack([found[n] for n in good]) if good else np.empty((0, self.about.dim))
        columns = [
            pa.array([items[n][0] for n in good], pa.string()),
            pa.array([self.first + items[n][1] for n in good], pa.int64()),
            pa.array([self.contents.get(n) for n in good], pa.binary(32)),
            vector_column(vectors),
        ]
        seconds = 0.0
        if self.about.kind == "speech":
            seconds = round(sum(self.rows[n]["duration"] for n in good), 3)
        mark = {"seconds": seconds, "bad": bad, "weights_sha256": self.about.weights_sha256}
        return pa.Table.from_arrays(columns, schema=shard_schema(self.about.dim)), mark

    def _check_bad(self, bad: Sequence[Sequence[str]], count: int) -> None:
        allowed = max(FEW_BAD, self.settings.max_bad * count) if self.settings.max_bad else 0
        if len(bad) > allowed:
            way_out = "Correct them, or leave bad ones out by --skip-bad"
            if self.settings.max_bad:
                way_out = "Is the audio where the manifest says, and the model the right one?"
            raise BadEntriesError(
                f"{len(bad)} of {count} clips of shard {self.shard} cannot be embedded",
                [f"{name}: {reason}" for name, reason in bad],
                way_out,
            )

    def _windows_of(self, number: int) -> Iterator[Tensor]:
        """Read a clip, and note its content; in any thread, so with a reader of its own."""
        digest = hashlib.sha256()
        for wav in ClipReader(1).read_windows(self.rows[number], self.clsp.WINDOW_SECONDS):
            digest.update(wav.numpy().data)
            yield wav
        self.contents[number] = digest.digest()

    def _embed_speech(
        self, advance: Callable[[float], None]
    ) -> tuple[dict[int, np.ndarray], dict[int, Exception]]:
        seconds, longest = [row["duration"] for row in self.rows], self.about.max_batch_seconds
        hours = sum(seconds) / len(seconds) / 3600  # of a clip
        found: dict[int, np.ndarray] = {}
        errors: dict[int, Exception] = {}

        def choose(read: Callable[[], Iterator[list[Window]]]) -> Iterator[list[Window]]:
            """Yield the batches of a group, or none if all of its clips are known.

            Whole groups or nothing: what is embedded together must not depend on what is known.
            """
            held: list[list[Window]] = []
            files: set[int] = set()
            wrong: dict[int, Exception] = {}
            for number, batch in enumerate(read()):
                files |= {window.file for window in batch}
                wrong |= {n: each for n, _, each in batch if isinstance(each, Exception)}
                if number < HELD:
                    held.append(batch)
            vectors = {n: self.find_known(n) for n in files - {*wrong}}
            found.update({n: each for n, each in vectors.items() if each is not None})
            if all(n in found for n in vectors):
                errors.update(wrong)
                advance(len(files) * hours)
            elif number < HELD:
                yield from held
            else:  # a clip of many minutes
                yield from read()

        batches = batch_windows(
            plan_batches(seconds, longest),
            self._windows_of,
            longest,
            self.settings.num_workers,
            choose if self.known else None,
        )
        embeddings, further = self.clsp.embed_windows(
            batches, lambda n: self.rows[n]["id"], advance=lambda count: advance(count * hours)
        )
        return {n: each.numpy() for n, each in embeddings.items()} | found, errors | further

    def find_known(self, number: int) -> np.ndarray | None:
        """Return the vector that a clip, which has been read, has in an earlier store."""
        return None if self.known is None else self.known.find(self.contents[number])

    def _embed_texts(
        self, texts: Sequence[str]
    ) -> tuple[dict[int, np.ndarray], dict[int, Exception]]:
        found: dict[int, np.ndarray] = {}
        errors: dict[int, Exception] = {}
        order = sorted(range(len(texts)), key=lambda n: len(texts[n]))
        for start in range(0, len(texts), BATCH_TEXTS):
            numbers = order[start : start + BATCH_TEXTS]
            try:
                vectors = self.clsp.encode_text([texts[n] for n in numbers]).cpu().numpy()
                found.update(zip(numbers, vectors))
            except ValueError:  # one of them
                for n in numbers:
                    try:
                        found[n] = self.clsp.encode_text([texts[n]]).cpu().numpy()[0]
                    except ValueError as error:
                        errors[n] = error
        self.contents = {n: hashlib.sha256(texts[n].encode()).digest() for n in found}
        return found, errors
