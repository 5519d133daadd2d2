"""Types that all prepare modules share, and the lines of JSON files that records come in."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

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
    """A line of a source, not parsed yet."""

    number: int  # in its source, from 1
    line: bytes


@dataclass
class ClipRecord:
    """A parsed record whose audio has not been located yet."""

    row: dict[str, Any]  # the known columns; ``audio`` is the path that the record gives
    names: list[str]  # paths and ids by which the audio may be found, the most reliable first


def read_lines(path: str | os.PathLike) -> Iterator[Record]:
    r"""Stream the non-empty lines of a text file, gzipped or not.

    Compression is detected by the content. Lines lose surrounding white space and keep the numbers
    that they have in the file.

    Raises
    ------
    ValueError
        If the file is truncated or damaged, after all lines before the damage.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.jsonl.gz"
    >>> _ = path.write_bytes(gzip.compress(b"{}\n\n[]\n"))
    >>> list(read_lines(path))
    [Record(number=1, line=b'{}'), Record(number=3, line=b'[]')]
    """
    with open(path, "rb") as raw:
        is_gzipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        number = 0
        try:
            for number, line in enumerate(gzip.open(raw) if is_gzipped else raw, start=1):
                if line.strip():
                    yield Record(number, line.strip())
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(
                f"{path} is cut off or damaged after line {number} ({error}): download it again;"
                " what was prepared up to there is kept"
            ) from error


def parse_line(line: bytes) -> dict[str, Any]:
    """Parse a line as a JSON object; raise UnusableClipError if it is not one."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise UnusableClipError(MALFORMED, str(error)) from error
    if not isinstance(record, dict):
        raise UnusableClipError(MALFORMED, "is not a JSON object")
    return record
