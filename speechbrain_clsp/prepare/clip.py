"""Types that all prepare modules share, and the lines of JSON files that records come in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from speechbrain_clsp.utils import reading

MALFORMED = "malformed line"  # the reason that is counted against ``max_malformed``


class UnusableClipError(ValueError):
    """A record that cannot become a row of the manifest.

    ``reason`` is a short phrase of a small set, by which such records are counted; ``detail`` says
    what is wrong with this one; ``name`` is its id, if it has one.
    """

    def __init__(self, reason: str, detail: str = "", name: str | None = None) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail, self.name = reason, detail, name

    def __reduce__(self) -> tuple:
        return UnusableClipError, (self.reason, self.detail, self.name)


class Record(NamedTuple):
    """A line of a source, not parsed yet.

    Arguments
    ---------
    number : int
        In its source, from 1.
    line : bytes
        The line.

    Example
    -------
    >>> parse_line(Record(1, b'{"id": "a"}').line)
    {'id': 'a'}
    """

    number: int
    line: bytes


@dataclass
class ClipRecord:
    """A parsed record whose audio has not been located yet.

    Arguments
    ---------
    row : dict
        The known columns of the manifest; ``audio`` is the path that the record gives.
    names : list of str
        Paths and ids by which the audio may be found, the most reliable first.

    Example
    -------
    >>> ClipRecord({"id": "a", "audio": "wavs/a.flac"}, ["wavs/a.flac", "a"]).names[0]
    'wavs/a.flac'
    """

    row: dict[str, Any]
    names: list[str]


def read_lines(path: str | os.PathLike) -> Iterator[Record]:
    r"""Stream the non-empty lines of a text file as records.

    Encodings and errors are those of :func:`~speechbrain_clsp.utils.reading.read_lines`.

    Arguments
    ---------
    path : str or path
        The file, which may be compressed.

    Yields
    ------
    Record
        A line with its number.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.jsonl"
    >>> _ = path.write_bytes(b"{}\n\n[]\n")
    >>> list(read_lines(path))
    [Record(number=1, line=b'{}'), Record(number=3, line=b'[]')]
    """
    for number, line in reading.read_lines(path):
        yield Record(number, line)


def parse_line(line: bytes) -> dict[str, Any]:
    """Parse a line as a JSON object.

    Arguments
    ---------
    line : bytes
        In UTF-8.

    Returns
    -------
    dict
        The object.

    Raises
    ------
    UnusableClipError
        If the line is not a JSON object.

    Example
    -------
    >>> parse_line(b'{"id": "a", "duration": 1.5}')
    {'id': 'a', 'duration': 1.5}
    """
    try:
        record = reading.parse_json(line)
    except ValueError as error:
        raise UnusableClipError(MALFORMED, str(error)) from error
    if not isinstance(record, dict):
        raise UnusableClipError(MALFORMED, "is not a JSON object")
    return record
