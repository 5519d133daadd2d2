"""Append-only records of one annotation stage: JSON lines that survive a kill at any moment."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from speechbrain_clsp.dataio.manifest import Manifest

BEGINNING = b'{"key": '  # of every record that is written here


def record_key(*parts: Any) -> str:
    """Return the SHA-256 of a request's parts, bytes or JSON: clip, audio, prompt, model, ...

    Example
    -------
    >>> record_key(b"audio", "Describe.", {"n": 1}) == record_key(b"audio", "Describe.", {"n": 2})
    False
    """
    hashed = [hashlib.sha256(p).hexdigest() if isinstance(p, bytes) else p for p in parts]
    return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()


def read_records(path: str | os.PathLike) -> Iterator[dict[str, Any]]:
    r"""Yield the complete records of a file, each key once.

    Arguments
    ---------
    path : str or path
        A file that :class:`Records` writes.

    Yields
    ------
    dict
        A record; a torn last line gives none.

    Raises
    ------
    ValueError
        If a line that ends properly is not a record: the file is damaged, not just cut off.

    Example
    -------
    >>> path = getfixture("tmp_path") / "caption.jsonl"
    >>> _ = path.write_text('{"id": "a", "key": "1"}\n{"id": "b", "k')
    >>> [record["id"] for record in read_records(path)]
    ['a']
    """
    seen: set[str] = set()
    for record, _, _ in read_places(path):
        if record["key"] not in seen:
            seen.add(record["key"])
            yield record


def read_places(path: str | os.PathLike) -> Iterator[tuple[dict[str, Any], int, int]]:
    """Yield the record of every complete line, with the offsets of the line's start and end.

    A last line without its end is complete if it holds a record.
    """
    start = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                record = json.loads(line)
                _ = record["key"]
            except (ValueError, TypeError, KeyError) as error:
                ours = number > 1 or line[: len(BEGINNING)] == BEGINNING[: len(line)]
                if ours and not line.endswith(b"\n"):
                    return  # a kill in the middle of a write
                raise ValueError(f"{path}, line {number}: not a record; remove the line") from error
            yield record, start, start + len(line)
            start += len(line)


def row_of(
    record: Mapping[str, Any], manifest: Manifest | Sequence[Mapping[str, Any]]
) -> Mapping[str, Any]:
    """Return the row of the manifest that a record is about.

    Raises
    ------
    ValueError
        If the manifest is not the one that the record was made from.

    Example
    -------
    >>> row_of({"id": "b", "row": 1}, [{"id": "a"}, {"id": "b"}])
    {'id': 'b'}
    """
    number = record["row"]
    row = manifest[number] if number < len(manifest) else {"id": None}
    if row["id"] != record["id"]:
        raise ValueError(
            f"Row {number} of the manifest is {row['id']}, not {record['id']}: records belong to"
            " the manifest that they were made from"
        )
    return row


class Records:
    """A file of records, open for appending by one process.

    Arguments
    ---------
    path : str or path
        The file; made if it does not exist. A torn last line, as a kill leaves it, is moved to
        ``<path>.torn``.
    sync_every : int
        Force records to the disk after so many. Even without it, a killed process loses none that
        were appended: only a machine that loses power does.

    Raises
    ------
    BlockingIOError
        If another process has it open: both would do the same work.
    ValueError
        If the file holds something else than records. It is not changed.

    Example
    -------
    >>> path = getfixture("tmp_path") / "captions.jsonl"
    >>> with Records(path) as records:
    ...     records.append({"key": "a", "text": "A man."}), records.append({"key": "a"})
    (True, False)
    """

    def __init__(self, path: str | os.PathLike, sync_every: int = 1) -> None:
        self.path = Path(path)
        self.sync_every = sync_every
        self.keys: set[str] = set()
        self.tickets: set[str | None] = set()
        self._unsynced = 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "ab", buffering=0)
        try:
            self._lock_and_read()
        except (OSError, ValueError):
            self._file.close()
            raise

    def _lock_and_read(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BlockingIOError(
                f"{self.path}: another process is writing to it; wait for it"
            ) from error
        complete = 0
        for record, _, end in read_places(self.path):
            complete = end
            self.keys.add(record["key"])
            self.tickets.add(record.get("ticket"))
        self._complete_last_line(complete)

    def _complete_last_line(self, complete: int) -> None:
        """End the last record's line; move what follows it to another file, and say so."""
        with open(self.path, "rb") as file:
            file.seek(max(0, complete - 1))
            last, torn = (file.read(1) if complete else b"\n"), file.read()
        if torn:
            aside = self.path.with_name(f"{self.path.name}.torn")
            with open(aside, "ab") as file:
                file.write(torn + b"\n")
                os.fsync(file.fileno())
            self._file.truncate(complete)
            tqdm.write(f"{self.path}: the last line is cut off; it was moved to {aside}")
        if last != b"\n":
            self._write(b"\n")

    def append(self, record: Mapping[str, Any]) -> bool:
        """Add a record; return False, and write nothing, if its key is there already."""
        if record["key"] in self.keys:
            return False
        self._write(json.dumps(record).encode() + b"\n")
        self.keys.add(record["key"])
        self._unsynced += 1
        if self._unsynced >= self.sync_every:
            self._sync()
        return True

    def _write(self, content: bytes) -> None:
        left = memoryview(content)
        while left:
            left = left[self._file.write(left) :]  # a raw write may be short

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._unsynced = 0

    def close(self) -> None:
        """Force what was appended to the disk and close the file."""
        if not self._file.closed:
            self._sync()
            self._file.close()

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
