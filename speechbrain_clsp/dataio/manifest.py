"""The manifest: one row per clip, in an Arrow file that is mapped into memory, never loaded.

Every prepare script writes it and everything else reads it. Its columns are ``SCHEMA``; the names
of the style labels follow ParaSpeechCaps.

Authors
 * The speechbrain-clsp authors 2026
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

_TEXTS = pa.list_(pa.string())

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("audio", pa.string(), nullable=False),  # file, or shard that holds it
        pa.field("offset", pa.int64()),  # first byte in the shard; null for a plain file
        pa.field("nbytes", pa.int64()),
        pa.field("start", pa.float64()),  # seconds into the file
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
    ]
)
_LIST_COLUMNS = ("intrinsic_tags", "situational_tags", "global_captions", "fine_captions")


def write_manifest(
    path: str | os.PathLike, rows: Iterable[Mapping[str, Any]], batch_rows: int = 4096
) -> int:
    """Write rows to ``path``; the file appears whole or not at all.

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

    Returns
    -------
    int
        Number of rows written.

    Raises
    ------
    ValueError
        If a row lacks a required column, has an unknown one, or repeats an id; the message names
        the row and its id.

    Example
    -------
    >>> path = getfixture("tmp_path") / "train.arrow"
    >>> write_manifest(path, [{"id": "a", "audio": "a.wav", "duration": 1.5}])
    1
    >>> Manifest(path)[0]["global_captions"]
    []
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    seen: set[str] = set()
    count = 0
    with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        batch: list[dict[str, Any]] = []
        for count, row in enumerate(rows, start=1):
            batch.append(_checked(row, count, seen))
            if len(batch) == batch_rows:
                writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=SCHEMA))
                batch = []
        if batch:
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=SCHEMA))
    os.replace(partial, path)
    return count


def _checked(row: Mapping[str, Any], number: int, seen: set[str]) -> dict[str, Any]:
    where = f"row {number} (id {row.get('id')!r})"
    unknown = set(row) - set(SCHEMA.names)
    if unknown:
        raise ValueError(f"{where}: unknown columns {sorted(unknown)}; known: {SCHEMA.names}")
    missing = [field.name for field in SCHEMA if not field.nullable and row.get(field.name) is None]
    if missing:
        raise ValueError(f"{where}: columns {missing} are missing")
    if row["id"] in seen:
        raise ValueError(f"{where}: this id occurs twice")
    seen.add(row["id"])
    checked = dict(row)
    for name in _LIST_COLUMNS:
        checked[name] = list(row.get(name) or [])
    return checked


class Manifest:
    """A written manifest, read through a memory map.

    Arguments
    ---------
    path : str or path
        File written by :func:`write_manifest`.
    data_root : str or path, optional
        Folder that relative ``audio`` paths start from; default: the manifest's own folder.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not a manifest.

    Example
    -------
    >>> path = getfixture("tmp_path") / "dev.arrow"
    >>> rows = [{"id": "a", "audio": "a.wav", "duration": 1.5, "gender": "female"}]
    >>> _ = write_manifest(path, rows)
    >>> manifest = Manifest(path)
    >>> len(manifest), manifest[0]["gender"], manifest.column("duration")
    (1, 'female', [1.5])
    """

    def __init__(self, path: str | os.PathLike, data_root: str | os.PathLike | None = None) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"No manifest at {self.path}: run the prepare script first")
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(self.path)))
            self.table = reader.read_all()
        except pa.ArrowInvalid as error:
            raise ValueError(f"{self.path} is not a manifest, or was cut off: {error}") from error
        absent = [field.name for field in SCHEMA if field.name not in self.table.column_names]
        if absent:
            raise ValueError(f"{self.path} lacks the columns {absent}: write it again")
        self.data_root = Path(data_root) if data_root is not None else self.path.parent

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one row as a dict; ``labels`` is a dict and ``audio`` an absolute path."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)} in {self.path}")
        row = self.table.slice(index % len(self), 1).to_pylist()[0]
        row["labels"] = dict(row["labels"] or [])
        row["audio"] = str(self.data_root / row["audio"])
        return row

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    def column(self, name: str) -> list[Any]:
        """Return one column of all rows as a list."""
        return self.table.column(name).to_pylist()
