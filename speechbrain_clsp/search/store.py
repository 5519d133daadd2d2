"""Embedding stores: vectors of a corpus with ids, in shards, and where they come from.

A store is a folder::

    store.json            what was embedded, by which model, how
    shards/00000.arrow    columns id, row (in the manifest), content (SHA-256 of what was embedded)
                          and vector (float16, unit norm)
    shards/00000.json     the mark that a shard is complete: counts, its SHA-256, bad clips
    complete.json         the marks of all shards, once all are there
    bad.txt               clips that were left out, with the reasons
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from speechbrain_clsp.search.leases import claim
from speechbrain_clsp.utils.checks import join_some
from speechbrain_clsp.utils.content import explain_file
from speechbrain_clsp.utils.files import atomic_path, atomic_write, expand, sha256_of_file
from speechbrain_clsp.utils.reading import read_json

STORE, COMPLETE, SHARDS, BAD = "store.json", "complete.json", "shards", "bad.txt"
CLIPS = "clips.arrow"  # the manifest of a store that was made of files
LEASE = "store.lease"
CONTENT_BYTES = 32
NORMALIZATION = "unit norm, then float16"
_MEND = "remove it, and give the command that built the store again"
# What may differ between two runs that write one store.
_FREE = ("model", "revision", "source", "package", "packages")


@dataclass(frozen=True)
class Provenance:
    """What a store's vectors are, for ``store.json``.

    Arguments
    ---------
    kind : str
        ``speech``, or the captions that were embedded: ``global`` or ``fine``.
    model, revision, weights_sha256, precision
        As :meth:`~speechbrain_clsp.inference.clsp.CLSP.provenance` returns them, of the model in
        fp32; vectors can be compared if the weights' SHA-256 is equal.
    dim : int
        Size of the vectors.
    source : str
        The manifest's path.
    source_sha256 : str
        Of the manifest.
    rows : int
        Of the manifest.
    shard_rows : int
        Rows of the manifest in a shard.
    max_batch_seconds : float
        Padded length of batches.
    preprocessing, package : str
        As of the model.
    decoder : str
        What decoded the audio.
    normalization : str
        Of the vectors.
    packages : dict
        Versions of what computed them.

    Example
    -------
    >>> about = Provenance("speech", "m", "main", "ab", "fp32", 2, "a.arrow", "cd", 9, 4)
    >>> about.n_shards, about.rows_of(2)
    (3, range(8, 9))
    """

    kind: str
    model: str
    revision: str | None
    weights_sha256: str
    precision: str
    dim: int
    source: str
    source_sha256: str
    rows: int
    shard_rows: int
    max_batch_seconds: float = 60.0
    preprocessing: str = ""
    package: str = ""
    decoder: str = ""
    normalization: str = NORMALIZATION
    packages: Mapping[str, str] = field(default_factory=dict)

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return -(-self.rows // self.shard_rows)

    def rows_of(self, shard: int) -> range:
        """Return the rows of the manifest that a shard holds."""
        return range(shard * self.shard_rows, min(self.rows, (shard + 1) * self.shard_rows))

    def differences(self, other: Provenance) -> list[str]:
        """Return in what another run differs that cannot be mixed with this one.

        Example
        -------
        >>> one = Provenance("speech", "m", "r", "ab", "fp32", 2, "a.arrow", "cd", 9, 4)
        >>> one.differences(Provenance("speech", "n", "r", "ef", "fp32", 2, "a.arrow", "cd", 9, 4))
        ["weights_sha256 is 'ef', not 'ab'"]
        """
        names = [each.name for each in fields(self) if each.name not in _FREE]
        pairs = ((name, getattr(self, name), getattr(other, name)) for name in names)
        return [
            f"{name} is {theirs!r}, not {ours!r}" for name, ours, theirs in pairs if ours != theirs
        ]


@dataclass(frozen=True)
class Mark:
    """That a shard is complete.

    Arguments
    ---------
    embedded : int
        Vectors in it.
    sha256 : str
        Of its file.
    seconds : float
        Audio that was embedded, or 0 for captions.
    bad : list
        ``[id, reason]`` of what was left out.
    weights_sha256 : str
        As in :class:`Provenance`.
    """

    embedded: int
    sha256: str
    seconds: float
    bad: Sequence[Sequence[str]]
    weights_sha256: str


def shard_schema(dim: int) -> pa.Schema:
    """Return the columns of a shard."""
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("row", pa.int64(), nullable=False),
            pa.field("content", pa.binary(CONTENT_BYTES)),
            pa.field("vector", pa.list_(pa.float16(), dim), nullable=False),
        ]
    )


def shard_path(folder: Path, shard: int, suffix: str) -> Path:
    """Return the path of a shard's file; ``suffix`` is ``.arrow``, ``.json`` or ``.lease``."""
    return folder / SHARDS / f"{shard:05}{suffix}"


def vector_column(vectors: np.ndarray) -> pa.Array:
    """Return vectors [N, D] as a column of float16.

    Example
    -------
    >>> vector_column(np.eye(2)).type
    FixedSizeListType(fixed_size_list<item: halffloat>[2])
    """
    flat = np.ascontiguousarray(vectors, np.float16).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), vectors.shape[1])


def vectors_of(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return a column of vectors as [N, D] float16, without a copy if it is one array."""
    if isinstance(column, pa.ChunkedArray):
        parts = [vectors_of(chunk) for chunk in column.chunks]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts or [np.empty((0, column.type.list_size), np.float16)])
    values = column.flatten().to_numpy(zero_copy_only=True)
    return values.reshape(len(column), column.type.list_size)


def start_store(folder: Path, provenance: Provenance) -> None:
    """Make a store, or check that the one that is there is of the same run.

    Raises
    ------
    FileExistsError
        If the folder holds something else.
    ValueError
        If the store is that of another model, manifest or setting.
    """
    check_store_folder(folder)
    path = folder / STORE
    (folder / SHARDS).mkdir(parents=True, exist_ok=True)
    while not path.is_file():
        lease = claim(folder / LEASE)
        if lease is None:  # another process is about to write it
            time.sleep(0.05)
            continue
        with lease:
            if not path.is_file():
                atomic_write(path, json.dumps(asdict(provenance), indent=1))
    if different := read_provenance(folder).differences(provenance):
        raise ValueError(
            f"{folder} is the store of another run: {'; '.join(different)}. Vectors are not mixed:"
            " choose another folder"
        )


def check_store_folder(folder: Path) -> None:
    """Raise FileExistsError if a folder holds something else than a store; NotADirectoryError.

    Example
    -------
    >>> check_store_folder(getfixture("tmp_path") / "new")
    """
    if not folder.exists() or (folder / STORE).is_file():
        return
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file: a store is a folder")
    foreign = [each.name for each in folder.iterdir() if each.name not in (SHARDS, CLIPS, LEASE)]
    foreign = sorted(name for name in foreign if not name.startswith("."))
    if foreign:
        raise FileExistsError(
            f"{folder} is not an embedding store, it holds {join_some(foreign, ', ')}: choose"
            " another folder"
        )


def read_provenance(folder: str | os.PathLike) -> Provenance:
    """Read ``store.json``.

    Raises
    ------
    FileNotFoundError
        If there is no store.
    ValueError
        If the file is damaged, or of a version that this one does not know.
    """
    path = expand(folder) / STORE
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not an embedding store: it has no {STORE}")
    values = read_json(path)
    try:
        return Provenance(**values)
    except TypeError as error:
        raise ValueError(f"{path} is damaged, or of another version: {error}") from error


def write_shard(
    folder: Path, shard: int, table: pa.Table, mark: Mapping[str, Any], held: Any = lambda: True
) -> bool:
    """Write a shard and its mark, each atomically.

    Arguments
    ---------
    folder : pathlib.Path
        The store.
    shard : int
        Its number.
    table : pyarrow.Table
        Columns of :func:`shard_schema`.
    mark : dict
        Values of :class:`Mark` that the table does not tell.
    held : callable
        Returns whether this process may still write.

    Returns
    -------
    bool
        False if it may not.
    """
    path = shard_path(folder, shard, ".arrow")
    with atomic_path(path) as temporary:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        digest = sha256_of_file(temporary)
        if not held():
            return False
    complete = Mark(embedded=len(table), sha256=digest, **mark)
    atomic_write(shard_path(folder, shard, ".json"), json.dumps(asdict(complete)))
    return True


def complete_shards(folder: Path, provenance: Provenance) -> set[int]:
    """Return the shards that have a file and a mark."""
    names = {path.name for path in (folder / SHARDS).iterdir()}
    parts = (".arrow", ".json")
    return {
        shard
        for shard in range(provenance.n_shards)
        if all(shard_path(folder, shard, part).name in names for part in parts)
    }


def read_mark(folder: Path, shard: int) -> Mark | None:
    """Return the mark of a shard; None if it is not complete, or was removed."""
    path = shard_path(folder, shard, ".json")
    there = path.is_file() and shard_path(folder, shard, ".arrow").is_file()
    return _mark_of(read_json(path), path) if there else None


def _mark_of(values: Any, path: Path) -> Mark:
    try:
        return Mark(**values)
    except TypeError as error:
        raise ValueError(f"{path} is damaged ({error}): {_MEND}") from error


def check_model(
    folder: Path, model: str, weights_sha256: str, other_sha256: str, name: str
) -> None:
    """Raise ValueError if a model is not that of the vectors in a folder.

    Arguments
    ---------
    folder : pathlib.Path
        A store or an index.
    model, weights_sha256 : str
        What it says of its model.
    other_sha256 : str
        Of the weights of the model at hand; see
        :meth:`~speechbrain_clsp.inference.clsp.CLSP.weights_sha256`.
    name : str
        What messages call that one.
    """
    if other_sha256 != weights_sha256:
        raise ValueError(
            f"{folder} holds vectors of {model}, and {name} is another model:"
            " search with that one, or embed the corpus with this one"
        )


def complete_store(folder: Path, provenance: Provenance) -> list[Mark]:
    """Join the marks of all shards; every process that finds them complete may call it."""
    marks = [read_mark(folder, shard) for shard in range(provenance.n_shards)]
    found = [mark for mark in marks if mark is not None]
    if len(found) == len(marks):
        atomic_write(folder / COMPLETE, json.dumps([asdict(mark) for mark in found]))
    return found


class EmbeddingStore:
    """A complete store, mapped into memory.

    Arguments
    ---------
    folder : str or path
        Where it is.

    Raises
    ------
    FileNotFoundError
        If it is not there, or a shard is missing.
    ValueError
        If it is not complete, or a file is damaged.

    Example
    -------
    >>> folder = getfixture("tmp_path") / "store"
    >>> write_store(folder, ["a", "b"], np.eye(2), weights_sha256="ab")
    >>> store = EmbeddingStore(folder)
    >>> len(store), store.ids(), store.vectors().dtype
    (2, ['a', 'b'], dtype('float16'))
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = expand(folder)
        self.provenance = read_provenance(self.folder)
        n_shards = self.provenance.n_shards
        if not (self.folder / COMPLETE).is_file():
            done = len(complete_shards(self.folder, self.provenance))
            raise ValueError(
                f"{self.folder} is half built: {done} of {n_shards} shards are complete; give the"
                " command that builds it again"
            )
        path = self.folder / COMPLETE
        marks = read_json(path)
        if not isinstance(marks, list) or len(marks) != n_shards:
            raise ValueError(f"{path} is damaged, it does not list {n_shards} shards: {_MEND}")
        self.marks = [_mark_of(mark, path) for mark in marks]

    def __len__(self) -> int:
        return sum(mark.embedded for mark in self.marks)

    @property
    def bad(self) -> list[tuple[str, str]]:
        """Id and reason of each item that was left out."""
        return [(name, reason) for mark in self.marks for name, reason in mark.bad]

    def tables(self) -> Iterator[pa.Table]:
        """Yield shards as tables, mapped into memory, in the order of the manifest."""
        for shard in range(len(self.marks)):
            yield self.table(shard)

    def table(self, shard: int) -> pa.Table:
        """Return one shard."""
        path = self._file_of(shard)
        try:
            with pa.memory_map(str(path)) as source:
                table = pa.ipc.open_file(source).read_all()
        except (pa.ArrowException, OSError) as error:
            raise ValueError(
                f"{path} is damaged{explain_file(path, 'an Arrow')} ({error}): {_MEND}"
            ) from error
        if len(table) != self.marks[shard].embedded:
            raise ValueError(f"{path} has {len(table)} rows, not {self.marks[shard].embedded}")
        return table

    def ids(self) -> list[str]:
        """Return all ids."""
        return [name for table in self.tables() for name in table.column("id").to_pylist()]

    def vectors(self) -> np.ndarray:
        """Return all vectors, [N, D] float16, copied into memory."""
        return np.concatenate([vectors_of(table.column("vector")) for table in self.tables()])

    def check_hashes(self) -> None:
        """Raise ValueError if the content of a shard is not that which was written."""
        for shard, mark in enumerate(self.marks):
            path = self._file_of(shard)
            if sha256_of_file(path) != mark.sha256:
                raise ValueError(
                    f"{path} was changed, its SHA-256 is not that of its mark: {_MEND}"
                )

    def _file_of(self, shard: int) -> Path:
        path = shard_path(self.folder, shard, ".arrow")
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing: give the command that built the store again"
            )
        return path


def write_store(
    folder: str | os.PathLike,
    ids: Iterable[str],
    vectors: np.ndarray,
    shard_rows: int = 65536,
    **about: Any,
) -> None:
    """Write vectors that were computed elsewhere as a store.

    Arguments
    ---------
    folder : str or path
        Where it goes.
    ids : iterable of str
        N of them, those of the rows of a manifest, in its order.
    vectors : numpy.ndarray
        [N, D], of unit norm.
    shard_rows : int
        Vectors in a file.
    **about : Any
        Fields of :class:`Provenance` that are known, such as ``model`` and ``weights_sha256``.

    Raises
    ------
    FileExistsError, ValueError
        As for :func:`start_store`; or if numbers differ, or vectors are not of unit norm.

    Example
    -------
    >>> folder = getfixture("tmp_path") / "store"
    >>> write_store(folder, ["a", "b"], np.eye(2), model="mine", weights_sha256="ab")
    >>> EmbeddingStore(folder).provenance.rows
    2
    """
    ids, folder = list(ids), expand(folder)
    if len(ids) != len(vectors):
        raise ValueError(f"There are {len(ids)} ids and {len(vectors)} vectors")
    known = {"kind": "speech", "model": "", "revision": None, "weights_sha256": "", "precision": ""}
    known |= {"source": "", "source_sha256": ""}
    provenance = Provenance(
        **{**known, **about}, dim=vectors.shape[1], rows=len(ids), shard_rows=shard_rows
    )
    start_store(folder, provenance)
    for shard in range(provenance.n_shards):
        rows = provenance.rows_of(shard)
        part = vectors[rows.start : rows.stop]
        norms = np.linalg.norm(part.astype(np.float32), axis=1)
        if not np.allclose(norms, 1.0, atol=2e-3):
            wrong = int(np.argmax(np.abs(norms - 1.0)))
            raise ValueError(f"The vector of {ids[rows[wrong]]!r} has the norm {norms[wrong]:.3g}")
        columns = [
            pa.array(ids[rows.start : rows.stop], pa.string()),
            pa.array(np.arange(rows.start, rows.stop)),
            pa.nulls(len(rows), pa.binary(CONTENT_BYTES)),
            vector_column(part),
        ]
        table = pa.Table.from_arrays(columns, schema=shard_schema(provenance.dim))
        mark = {"seconds": 0.0, "bad": [], "weights_sha256": provenance.weights_sha256}
        write_shard(folder, shard, table, mark)
    complete_store(folder, provenance)
