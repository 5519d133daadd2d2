"""A text per clip from a table: transcripts, or captions to compare."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from speechbrain_clsp.ratings.table import read_lines
from speechbrain_clsp.utils.reading import read_json_lines

TABLES = (".csv", ".tsv")


def read_texts(path: str | os.PathLike, column: str, allow_empty: bool = False) -> dict[str, str]:
    """Read a text per clip, by id of the clip.

    The file is ``.csv`` or ``.tsv`` with the columns ``id`` and ``column``, or ``.jsonl`` with
    these keys; also gzipped (``.gz``). Raises ValueError, with the line, where they are missing or
    empty, or an id was there before; the text may be empty if that is allowed.

    Example
    -------
    >>> path = getfixture("tmp_path") / "said.jsonl"
    >>> _ = path.write_text('{"id": "a", "text": "Come in."}')
    >>> read_texts(path, "text")
    {'a': 'Come in.'}
    """
    is_table = Path(str(path).lower().removesuffix(".gz")).suffix in TABLES
    lines = read_lines(path, ("id", column)) if is_table else read_json_lines(path)
    found: dict[str, str] = {}
    places: dict[str, str] = {}
    for where, line in lines:
        name, text = (
            (line.get("id"), line.get(column)) if isinstance(line, Mapping) else (None, None)
        )
        if not isinstance(name, str) or not isinstance(text, str) or not name:
            raise ValueError(f"{where}: needs id and {column}, both of them text")
        if not (text.strip() or allow_empty):
            raise ValueError(f"{where}: {column} of {name!r} is empty")
        if name in found:
            raise ValueError(
                f"{where}: the id {name!r} was there before, in {places[name]}: one {column} per"
                " clip, leave one of them out"
            )
        found[name], places[name] = text, where
    return found
