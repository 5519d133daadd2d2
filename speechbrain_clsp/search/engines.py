"""What an index needs of an engine, and the exact one: a scan of memory-mapped vectors."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from speechbrain_clsp.search.filters import Condition
from speechbrain_clsp.search.store import vectors_of
from speechbrain_clsp.utils.files import atomic_path, atomic_write
from speechbrain_clsp.utils.reading import read_json

BLOCK = 8192  # vectors that are compared at once: of 512 values, 16 MiB in float32
BATCH_ROWS = 1 << 16
KEPT_AT_MOST = 1 << 16  # candidates that are kept unsorted
STATE = "state.json"
_ANEW = "make the index anew by clsp index"


def batches_of(rows: pa.Table | pa.RecordBatchReader, most: int) -> Iterator[pa.RecordBatch]:
    """Yield rows in batches of at most ``most``; one that is empty, if there are none.

    Example
    -------
    >>> [len(batch) for batch in batches_of(pa.table({"id": ["a", "b", "c"]}), 2)]
    [2, 1]
    """
    reader = rows.to_reader() if isinstance(rows, pa.Table) else rows
    empty = True
    for batch in reader:
        for start in range(0, len(batch), most):
            empty = False
            yield batch.slice(start, most)
    if empty:
        yield pa.RecordBatch.from_pylist([], schema=rows.schema)


class Engine(Protocol):
    """What holds the rows of an index and finds the nearest: five methods.

    A row has the columns of the manifest and ``vector``, float16 of unit norm. Scores are cosines,
    computed from these vectors in float32.

    Arguments
    ---------
    *args, **kwargs
        What a class of engines needs, such as a folder.

    Example
    -------
    >>> vectors = pa.array([[1.0, 0.0]], pa.list_(pa.float16(), 2))
    >>> table = pa.table({"id": ["a"], "vector": vectors})
    >>> engine = ExactEngine(getfixture("tmp_path") / "exact")
    >>> engine.add(table)
    >>> engine.search(np.array([[0.6, 0.8]], np.float32), k=1)[0].column("id").to_pylist()
    ['a']
    """

    def add(self, rows: pa.Table | pa.RecordBatchReader, new: bool = False) -> None:
        """Add rows; those whose id is there are replaced. After a kill, adding them again is right.

        ``new`` says that no id is there. Only then rows may come from a reader, which need not fit
        into memory.
        """

    def delete(self, ids: Sequence[str]) -> int:
        """Delete rows by id; returns how many there were."""

    def search(self, vectors: np.ndarray, k: int, where: Condition | None = None) -> list[pa.Table]:
        """Return for each of [Q, D] float32 the k rows of highest inner product, best first.

        The column ``score`` is added.
        """

    def optimize(self) -> None:
        """Make searches fast again after many changes."""

    def stats(self) -> dict[str, Any]:
        """Return ``rows`` and whatever else can be told."""


@dataclass(frozen=True)
class _State:
    """Which files make up an exact index."""

    segments: list[str] = field(default_factory=list)
    deleted: str = ""  # [rows] bool
    generation: int = 0


class _Opened:
    """The rows of one state, which never change."""

    def __init__(self, state: _State, table: pa.Table, alive: np.ndarray) -> None:
        self.state, self.table, self.alive = state, table, alive
        self._batches = table.to_batches()
        self._ends = np.cumsum([len(batch) for batch in self._batches])

    def left(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows that are not deleted."""
        first = 0
        for batch in self.table.to_batches(max_chunksize=BATCH_ROWS):
            yield batch.filter(pa.array(self.alive[first : first + len(batch)]))
            first += len(batch)

    def are(self, ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Return which rows have one of some ids."""
        if not len(self.table):
            return np.empty(0, bool)
        values = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
        return np.asarray(pc.is_in(self.table.column("id"), value_set=values))

    def blocks(self, alive: np.ndarray) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Yield positions [n] and vectors [n, D] float16 of the rows to compare."""
        first = 0
        for chunk in self.table.column("vector").chunks if len(self.table) else ():
            vectors = vectors_of(chunk)
            for start in range(0, len(vectors), BLOCK):
                part = vectors[start : start + BLOCK]
                chosen = np.flatnonzero(alive[first + start : first + start + len(part)])
                if len(chosen):
                    # A copy: torch takes no memory that is only readable.
                    block = part.copy() if len(chosen) == len(part) else part[chosen]
                    yield chosen + first + start, torch.from_numpy(block)
            first += len(vectors)

    def rows(self, positions: np.ndarray, scores: np.ndarray) -> pa.Table:
        """Return rows by position; Arrow's own take would first join all chunks in memory."""
        order = np.argsort(positions)
        numbers = np.searchsorted(self._ends, positions[order], side="right")
        starts = np.concatenate([[0], self._ends])
        parts = [
            self._batches[number].take(
                pa.array(positions[order][numbers == number] - starts[number])
            )
            for number in np.unique(numbers)
        ]
        table = pa.Table.from_batches(parts, self.table.schema)
        table = table.take(pa.array(np.argsort(order)))
        return table.append_column("score", pa.array(scores, pa.float32()))


class ExactEngine:
    """Compares every vector; the files that it reads are never changed, only replaced by others.

    ``state.json`` names the files. A reader sees the state that it opened until its next search, a
    writer that is killed leaves files that no state names.

    Arguments
    ---------
    folder : pathlib.Path
        Where the files are.

    Example
    -------
    >>> from speechbrain_clsp.search.store import vector_column
    >>> engine = ExactEngine(getfixture("tmp_path"))
    >>> engine.add(pa.table({"id": ["a", "b"], "vector": vector_column(np.eye(2))}))
    >>> (found,) = engine.search(np.array([[0.6, 0.8]], np.float32), k=1)
    >>> found.column("id").to_pylist(), f"{found.column('score')[0].as_py():.2f}"
    (['b'], '0.80')
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._newest = _Opened(_State(), pa.table({}), np.empty(0, bool))

    def add(self, rows: pa.Table | pa.RecordBatchReader, new: bool = False) -> None:
        """Add rows; those whose id is there are replaced."""
        there = self._open()
        generation = there.state.generation + 1
        name = f"{generation:06}.arrow"
        count = self._write_segment(name, batches_of(rows, BATCH_ROWS))
        alive = there.alive if new else there.alive & ~there.are(rows.column("id"))
        alive = np.concatenate([alive, np.ones(count, bool)])
        self._write([*there.state.segments, name], alive, generation)

    def delete(self, ids: Sequence[str]) -> int:
        """Delete rows by id; returns how many there were."""
        there = self._open()
        found = there.are(pa.array(ids, pa.string())) & there.alive
        if found.any():
            self._write(there.state.segments, there.alive & ~found, there.state.generation + 1)
        return int(found.sum())

    def search(self, vectors: np.ndarray, k: int, where: Condition | None = None) -> list[pa.Table]:
        """Compare all rows, or those of a condition; equal scores are in the order of rows."""
        there = self._open()  # to the end: another thread may open a newer state meanwhile
        if not there.state.segments:
            raise ValueError(f"{self.folder / STATE} is missing: {_ANEW}")
        alive = there.alive
        if where is not None and len(there.table):
            alive = alive & where.mask(there.table)
        queries = torch.from_numpy(np.ascontiguousarray(vectors, np.float32))
        best = [_Best(k) for _ in queries]
        for positions, block in there.blocks(alive):
            scores = (block.float() @ queries.T).T.contiguous().numpy()
            for one, row in zip(best, scores):
                one.add(positions, row)
        return [there.rows(*one.sorted()) for one in best]

    def optimize(self) -> None:
        """Write all rows that are left into one file; remove files that are not used."""
        there = self._open()
        if not there.state.segments:
            return
        if len(there.state.segments) > 1 or not there.alive.all():
            generation = there.state.generation + 1
            name = f"{generation:06}.arrow"
            self._write_segment(name, there.left())
            self._write([name], np.ones(int(there.alive.sum()), bool), generation)
            there = self._open()
        used = {STATE, *there.state.segments, there.state.deleted}
        for path in self.folder.iterdir():
            if path.name not in used:
                path.unlink()

    def _write_segment(self, name: str, batches: Iterable[pa.RecordBatch]) -> int:
        """Write a file; returns its number of rows."""
        rows, count = iter(batches), 0
        first = next(rows)
        with (
            atomic_path(self.folder / name) as temporary,
            pa.OSFile(str(temporary), "wb") as sink,
            pa.ipc.new_file(sink, first.schema) as writer,
        ):
            for batch in chain([first], rows):
                writer.write_batch(batch)
                count += len(batch)
        return count

    def stats(self) -> dict[str, Any]:
        """Return rows, files and bytes."""
        there = self._open()
        files = [path for path in self.folder.iterdir() if path.is_file()]
        n_bytes = sum(path.stat().st_size for path in files)
        return {"rows": int(there.alive.sum()), "files": len(files), "bytes": n_bytes}

    def _write(self, segments: list[str], alive: np.ndarray, generation: int) -> None:
        deleted = ""
        if not alive.all():
            deleted = f"{generation:06}.npy"
            with atomic_path(self.folder / deleted) as temporary:
                np.save(temporary, ~alive)
        state = _State(segments, deleted, generation)
        atomic_write(self.folder / STATE, json.dumps(asdict(state)))

    def _open(self) -> _Opened:
        """Open the newest state; again if a writer removed a file of it in between."""
        while (self.folder / STATE).is_file():
            state = self._read_state()
            if state == self._newest.state:
                break
            try:
                self._newest = self._open_files(state)
            except FileNotFoundError as error:
                if self._read_state() == state:
                    raise FileNotFoundError(f"{error.filename} is missing: {_ANEW}") from error
        return self._newest

    def _read_state(self) -> _State:
        path = self.folder / STATE
        try:
            return _State(**read_json(path))
        except TypeError as error:
            raise ValueError(f"{path} is damaged ({error}): {_ANEW}") from error

    def _open_files(self, state: _State) -> _Opened:
        tables = []
        for path in (self.folder / name for name in state.segments):
            if not path.is_file():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
            try:
                with pa.memory_map(str(path)) as source:
                    tables.append(pa.ipc.open_file(source).read_all())
            except pa.ArrowInvalid as error:
                raise ValueError(f"{path} is damaged ({error}): {_ANEW}") from error
        if not tables:
            raise ValueError(f"{self.folder / STATE} is damaged (it names no file): {_ANEW}")
        table = pa.concat_tables(tables)
        alive = np.ones(len(table), bool)
        if state.deleted:
            alive = ~np.load(self.folder / state.deleted)
        return _Opened(state, table, alive)


class _Best:
    """The k highest scores so far; of equal ones, those of the first positions."""

    def __init__(self, k: int) -> None:
        self.k, self.least = k, -np.inf
        self._positions: list[np.ndarray] = []
        self._scores: list[np.ndarray] = []
        self._count = 0

    def add(self, positions: np.ndarray, scores: np.ndarray) -> None:
        """Keep the highest of further scores [N]; their positions [N] follow those before."""
        chosen = scores > self.least  # equal ones have higher positions than those that are kept
        self._positions.append(positions[chosen])
        self._scores.append(scores[chosen])
        self._count += int(chosen.sum())
        if self._count > self.k + KEPT_AT_MOST or self.least == -np.inf:
            positions, scores = self.sorted()
            self._positions, self._scores, self._count = [positions], [scores], len(scores)
            if len(scores) == self.k:
                self.least = scores[-1]

    def sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """Return positions and scores, the highest first; k of them, or all if there are fewer."""
        positions = np.concatenate(self._positions or [np.empty(0, np.int64)])
        scores = np.concatenate(self._scores or [np.empty(0, np.float32)])
        order = np.lexsort((positions, -scores))[: self.k]
        return positions[order], scores[order]
