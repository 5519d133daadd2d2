"""Checks of sequences and captions that users give, with messages that name the wrong entry."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

QUOTED = 80  # characters of a text that a message quotes
LISTED = 10  # entries of a list that a message names


def as_list(values: Iterable[Any], name: str, entries: str) -> list[Any]:
    """Return what a user gave as a list: a list, a tuple, an array, a column or a generator.

    Arguments
    ---------
    values : iterable
        What was given.
    name : str
        What messages call it.
    entries : str
        What it should be a list of, such as ``captions``.

    Raises
    ------
    TypeError
        If it is a single str or path, has names or no order (a dict, a table, a set), or is no
        sequence at all.

    Example
    -------
    >>> as_list((text for text in ("a", "b")), "texts", "captions")
    ['a', 'b']
    >>> as_list("a.wav", "paths", "paths")
    Traceback (most recent call last):
    ...
    TypeError: paths must be a list of paths, not a str: use ['a.wav']
    """
    kind = type(values).__name__
    wrong = f"{name} must be a list of {entries}, not a {kind}"
    if isinstance(values, str | bytes | os.PathLike):
        raise TypeError(f"{wrong}: use [{values!r}]")
    if isinstance(values, Mapping):
        raise TypeError(f"{wrong}: give list({name}.values())")
    if isinstance(values, set | frozenset):
        raise TypeError(f"{wrong}, which has no order: give sorted({name})")
    if hasattr(values, "columns"):
        raise TypeError(f"{wrong}: give one of its columns")
    try:
        return list(values)
    except TypeError as error:
        raise TypeError(wrong) from error


def check_texts(texts: Iterable[str], name: str = "texts", allow_empty: bool = False) -> list[str]:
    """Return captions as a list of str.

    Arguments
    ---------
    texts : iterable of str
        As for :func:`as_list`.
    name : str
        What messages call them.
    allow_empty : bool
        Whether a caption may be empty.

    Raises
    ------
    TypeError
        As :func:`as_list`; and if an entry is not a str, such as the NaN of an empty cell.
    ValueError
        If there is none, or one is empty or not valid Unicode.

    Example
    -------
    >>> check_texts(["A man.", float("nan")])
    Traceback (most recent call last):
    ...
    TypeError: texts[1] is nan, a float: texts must be a list of str
    """
    texts = as_list(texts, name, "captions")
    if not texts:
        raise ValueError(f"{name} is empty: give at least one caption")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(
                f"{name}[{number}] is {quote(text)}, a {type(text).__name__}: {name} must be a"
                " list of str"
            )
        if not (text.strip() or allow_empty):
            raise ValueError(f"Caption {number} is empty ({name}[{number}])")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{name}[{number}] is {quote(text)}, which is not valid Unicode: read it as UTF-8"
            ) from error
    return [str(text) for text in texts]


def quote(value: Any) -> str:
    """Return a value as messages quote it, in one line and not too long.

    Example
    -------
    >>> len(quote("slowly " * 99))
    80
    """
    text = repr(value)
    return text if len(text) <= QUOTED else f"{text[: QUOTED - 4]}...{text[-1]}"


def join_some(entries: Iterable[Any], separator: str = "; ") -> str:
    """Return a list as messages show it: the first ten entries, and how many more there are.

    Example
    -------
    >>> join_some(range(13), ", ")
    '0, 1, 2, 3, 4, 5, 6, 7, 8, 9, and 3 more'
    """
    texts = [str(entry) for entry in entries]
    more = [f"and {len(texts) - LISTED} more"] if len(texts) > LISTED else []
    return separator.join(texts[:LISTED] + more)


class BadEntriesError(ValueError):
    """Several rows, clips or captions that cannot be used; the message names the first ten.

    Arguments
    ---------
    what : str
        What they are, and how many, before their list.
    entries : list of str
        What is wrong with each; all of them are in the attribute of this name, which commands
        write to a file.
    way_out : str
        What to do, after the list.

    Example
    -------
    >>> str(BadEntriesError("2 bad rows", ["row 2: no file", "row 5: no file"], "Correct them"))
    '2 bad rows: row 2: no file; row 5: no file. Correct them'
    """

    def __init__(self, what: str, entries: Iterable[str], way_out: str = "") -> None:
        self.what, self.entries, self.way_out = what, list(entries), way_out
        end = f". {way_out}" if way_out else ""
        super().__init__(f"{what}: {join_some(self.entries)}{end}")

    def __reduce__(self) -> tuple:
        return BadEntriesError, (self.what, self.entries, self.way_out)
