"""Ratings as a CSV table, one line each, and as an array for statistics."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speechbrain_clsp.ratings.scales import STYLE
from speechbrain_clsp.ratings.store import STORE_SUFFIX, Rating, RatingStore
from speechbrain_clsp.utils.files import atomic_write
from speechbrain_clsp.utils.reading import read_csv

ITEM_COLUMNS = ("clip", "caption", "category")
COLUMNS = (*ITEM_COLUMNS, "rater", "rating")


@dataclass
class Ratings:
    """What people said of pairs of clip and caption, or of pairs of clips.

    Arguments
    ---------
    items : list of (str, str)
        N pairs: clip and caption, or two clips.
    categories : list of str
        N names, such as intrinsic, situational or fusion.
    raters : list of str
        R names.
    scores : numpy.ndarray
        [N, R] float64, NaN where a rater did not rate.

    Example
    -------
    >>> scores = np.array([[4.0, 5.0], [1.0, math.nan]])
    >>> pairs = [("a.wav", "A man."), ("b.wav", "A man.")]
    >>> ratings = Ratings(pairs, ["intrinsic"] * 2, ["r1", "r2"], scores)
    >>> np.nanmean(ratings.scores, axis=1)
    array([4.5, 1. ])
    """

    items: list[tuple[str, str]]
    categories: list[str]
    raters: list[str]
    scores: np.ndarray


def read_lines(
    path: str | os.PathLike,
    columns: Sequence[str],
    only: bool = False,
    optional: Sequence[str] = (),
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the lines of a CSV file, each with its place for messages: ``file, line 2``.

    Cells that a line lacks are None; ``optional`` columns may be absent. Separators and encodings
    are those of :func:`~speechbrain_clsp.utils.reading.read_csv`; a file that may have ``only``
    these columns must name them exactly, and be separated by commas.

    Raises
    ------
    ValueError
        If the file is not a table, lacks one of the columns or has it twice, or has further ones
        and may have ``only`` these; if a line has more cells than the header.
    """
    header, rows = read_csv(path, () if only else (*columns, *optional))
    absent = [name for name in columns if name not in header]
    if absent:
        raise ValueError(
            f"{path}, line 1: lacks the columns {absent}; it needs {list(columns)} and has {header}"
        )
    repeated = [name for name in (*columns, *optional) if header.count(name) > 1]
    if repeated:
        raise ValueError(f"{path}, line 1: has the columns {repeated} more than once")
    further = sorted(set(header) - set(columns))
    if only and further:
        raise ValueError(f"{path}, line 1: has further columns: {further}")
    for row in rows:
        where = f"{path}, line {row.line}"
        if row.fault:
            raise ValueError(f"{where}: {row.fault}")
        if any(row.cells[len(header) :]):
            raise ValueError(
                f"{where}: has more cells than the header: put a text with a comma in quotation"
                " marks"
            )
        yield where, {**dict.fromkeys(header), **dict(zip(header, row.cells))}


def read_table(path: str | os.PathLike, only: bool = False) -> Iterator[tuple[str, Rating]]:
    """Yield the ratings of a table, each with its place; raises as :func:`read_lines`."""
    for where, line in read_lines(path, COLUMNS, only):
        clip, caption, category, rater = (line[name] for name in COLUMNS[:-1])
        if rater is None or category is None:
            raise ValueError(f"{where}: the line ends before {'rater' if category else 'category'}")
        value = value_of(line["rating"], where)
        yield where, Rating(clip, caption, category, rater, STYLE, value)


def value_of(cell: str | None, where: str) -> float:
    """Return a rating as a number; raise ValueError that names its place if it is none.

    Example
    -------
    >>> value_of("4.5", "ratings.csv, line 2")
    4.5
    """
    try:
        value = float(cell or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(
            f"{where}: the rating {cell!r} is not a number; leave out lines without one"
        )
    return value


def write_lines(path: str | os.PathLike, lines: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file, header first, atomically."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(lines)
    atomic_write(path, text.getvalue())


def write_table(path: str | os.PathLike, ratings: Iterable[Rating]) -> None:
    """Write ratings as a table, atomically.

    Arguments
    ---------
    path : str or path
        The CSV file; replaced if it is there.
    ratings : iterable of Rating
        A line each, in this order; their dimension is not written.

    Example
    -------
    >>> path = getfixture("tmp_path") / "ratings.csv"
    >>> write_table(path, [Rating("a.wav", "A man.", "intrinsic", "r1", STYLE, 4.5)])
    >>> print(path.read_text().strip())
    clip,caption,category,rater,rating
    a.wav,A man.,intrinsic,r1,4.5
    """
    lines = [(r.clip, r.caption, r.category, r.rater, f"{r.value:g}") for r in ratings]
    write_lines(path, [COLUMNS, *lines])


def read_ratings(path: str | os.PathLike) -> Ratings:
    r"""Read ratings of style similarity.

    Arguments
    ---------
    path : str or path
        A CSV file with the columns clip, caption, category, rater and rating, one line per rating,
        on any scale that is the same for all; or a store that ``clsp rate`` wrote (``.sqlite``).

    Returns
    -------
    Ratings
        In the file's order.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a column is missing, a rating is not a number, a rater rated a pair twice, or a pair has
        two categories; the message names the line.

    Example
    -------
    >>> path = getfixture("tmp_path") / "ratings.csv"
    >>> lines = ["clip,caption,category,rater,rating", "a.wav,He shouts.,intrinsic,r1,4.5"]
    >>> _ = path.write_text("\n".join(lines))
    >>> read_ratings(path).scores
    array([[4.5]])
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"No ratings at {path}")
    if Path(path).suffix == STORE_SUFFIX:
        with RatingStore(path) as store:
            placed = [(str(path), rating) for rating in store.ratings(STYLE)]
    else:
        placed = list(read_table(path))
    if not placed:
        raise ValueError(f"{path} holds no rating")
    return gather(
        (where, (rating.clip, rating.caption), rating.category, rating.rater, rating.value)
        for where, rating in placed
    )


def gather(rated: Iterable[tuple[str, tuple[str, str], str, str, float]]) -> Ratings:
    """Return ratings as an array, from places for messages, pairs, categories, raters and values.

    Raises
    ------
    ValueError
        If a rater rated a pair twice, or a pair has two categories.

    Example
    -------
    >>> gather([("line 1", ("a.wav", "b.wav"), "all", "r1", 4.5)]).raters
    ['r1']
    """
    categories: dict[tuple[str, str], str] = {}
    found: dict[tuple[tuple[str, str], str], float] = {}
    for where, item, category, rater, value in rated:
        if categories.setdefault(item, category) != category:
            raise ValueError(f"{where}: {item} has two categories")
        if (item, rater) in found:
            raise ValueError(f"{where}: rater {rater!r} rated {item} before")
        found[item, rater] = value
    items, raters = list(categories), sorted({rater for _, rater in found})
    values = [[found.get((item, rater), math.nan) for rater in raters] for item in items]
    return Ratings(items, list(categories.values()), raters, np.array(values))
