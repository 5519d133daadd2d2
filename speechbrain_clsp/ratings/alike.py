"""Tables of how alike clips sound to people: rated pairs, or which of two clips is the nearer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from speechbrain_clsp.ratings.table import Ratings, gather, read_lines, value_of
from speechbrain_clsp.utils.reading import read_csv

PAIR = ("first", "second", "rating")
CHOICE = ("clip", "nearer", "farther")
OPTIONAL = ("category", "rater")
ALL = "all"  # the category of all lines of a table that has none


@dataclass
class Choices:
    """Which of two clips people found to sound more like a third.

    Arguments
    ---------
    items : list of (str, str, str)
        N lines: clip, the nearer one, the farther one.
    categories : list of str
        N names.

    Example
    -------
    >>> Choices([("a.wav", "b.wav", "c.wav")], ["emotion"]).items[0][1]
    'b.wav'
    """

    items: list[tuple[str, str, str]]
    categories: list[str]


def read_alike(path: str | os.PathLike) -> Ratings | Choices:
    r"""Read what people said of how alike clips sound.

    Arguments
    ---------
    path : str or path
        A CSV file. Either of pairs, with the columns first, second and rating, one line per rating,
        on any scale on which more is more alike; or of choices, with the columns clip, nearer and
        farther. Both may have the columns category and rater.

    Returns
    -------
    Ratings or Choices
        In the file's order; items of ratings are pairs of clips.

    Raises
    ------
    ValueError
        If a column is missing, a line lacks a clip or chooses between less than three, a rating is
        not a number, a rater rated a pair twice, or a pair has two categories; the message names
        the line. Also if a table has the columns of both.

    Example
    -------
    >>> path = getfixture("tmp_path") / "pairs.csv"
    >>> _ = path.write_text("first,second,rating\na.wav,b.wav,4.5\na.wav,c.wav,1\n")
    >>> ratings = read_alike(path)
    >>> ratings.items, ratings.scores.tolist()
    ([('a.wav', 'b.wav'), ('a.wav', 'c.wav')], [[4.5], [1.0]])
    """
    header, _ = read_csv(path, (*PAIR, *CHOICE, *OPTIONAL))
    if set(CHOICE) <= set(header):
        if set(PAIR) <= set(header):
            raise ValueError(
                f"{path}: has the columns {', '.join(PAIR)} of rated pairs and those of choices,"
                f" {', '.join(CHOICE)}: make it two tables"
            )
        lines = list(_lines(path, CHOICE))
        if not lines:
            raise ValueError(f"{path} holds no choice")
        for where, line in lines:
            if len({line[name] for name in CHOICE}) < len(CHOICE):
                raise ValueError(f"{where}: clip, nearer and farther must be three clips")
        items = [(line["clip"], line["nearer"], line["farther"]) for _, line in lines]
        return Choices(items, [line["category"] for _, line in lines])
    rated = [
        (where, (line["first"], line["second"]), line["category"], line["rater"], value)
        for where, line in _lines(path, PAIR)
        for value in [value_of(line["rating"], where)]
    ]
    if not rated:
        raise ValueError(f"{path} holds no rating")
    return gather(rated)


def _lines(
    path: str | os.PathLike, columns: tuple[str, ...]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield lines with their places; a category or a rater that a line lacks is filled in."""
    for where, line in read_lines(path, columns, optional=OPTIONAL):
        absent = [name for name in columns if not line[name]]
        if absent:
            raise ValueError(f"{where}: lacks {' and '.join(absent)}")
        filled = {"category": line.get("category") or ALL, "rater": line.get("rater") or ""}
        yield where, {**line, **filled}
