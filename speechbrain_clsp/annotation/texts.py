"""A text per clip from a table: transcripts, or captions to compare."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping


def read_texts(path: str | os.PathLike, column: str, allow_empty: bool = False) -> dict[str, str]:
    """Read a text per clip.

    Arguments
    ---------
    path : str or path
        ``.csv`` with the columns ``id`` and ``column``, or ``.jsonl`` with these keys.
    column : str
        Name of the text.
    allow_empty : bool
        Whether a text may be empty.

    Returns
    -------
    dict
        Text by id of the clip.

    Raises
    ------
    ValueError
        If an entry lacks them; names it.

    Example
    -------
    >>> path = getfixture("tmp_path") / "said.csv"
    >>> _ = path.write_text("id,text" + chr(10) + "a,Come in." + chr(10))
    >>> read_texts(path, "text")
    {'a': 'Come in.'}
    """
    found: dict[str, str] = {}
    with open(path, encoding="utf-8-sig", newline="") as file:
        lines = csv.DictReader(file) if str(path).endswith(".csv") else map(json.loads, file)
        for number, line in enumerate(lines, start=1):
            text = line.get(column) if isinstance(line, Mapping) else None
            if text is None or not (text or allow_empty) or not line.get("id"):
                raise ValueError(f"{path}, entry {number}: needs id and {column}")
            found[line["id"]] = text
    return found
