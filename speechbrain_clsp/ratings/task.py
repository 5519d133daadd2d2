"""What raters are asked to rate, and the files that their ratings go to."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from speechbrain_clsp.ratings.scales import SLIDER, STYLE
from speechbrain_clsp.ratings.store import STORE_SUFFIX, Rating, RatingStore
from speechbrain_clsp.ratings.table import ITEM_COLUMNS, read_lines, read_table, write_table

LONGEST_NAME = 64


class RatedBeforeError(ValueError):
    """A rating of an item that the same rater rated before."""


class RatingTask:
    r"""Pairs of clip and caption that people rate, and what they said so far.

    Arguments
    ---------
    items : str or path
        CSV file with the columns clip, caption, category.
    audio_root : str or path
        Folder that ``clip`` is relative to.
    output : str or path
        The store of ratings (``.sqlite``), made or gone on with; or a table (``.csv``), which is
        written anew after each rating from the store beside it. A table that exists is read first.
    seed : int
        Of the orders.

    Raises
    ------
    ValueError
        If a column is missing or a line cannot be used (names it), or the output holds something
        else than ratings of these items. Then no file is changed.
    FileNotFoundError
        If clips are not there; names the first ones.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "items.csv").write_text("clip,caption,category\na.wav,A man.,intrinsic\n")
    >>> _ = (folder / "a.wav").write_bytes(b"")
    >>> task = RatingTask(folder / "items.csv", folder, folder / "ratings.sqlite")
    >>> task.next_item("r1")["caption"]
    'A man.'
    >>> task.rate("r1", 0, 4.5)
    >>> task.next_item("r1")
    {'finished': True, 'done': 1, 'total': 1}
    """

    def __init__(
        self,
        items: str | os.PathLike,
        audio_root: str | os.PathLike,
        output: str | os.PathLike,
        seed: int = 0,
    ) -> None:
        self.items, self.root, self.seed = _read_items(items), Path(audio_root), seed
        absent = [clip for clip, _, _ in self.items if not (self.root / clip).is_file()]
        if absent:
            raise FileNotFoundError(f"{len(absent)} clips are not in {self.root}: {absent[:3]}")
        output = Path(output)
        if output.suffix not in (".csv", STORE_SUFFIX):
            raise ValueError(f"{output}: the name must end in {STORE_SUFFIX} or .csv")
        self.table = output if output.suffix == ".csv" else None
        table = list(_read_output(output)) if self.table else []
        self.store = RatingStore(output.with_suffix(STORE_SUFFIX))
        self._lock = threading.Lock()
        known: dict[tuple, str] = {}
        stored = [(str(self.store.path), rating) for rating in self.store.ratings()]
        for where, rating in [*stored, *table]:
            item = (rating.clip, rating.caption, rating.category)
            if item not in self.items or rating.dimension != STYLE or not rating.rater:
                raise ValueError(f"{where}: not a rating of these items; name another --output")
            value = f"{rating.value:g}"  # as a table has it
            before = known.setdefault((rating.rater, item), value)
            if before != value:
                raise ValueError(
                    f"{where}: this rating was {before} before; correct the line, or move"
                    f" {self.store.path} away if the table is right"
                )
        self._save([rating for _, rating in table])

    def _save(self, ratings: Sequence[Rating]) -> int:
        with self._lock:
            added = self.store.add(ratings, SLIDER)
            if self.table:
                write_table(self.table, self.store.ratings(STYLE))
        return added

    def next_item(self, rater: str) -> dict[str, Any]:
        """Return the pair that a rater, by name, gets next, or that there is none left."""
        check_rater(rater)
        ratings = self.store.ratings()
        done = {(r.clip, r.caption, r.category) for r in ratings if r.rater == rater}
        count = {"done": len(done), "total": len(self.items)}
        order = list(enumerate(self.items))
        random.Random(f"{self.seed} {rater}").shuffle(order)
        for number, item in order:
            if item not in done:
                return {"finished": False, "item": number, "caption": item[1], **count}
        return {"finished": True, **count}

    def rate(self, rater: Any, number: Any, rating: Any) -> None:
        """Write a rating to the disk.

        Raises ValueError if the name, the item or the rating cannot be used, RatedBeforeError if
        the item was rated before, and IndexError if there is no such item.
        """
        check_rater(rater)
        if isinstance(number, bool) or not isinstance(number, int):
            raise ValueError(f"item {number!r} is not a number")
        self._check_number(number)
        if not self._save([Rating(*self.items[number], rater, STYLE, rating)]):
            raise RatedBeforeError(f"{rater} rated item {number} before")

    def summary(self) -> str:
        """Return how many ratings there are, and of how many raters, in words."""
        ratings = self.store.ratings()
        return f"{len(ratings)} ratings by {len({rating.rater for rating in ratings})} raters"

    def audio(self, number: int) -> Path:
        """Return an item's file; raises IndexError if there is no such item."""
        self._check_number(number)
        return self.root / self.items[number][0]

    def _check_number(self, number: int) -> None:
        if not 0 <= number < len(self.items):
            raise IndexError(f"there is no item {number}")


def check_rater(rater: Any) -> None:
    """Raise ValueError if somebody's name is empty, too long, or not one line of text.

    Example
    -------
    >>> check_rater("Ann")
    """
    if not isinstance(rater, str) or not rater.strip() or rater != rater.strip():
        raise ValueError("a rater needs a name")
    if len(rater) > LONGEST_NAME or not rater.isprintable():
        raise ValueError(f"a name has at most {LONGEST_NAME} printable characters")


def _read_items(path: str | os.PathLike) -> list[tuple[str, str, str]]:
    items: dict[tuple[str, str], tuple[str, str, str]] = {}
    for where, line in read_lines(path, ITEM_COLUMNS):
        clip, caption, category = item = tuple((line[name] or "").strip() for name in ITEM_COLUMNS)
        if not all(item) or not all(text.isprintable() for text in item):
            raise ValueError(f"{where}: clip, caption and category must be one line of text")
        if (clip, caption) in items:
            raise ValueError(f"{where}: this clip and caption were there before")
        items[clip, caption] = (clip, caption, category)
    if not items:
        raise ValueError(f"{path} holds no item")
    return list(items.values())


def _read_output(path: Path) -> Iterator[tuple[str, Rating]]:
    """Yield what a table holds, each rating with its place."""
    if not path.is_file() or not path.stat().st_size:
        return
    for where, rating in read_table(path, only=True):
        try:
            SLIDER.check(rating.value)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        yield where, rating
