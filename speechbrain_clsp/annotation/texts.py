"""A text per clip from a table: transcripts, or captions to compare."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from speechbrain_clsp.ratings.table import read_lines


def read_texts(path: str | os.PathLike, column: str, allow_empty: bool = False) -> dict[str, str]:
    """Read a text per clip, by id of the clip.

    The file is ``.csv`` with the columns ``id`` and ``column``, or ``.jsonl`` with these keys.
    Raises ValueError, with the line, where they are missing or empty; the text may be empty if that
    is allowed.

    Example
    -------
    >>> path = getfixture("tmp_path") / "said.jsonl"
    >>> _ = path.write_text('{"id": "a", "text": "Come in."}')
    >>> read_texts(path, "text")
    {'a': 'Come in.'}
    """
    csv = str(path).endswith(".csv")
    lines = read_lines(path, ("id", column)) if csv else _read_json_lines(path)
    found: dict[str, str] = {}
    for where, line in lines:
        text = line.get(column) if isinstance(line, Mapping) else None
        if text is None or not (text or allow_empty) or not line.get("id"):
            raise ValueError(f"{where}: needs id and {column}")
        found[line["id"]] = text
    return found


def _read_json_lines(path: str | os.PathLike) -> Iterator[tuple[str, Any]]:
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield f"{path}, line {number}", json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
