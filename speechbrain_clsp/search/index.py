"""The index of a corpus: its vectors with the columns of its manifest, behind one of the engines.

An index is a folder: ``index.json``, and a folder of the engine. It holds paths, times, labels and
captions, never audio.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from speechbrain_clsp.dataio.manifest import SCHEMA, Manifest
from speechbrain_clsp.search.engines import Engine, ExactEngine
from speechbrain_clsp.search.filters import Condition, parse_condition
from speechbrain_clsp.search.lance import LanceEngine
from speechbrain_clsp.search.leases import claim
from speechbrain_clsp.search.qdrant import QdrantEngine
from speechbrain_clsp.search.store import CLIPS, EmbeddingStore, check_model
from speechbrain_clsp.utils.checks import join_some
from speechbrain_clsp.utils.files import atomic_write, expand
from speechbrain_clsp.utils.reading import read_json

INDEX, BUILDING, LEASE = "index.json", "building.json", "write.lease"
ENGINES: dict[str, Callable[[Path, pa.Schema], Engine]] = {
    "exact": lambda folder, schema: ExactEngine(folder),
    "lancedb": lambda folder, schema: LanceEngine(folder),
    "qdrant": QdrantEngine,
}
MOST = 10_000  # hits of a search
ROWS_AT_ONCE = 50_000  # that are added


@dataclass(frozen=True)
class IndexInfo:
    """What ``index.json`` says.

    Arguments
    ---------
    engine : str
        ``exact``, ``lancedb`` or ``qdrant``.
    kind, model, weights_sha256, precision, dim
        As in the stores: see :class:`~speechbrain_clsp.search.store.Provenance`.
    labels : list of str
        Keys of the column ``labels``.
    """

    engine: str
    kind: str
    model: str
    weights_sha256: str
    precision: str
    dim: int
    labels: Sequence[str]


class StyleIndex:
    """Vectors of a corpus and the columns of its manifest, to be searched.

    Any number of processes may search while one changes it. :meth:`open` opens one, :meth:`create`
    makes one.

    Arguments
    ---------
    folder : Path
        Where it is.
    info : IndexInfo
        What its file says about it.

    Example
    -------
    >>> from speechbrain_clsp.dataio.manifest import write_manifest
    >>> from speechbrain_clsp.search.store import write_store
    >>> tmp = getfixture("tmp_path")
    >>> rows = [{"id": n, "audio": f"{n}.wav", "duration": 1.0, "gender": "male"} for n in "ab"]
    >>> _ = write_manifest(tmp / "m.arrow", rows)
    >>> write_store(tmp / "store", ["a", "b"], np.eye(2), weights_sha256="ab")
    >>> index = StyleIndex.create(tmp / "index", tmp / "store", tmp / "m.arrow")
    >>> hits = index.search(np.array([0.6, 0.8]), k=1, where="gender = 'male'")
    >>> hits.column("id").to_pylist(), StyleIndex.open(tmp / "index").delete(["b"])
    (['b'], 1)
    """

    def __init__(self, folder: Path, info: IndexInfo) -> None:
        self.folder, self.info = folder, info
        self.engine = ENGINES[info.engine](folder / info.engine, self.schema)

    @classmethod
    def open(cls, folder: str | os.PathLike) -> StyleIndex:
        """Open an index.

        Raises
        ------
        FileNotFoundError
            If there is none.
        ValueError
            If it was not completed, is damaged, or its engine is not installed.
        """
        folder = expand(folder)
        path = folder / INDEX
        if not path.is_file():
            if (folder / BUILDING).is_file():
                raise ValueError(f"{folder} is half built: give the command that builds it again")
            raise FileNotFoundError(f"{folder} is not an index: make one by clsp index")
        try:
            info = IndexInfo(**read_json(path))
        except TypeError as error:
            raise ValueError(f"{path} is damaged, or of another version: {error}") from error
        if info.engine not in ENGINES:
            raise ValueError(f"{path} is damaged, or of another version: engine {info.engine!r}")
        if info.engine != "qdrant" and not (folder / info.engine).is_dir():
            raise FileNotFoundError(
                f"{folder / info.engine} is missing: make the index anew by clsp index"
            )
        return cls(folder, info)

    @classmethod
    def create(
        cls,
        folder: str | os.PathLike,
        store: str | os.PathLike,
        manifest: str | os.PathLike | None = None,
        engine: str = "exact",
    ) -> StyleIndex:
        """Make an index of a store; an index that was killed while it was made is made anew.

        Arguments
        ---------
        folder : str or path
            Where it goes.
        store : str or path
            An :class:`EmbeddingStore`.
        manifest : str or path, optional
            That the store was made of; default: where it was then.
        engine : str
            ``exact``; ``lancedb``, for more than a million clips; ``qdrant``, for a server.

        Raises
        ------
        FileExistsError
            If there is an index, or something else.
        NotADirectoryError
            If there is a file.
        FileNotFoundError, ValueError
            If store and manifest cannot be opened, or do not belong to each other.
        """
        folder, opened = expand(folder), EmbeddingStore(store)
        if engine not in ENGINES:
            raise ValueError(f"engine must be one of {sorted(ENGINES)}, not {engine!r}")
        if (folder / INDEX).is_file():
            raise FileExistsError(f"{folder} is an index already: add to it, or choose another")
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f"{folder} is a file: an index is a folder")
        there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        if there and BUILDING not in there:
            raise FileExistsError(f"{folder} holds {join_some(there, ', ')}: choose another folder")
        opened.check_hashes()
        source = _manifest_of(opened, manifest)
        about = opened.provenance
        labels = sorted(
            {key for batch in source.batches() for key in _label_keys(batch.column("labels"))}
        )
        info = IndexInfo(
            engine,
            about.kind,
            about.model,
            about.weights_sha256,
            about.precision,
            about.dim,
            labels,
        )
        atomic_write(folder / BUILDING, json.dumps(asdict(info), indent=1))
        for name in ENGINES:  # what a killed run left
            shutil.rmtree(folder / name, ignore_errors=True)
        index = cls(folder, info)
        with index._writing():
            tables = index._rows_of(opened, source)
            batches = (batch for table in tables for batch in table.combine_chunks().to_batches())
            index.engine.add(pa.RecordBatchReader.from_batches(index.schema, batches), new=True)
            index.engine.optimize()
        os.replace(folder / BUILDING, folder / INDEX)
        return index

    @property
    def schema(self) -> pa.Schema:
        """Columns of a row: those of the manifest, with labels as a struct, and the vector."""
        labels = pa.struct([pa.field(key, pa.string()) for key in self.info.labels])
        fields = [
            pa.field(each.name, labels if each.name == "labels" else each.type)
            for each in SCHEMA
            if each.name != "labels" or self.info.labels
        ]
        return pa.schema([*fields, pa.field("vector", pa.list_(pa.float16(), self.info.dim))])

    def add(
        self,
        store: EmbeddingStore | str | os.PathLike,
        manifest: Manifest | str | os.PathLike | None = None,
    ) -> int:
        """Add the clips of a store; those whose id is there are replaced. Returns how many.

        Raises
        ------
        ValueError
            If the store is of another model or kind, or has labels of other names.
        BlockingIOError
            If another process changes the index.
        """
        store = store if isinstance(store, EmbeddingStore) else EmbeddingStore(store)
        for name in ("kind", "weights_sha256", "dim"):
            theirs, ours = getattr(store.provenance, name), getattr(self.info, name)
            if theirs != ours:
                raise ValueError(
                    f"{store.folder} does not fit into {self.folder}: its {name} is {theirs!r}, not"
                    f" {ours!r}; only vectors of one model can be compared"
                )
        store.check_hashes()
        source = _manifest_of(store, manifest)
        with self._writing():
            for table in self._rows_of(store, source):
                self.engine.add(table)
        return len(store)

    def delete(self, ids: Sequence[str]) -> int:
        """Delete clips by id; returns how many were there."""
        with self._writing():
            return self.engine.delete(list(ids))

    def optimize(self) -> None:
        """Make searches fast again after many changes."""
        with self._writing():
            self.engine.optimize()

    def stats(self) -> dict[str, Any]:
        """Return what the index is and how large: a dict for JSON."""
        about = {key: value for key, value in asdict(self.info).items() if key != "labels"}
        return {**about, **self.engine.stats()}

    def __len__(self) -> int:
        return int(self.engine.stats()["rows"])

    def search(self, vector: Any, k: int = 10, where: str | Condition | None = None) -> pa.Table:
        """Find the clips of highest inner product with a vector.

        Arguments
        ---------
        vector : array or Tensor
            [D]; of unit norm, for cosines.
        k : int
            How many, up to 10,000.
        where : str, optional
            See :func:`~speechbrain_clsp.search.filters.parse_condition`.

        Returns
        -------
        pyarrow.Table
            Rows of :attr:`schema` and ``score``, best first; fewer if there are no more.

        Raises
        ------
        ValueError
            If ``k``, ``where`` or the size of the vector is wrong, or it holds NaN.
        """
        queries = np.asarray(vector, np.float32)[None]
        if queries.shape != (1, self.info.dim):
            raise ValueError(f"The vector must be [{self.info.dim}], not {list(queries.shape[1:])}")
        if not np.isfinite(queries).all():
            raise ValueError("The vector holds NaN or infinite values: nothing is like it")
        if not 1 <= k <= MOST:
            raise ValueError(f"k must be from 1 to {MOST}, not {k}")
        return self.engine.search(queries, k, self.condition(where))[0]

    def condition(self, where: str | Condition | None) -> Condition | None:
        """Read a condition on the index's columns; None for none."""
        return parse_condition(where, self.schema) if isinstance(where, str) else where

    def check_model(self, weights_sha256: str, name: str) -> None:
        """Raise ValueError if a model, by ``CLSP.weights_sha256``, is not that of the vectors."""
        info = self.info
        check_model(self.folder, info.model, info.weights_sha256, weights_sha256, name)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        lease = claim(self.folder / LEASE)
        if lease is None:
            raise BlockingIOError(f"{self.folder} is being changed by another process: try later")
        with lease:
            yield

    def _rows_of(self, store: EmbeddingStore, manifest: Manifest) -> Iterator[pa.Table]:
        """Yield the rows of a store in tables of some size."""
        source = pa.Table.from_batches(list(manifest.batches()))  # mapped, not in memory
        waiting: list[pa.Table] = []
        for vectors in store.tables():
            waiting.append(self._joined(vectors, source, manifest))
            if sum(map(len, waiting)) >= ROWS_AT_ONCE:
                yield pa.concat_tables(waiting)
                waiting = []
        if waiting:
            yield pa.concat_tables(waiting)

    def _joined(self, vectors: pa.Table, source: pa.Table, manifest: Manifest) -> pa.Table:
        """Return a shard's vectors with their rows of the manifest."""
        numbers = vectors.column("row").to_numpy()  # ascending
        first, last = (int(numbers[0]), int(numbers[-1])) if len(numbers) else (0, -1)
        # Of all of the manifest, take would join its parts in memory first.
        rows = (
            source.slice(first, last + 1 - first).combine_chunks().take(pa.array(numbers - first))
        )
        columns = []
        for each in self.schema:
            if each.name == "vector":
                columns.append(vectors.column("vector"))
            elif each.name == "id":  # of captions, it has a number
                columns.append(vectors.column("id"))
            elif each.name == "audio":
                paths = [manifest.absolute(path) for path in rows.column("audio").to_pylist()]
                columns.append(pa.array(paths, pa.string()))
            elif each.name == "labels":
                columns.append(self._labels(rows.column("labels"), each.type))
            elif each.name in rows.column_names:
                columns.append(rows.column(each.name))
            else:
                columns.append(pa.nulls(len(rows), each.type))
        return pa.table(columns, schema=self.schema)

    def _labels(self, column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
        values = [dict(pairs or ()) for pairs in column.to_pylist()]
        unknown = sorted({key for labels in values for key in labels} - set(self.info.labels))
        if unknown:
            raise ValueError(
                f"labels {unknown} are not among the columns of {self.folder},"
                f" {list(self.info.labels)}: make a new index of all stores"
            )
        return pa.array(values, kind)


def _label_keys(column: pa.Array) -> list[str]:
    return column.keys.unique().to_pylist()


def _manifest_of(store: EmbeddingStore, manifest: Manifest | str | os.PathLike | None) -> Manifest:
    """Return the manifest that a store was made of; ValueError if it is another one."""
    opened = manifest if isinstance(manifest, Manifest) else _find_manifest(store, manifest)
    about = store.provenance
    if len(opened) != about.rows:
        raise ValueError(
            f"{opened.path} has {len(opened)} clips, and {store.folder} was made of {about.rows}:"
            " it is another manifest"
        )
    clips, row, clip = opened.values("id"), -1, ""
    for table in store.tables():
        rows = table.column("row").to_pylist()  # ascending
        for name, number in zip(table.column("id").to_pylist(), rows):
            while row < number:
                row, clip = row + 1, next(clips)
            if clip != (name if about.kind == "speech" else name.rpartition("#")[0]):
                raise ValueError(
                    f"{store.folder} has {name!r} where {opened.path} has {clip!r}: it is another"
                    " manifest"
                )
    return opened


def _find_manifest(store: EmbeddingStore, path: str | os.PathLike | None) -> Manifest:
    if path is not None:
        return Manifest(path)
    beside = store.folder / CLIPS  # of a store of files, which may have been moved
    place = beside if beside.is_file() else Path(store.provenance.source)
    if not store.provenance.source:
        raise ValueError(f"{store.folder} does not say of which manifest it is: name it")
    if not place.is_file():
        raise FileNotFoundError(
            f"{store.folder} was made of {place}, which is not there: give --manifest"
        )
    return Manifest(place)
