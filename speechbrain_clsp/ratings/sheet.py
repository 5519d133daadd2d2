"""Sheets on which people score captions of several sources, blind and in random order."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechbrain_clsp.ratings.scales import SCORES, dimensions
from speechbrain_clsp.ratings.store import Rating
from speechbrain_clsp.ratings.table import read_lines, write_lines
from speechbrain_clsp.ratings.task import check_rater

KEY_COLUMNS = ("item", "id", "source", "caption")


def write_sheet(
    path: str | os.PathLike,
    rows: Sequence[Mapping[str, Any]],
    captions: Mapping[str, Mapping[str, str]],
    seed: int = 0,
) -> Path:
    """Write a sheet to fill in, and its key, which names the sources and which raters must not see.

    Arguments
    ---------
    path : str or path
        The sheet, ``.csv``: item, audio, caption, and an empty column per dimension. The key,
        ``x.key.csv`` for ``x.csv``, has item, id, source and caption.
    rows : sequence of dict
        Rows of the manifest, the clips.
    captions : mapping
        For each source, caption by id of the clip.
    seed : int
        Of the order.

    Returns
    -------
    Path
        The key.

    Raises
    ------
    FileExistsError
        If either file is there: it may hold ratings.

    Example
    -------
    >>> path = getfixture("tmp_path") / "sheet.csv"
    >>> key = write_sheet(path, [{"id": "a", "audio": "a.wav"}], {"ours": {"a": "A man."}})
    >>> path.read_text().splitlines()[1], key.read_text().splitlines()[1]
    ('1,a.wav,A man.,,,', '1,a,ours,A man.')
    """
    path = Path(path)
    key_path = path.with_suffix(".key.csv")
    for there in (path, key_path):
        if there.exists():
            raise FileExistsError(f"{there} exists and may be in use: move it away first")
    items = [(row, source) for row in rows for source in captions]
    random.Random(seed).shuffle(items)
    to_fill: list[list[Any]] = [["item", "audio", "caption", *dimensions()]]
    key_lines: list[list[Any]] = [list(KEY_COLUMNS)]
    for item, (row, source) in enumerate(items, start=1):
        caption = captions[source][row["id"]]
        to_fill.append([item, row["audio"], caption, *[""] * len(dimensions())])
        key_lines.append([item, row["id"], source, caption])
    write_lines(key_path, key_lines)
    write_lines(path, to_fill)
    return key_path


def read_sheet(path: str | os.PathLike, key: str | os.PathLike, rater: str) -> list[Rating]:
    """Return the ratings of a filled sheet; items that are left empty are left out.

    Arguments
    ---------
    path, key : str or path
        The sheet and its key, see :func:`write_sheet`.
    rater : str
        Who filled it.

    Returns
    -------
    list of Rating
        One per item and dimension; ``clip`` is the clip's id, ``category`` the caption's source.

    Raises
    ------
    ValueError
        If the rater has no name, or a line cannot be understood; names it.

    Example
    -------
    >>> sheet = getfixture("tmp_path") / "sheet.csv"
    >>> key = write_sheet(sheet, [{"id": "a", "audio": "a.wav"}], {"ours": {"a": "A man."}})
    >>> _ = sheet.write_text(sheet.read_text().replace(",,,", ",5,4,5"))
    >>> [(rating.clip, rating.category, rating.value) for rating in read_sheet(sheet, key, "r1")]
    [('a', 'ours', 5.0), ('a', 'ours', 4.0), ('a', 'ours', 5.0)]
    """
    check_rater(rater)
    items = {line["item"]: line for _, line in read_lines(key, KEY_COLUMNS)}
    ratings: list[Rating] = []
    seen: set[str] = set()
    for place, line in read_lines(path, ("item", *dimensions())):
        item = line["item"] or ""
        if item not in items:
            raise ValueError(f"{place}: item {item!r} is not in {key}")
        if item in seen:
            raise ValueError(f"{place}: item {item} was there before")
        seen.add(item)
        cells = {name: (line[name] or "").strip() for name in dimensions()}
        given = {name: score for name, score in cells.items() if score}
        if given and len(given) < len(dimensions()):
            raise ValueError(f"{place}: fill in all of {', '.join(dimensions())}, or none")
        about = items[item]
        for name, score in given.items():
            if score not in map(str, SCORES.values):
                ends = f"{SCORES.low:g} to {SCORES.high:g}"
                raise ValueError(f"{place}, {name}: {score!r} is not a whole number from {ends}")
            where = (about["id"], about["caption"], about["source"])
            ratings.append(Rating(*where, rater, name, float(score)))
    return ratings
