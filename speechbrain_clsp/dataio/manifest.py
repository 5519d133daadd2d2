"""The manifest: one row per clip, in an Arrow file that is mapped into memory, never loaded.

Every prepare script writes it and everything else reads it. Its columns are ``SCHEMA``; the names
of the style labels follow ParaSpeechCaps.
"""

from __future__ import annotations

import mmap
import os
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from speechbrain_clsp.utils.checks import quote
from speechbrain_clsp.utils.content import explain_file
from speechbrain_clsp.utils.files import atomic_path, check_replaceable, expand

_TEXTS = pa.list_(pa.string())

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("audio", pa.string(), nullable=False),  # file, or shard that holds it
        pa.field("offset", pa.int64()),  # first byte in the shard; null for a plain file
        pa.field("nbytes", pa.int64()),
        pa.field("start", pa.float64()),  # seconds into the file; null for the whole of it
        pa.field("duration", pa.float64(), nullable=False),  # seconds
        pa.field("sample_rate", pa.int32()),
        pa.field("speaker", pa.string()),
        pa.field("gender", pa.string()),
        pa.field("accent", pa.string()),
        pa.field("pitch", pa.string()),
        pa.field("speaking_rate", pa.string()),
        pa.field("intrinsic_tags", _TEXTS),
        pa.field("situational_tags", _TEXTS),
        pa.field("labels", pa.map_(pa.string(), pa.string())),  # further classes, by task name
        pa.field("global_captions", _TEXTS),
        pa.field("fine_captions", _TEXTS),
        pa.field("split", pa.string()),
        pa.field("source", pa.string()),
        pa.field("channel", pa.int32()),  # from 0; null for the mean of all
    ]
)
BATCH_ROWS = 16384  # rows per record batch, the unit that is in memory while writing
_BATCH_ROWS_KEY = b"rows_per_batch"  # with it a file of 18 M rows opens without looking at batches
_MADE_BY_KEY = b"made_by"
_ADDED_LATER = {"channel"}  # a manifest without them is still good
_UNFIT = (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError)
_WHOLE_NUMBERS = ("offset", "nbytes", "sample_rate", "channel")
_LIST_COLUMNS = ("intrinsic_tags", "situational_tags", "global_captions", "fine_captions")


def write_manifest(
    path: str | os.PathLike,
    rows: Iterable[Mapping[str, Any]],
    batch_rows: int = BATCH_ROWS,
    made_by: str = "",
) -> int:
    """Write rows to ``path`` atomically.

    Arguments
    ---------
    path : str or path
        Where the manifest goes; conventionally ``<split>.arrow``.
    rows : iterable of dict
        Each with the columns of ``SCHEMA``: ``id``, ``audio`` and ``duration`` [s] are required,
        lists default to empty, all else to null. ``audio`` may be relative to the manifest's
        folder.
    batch_rows : int
        Rows per record batch: the unit that is held in memory while writing.
    made_by : str
        What :attr:`Manifest.made_by` tells, so that a result can be told from a corpus.

    Returns
    -------
    int
        Number of rows written.

    Raises
    ------
    ValueError
        If a row lacks a required column, has an unknown one or a value of a wrong type, or repeats
        an id; the message names the row and its id.
    FileExistsError
        If ``path`` holds something else than a manifest.

    Example
    -------
    >>> path = getfixture("tmp_path") / "train.arrow"
    >>> write_manifest(path, [{"id": "a", "audio": "a.wav", "duration": 1.5}])
    1
    >>> Manifest(path)[0]["global_captions"]
    []
    """

    def batches() -> Iterator[pa.RecordBatch]:
        batch: list[dict[str, Any]] = []
        for number, row in enumerate(rows, start=1):
            batch.append(checked_row(row, number))
            if len(batch) == batch_rows:
                yield make_batch(batch, number - len(batch) + 1)
                batch.clear()
        if batch:
            yield make_batch(batch, number - len(batch) + 1)

    return write_batches(path, batches(), batch_rows, made_by)


def write_batches(
    path: str | os.PathLike,
    batches: Iterable[pa.RecordBatch],
    batch_rows: int = BATCH_ROWS,
    made_by: str = "",
) -> int:
    """Write record batches of checked rows, of any sizes; the rest is as :func:`write_manifest`.

    One batch at a time is in memory.
    """
    check_manifest_path(path)
    hashes = array("q")  # 8 bytes per row: a set of 18 M ids would take gigabytes
    about = {_BATCH_ROWS_KEY: str(batch_rows)} | ({_MADE_BY_KEY: made_by} if made_by else {})
    schema = SCHEMA.with_metadata(about)
    with atomic_path(path) as temporary:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for batch in _of_equal_size(batches, batch_rows):
                hashes.extend(map(hash, batch.column("id").to_pylist()))
                writer.write_batch(batch)
        _check_ids(temporary, np.frombuffer(hashes, dtype=np.int64))
    return len(hashes)


def check_manifest_path(path: str | os.PathLike) -> None:
    """Raise FileExistsError if there is a file at ``path`` that is not a manifest.

    Example
    -------
    >>> check_manifest_path(getfixture("tmp_path") / "new.arrow")
    """
    check_replaceable(path, lambda there: _open(there) is not None, "a manifest")


def _of_equal_size(batches: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.RecordBatch]:
    """Cut and join batches, so that all but the last have ``size`` rows."""
    pending: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        pending.append(batch)
        count += batch.num_rows
        while count >= size:
            table = pa.Table.from_batches(pending, schema=SCHEMA).combine_chunks()
            yield table.slice(0, size).to_batches()[0]
            pending = table.slice(size).to_batches()
            count -= size
    if count:
        yield pa.Table.from_batches(pending, schema=SCHEMA).combine_chunks().to_batches()[0]


def _check_ids(path: Path, hashes: np.ndarray) -> None:
    """Raise if two rows of a written file have one id; ``hashes`` are sorted in place."""
    hashes.sort()
    suspects = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    if not suspects:
        return
    seen: set[str] = set()
    for number, name in enumerate(Manifest(path).values("id"), start=1):
        if hash(name) in suspects:
            if name in seen:
                raise ValueError(f"row {number} (id {name!r}): this id occurs twice")
            seen.add(name)


def checked_row(row: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return a row with its lists filled in; ``number`` is what messages call it.

    Raises
    ------
    ValueError
        If a required column is missing, there is one that is not known, or a whole number is a
        float.
    """
    where = f"row {number} (id {row.get('id')!r})"
    unknown = set(row) - set(SCHEMA.names)
    if unknown:
        raise ValueError(f"{where}: unknown columns {sorted(unknown)}; known: {SCHEMA.names}")
    missing = [field.name for field in SCHEMA if not field.nullable and row.get(field.name) is None]
    if missing:
        raise ValueError(f"{where}: columns {missing} are missing")
    for name in _WHOLE_NUMBERS:
        if isinstance(row.get(name), float):  # Arrow would cut its fraction off
            raise ValueError(f"{where}: column {name!r} is {row[name]}, not an int")
    return {**row, **{name: _as_list(row.get(name)) for name in _LIST_COLUMNS}}


def _as_list(value: Any) -> Any:
    """Return texts as a list, also one text; what is neither is left for Arrow's error."""
    if isinstance(value, str) and value:  # which Arrow would take letter by letter
        return [value]
    is_list = isinstance(value, Iterable) and not isinstance(value, bytes | Mapping)
    return list(value) if is_list else value or []


def make_batch(rows: list[dict[str, Any]], first: int) -> pa.RecordBatch:
    """Return checked rows as a record batch; ``first`` is the number of the first of them.

    Raises
    ------
    ValueError
        If a value does not fit its column; the message names row, id and column.
    """
    try:
        return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
    except _UNFIT as error:
        for number, row in enumerate(rows, first):
            if reason := why_unfit(row):
                raise ValueError(f"row {number} (id {row['id']!r}): {reason}") from error
        raise


def why_unfit(row: Mapping[str, Any]) -> str:
    """Return which column of a row has a value that does not fit it, and why; "" if all fit.

    Example
    -------
    >>> why_unfit({"id": "a", "audio": "a.wav", "duration": 1.5, "gender": 3})
    "column 'gender' is 3: Expected bytes, got a 'int' object"
    """
    for field in SCHEMA:
        try:
            pa.array([row.get(field.name)], field.type)
        except _UNFIT as error:
            return f"column {field.name!r} is {quote(row.get(field.name))}: {error}"
    return ""


class Manifest:
    """A written manifest, read through a memory map.

    Arguments
    ---------
    path : str or path
        File written by :func:`write_manifest`. Relative ``audio`` paths start from its folder.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not a manifest, or holds no clips.

    Example
    -------
    >>> path = getfixture("tmp_path") / "valid.arrow"
    >>> rows = [{"id": "a", "audio": "a.wav", "duration": 1.5, "gender": "female"}]
    >>> _ = write_manifest(path, rows)
    >>> manifest = Manifest(path)
    >>> len(manifest), manifest[0]["gender"], manifest.column("duration")
    (1, 'female', [1.5])
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = expand(path)
        self._reader, self._ends, absent = _open(self.path)
        if not len(self):
            raise ValueError(f"{self.path} holds no clips: prepare the data again")
        self._prefix = os.path.join(os.path.abspath(self.path.parent), "")
        self._columns: dict[int, list[tuple[str, pa.Array]]] = {}  # of batches that were read
        self._empty = dict.fromkeys([*self._reader.schema.names, *absent])

    def __reduce__(self) -> tuple:
        """Send a path to other processes, where the file is mapped again, not its contents."""
        return Manifest, (self.path,)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one row as a dict; ``labels`` is a dict and ``audio`` an absolute path."""
        size = len(self)
        if not -size <= index < size:
            raise IndexError(f"row {index} of {size} in {self.path}")
        index %= size
        number = bisect_right(self._ends, index)
        if number not in self._columns:
            batch = self._reader.get_batch(number)
            self._columns[number] = list(zip(batch.schema.names, batch.columns))
        index -= self._ends[number - 1] if number else 0
        row = self._empty.copy()
        for name, column in self._columns[number]:
            row[name] = column[index].as_py()
        return self._complete(row)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.batches():
            for row in batch.to_pylist():
                yield self._complete(self._empty | row)

    def _complete(self, row: dict[str, Any]) -> dict[str, Any]:
        row["labels"] = dict(row["labels"] or ())
        row["audio"] = self.absolute(row["audio"])
        return row

    def absolute(self, audio: str) -> str:
        """Return the path of a file that the manifest names."""
        return audio if audio.startswith(os.sep) else self._prefix + audio

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows as they are stored, in record batches of columns."""
        return map(self._reader.get_batch, range(len(self._ends)))

    @property
    def made_by(self) -> str:
        """What wrote it, such as ``clsp search``; "" for most."""
        return (self._reader.schema.metadata or {}).get(_MADE_BY_KEY, b"").decode()

    def values(self, name: str) -> Iterator[Any]:
        """Yield one column of all rows; a batch of it at a time is in memory."""
        for batch in self.batches():
            yield from batch.column(name).to_pylist()

    def column(self, name: str) -> list[Any]:
        """Return one column of all rows as a list."""
        return list(self.values(name))

    def array(self, name: str) -> np.ndarray:
        """Return a column of numbers, [rows]: 8 bytes per row where a list takes 32.

        Nulls become NaN, in float64.
        """
        parts = [np.asarray(batch.column(name)) for batch in self.batches()]
        return np.concatenate(parts or [np.empty(0)])


def _open(path: Path) -> tuple[pa.ipc.RecordBatchFileReader, list[int], list[str]]:
    """Open a manifest; return also where its batches end, and the columns that it has not yet."""
    if not path.is_file():
        raise FileNotFoundError(f"No manifest at {path}: run the prepare script first")
    try:
        reader = _map_file(path)
        ends = _batch_ends(reader)
    except (ValueError, OSError) as error:
        kind = explain_file(path, "an Arrow")
        raise ValueError(f"{path} is not a manifest, or was cut off{kind}: {error}") from error
    absent = [name for name in SCHEMA.names if name not in reader.schema.names]
    if not _ADDED_LATER.issuperset(absent):
        raise ValueError(f"{path} lacks the columns {absent}: write it again")
    return reader, ends, absent


def _map_file(path: Path) -> pa.ipc.RecordBatchFileReader:
    """Open a file so that nothing of it takes memory until it is read."""
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return pa.ipc.open_file(pa.BufferReader(pa.py_buffer(mapped)))


def _batch_ends(reader: pa.ipc.RecordBatchFileReader) -> list[int]:
    """Return the number of the row behind each batch."""
    number, metadata = reader.num_record_batches, reader.schema.metadata or {}
    if number and _BATCH_ROWS_KEY in metadata:
        sizes = [int(metadata[_BATCH_ROWS_KEY])] * (number - 1)
        sizes.append(reader.get_batch(number - 1).num_rows)
    else:
        sizes = [reader.get_batch(i).num_rows for i in range(number)]
    return list(accumulate(sizes))
