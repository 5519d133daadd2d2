"""What raters are asked to rate, and the files that their ratings go to."""

from __future__ import annotations

import os
import random
import shutil
import sys
import threading
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

from speechbrain_clsp.ratings.scales import SLIDER, STYLE
from speechbrain_clsp.ratings.store import STORE_SUFFIX, Rating, RatingStore
from speechbrain_clsp.ratings.table import (
    COLUMNS,
    ITEM_COLUMNS,
    rating_of_line,
    read_lines,
    write_table,
)

LONGEST_NAME = 64


class RequestError(ValueError):
    """A request of the page's that is wrong, with the HTTP status to answer."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class RatingTask:
    """Pairs of clip and caption that people rate, and what they said so far.

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
    """

    def __init__(
        self,
        items: str | os.PathLike,
        audio_root: str | os.PathLike,
        output: str | os.PathLike,
        seed: int = 0,
    ) -> None:
        self.items, self.root, self.seed = _read_items(items), Path(audio_root), seed
        absent = [item["clip"] for item in self.items if not (self.root / item["clip"]).is_file()]
        if absent:
            raise FileNotFoundError(f"{len(absent)} clips are not in {self.root}: {absent[:3]}")
        self._numbers = {tuple(item.values()): n for n, item in enumerate(self.items)}
        output = Path(output)
        if output.suffix not in (".csv", STORE_SUFFIX):
            raise ValueError(f"{output}: the name must end in {STORE_SUFFIX} or .csv")
        self.table = output if output.suffix == ".csv" else None
        table = self._read_table(output) if self.table and output.is_file() else []
        self.store = RatingStore(output.with_suffix(STORE_SUFFIX))
        self._lock = threading.Lock()
        self.rated: dict[str, dict[int, str]] = {}
        stored = [(str(self.store.path), rating) for rating in self.store.ratings()]
        for where, rating in [*stored, *table]:
            done = self.rated.setdefault(rating.rater, {})
            value = f"{rating.value:g}"  # as a table has it
            before = done.setdefault(self._number(rating, where), value)
            if before != value:
                raise ValueError(
                    f"{where}: this rating was {before} before; correct the line, or move"
                    f" {self.store.path} away if the table is right"
                )
        self._save([rating for _, rating in table])

    def _number(self, rating: Rating, where: str) -> int:
        number = self._numbers.get((rating.clip, rating.caption, rating.category))
        if number is None or rating.dimension != STYLE or not rating.rater:
            raise ValueError(f"{where}: not a rating of these items; name another --output")
        return number

    def _read_table(self, path: Path) -> list[tuple[str, Rating]]:
        """Return what a table holds, each rating with its place.

        A last line that a kill cut off is left out; the table is copied to another name first.
        """
        if not path.stat().st_size:
            return []
        found, lines = [], list(read_lines(path, COLUMNS, only=True))
        for number, (where, line) in enumerate(lines, start=1):
            if number == len(lines) and not line["rating"] and path.read_bytes()[-1:] != b"\n":
                names = (path.with_name(f"{path.name}.cut-off-{n}") for n in count(1))
                aside = next(name for name in names if not name.exists())
                shutil.copyfile(path, aside)
                note = f"{where} is cut off and left out; {aside} is a copy of the file as it was"
                print(note, file=sys.stderr)
                break
            rating = rating_of_line(line, where)
            self._number(rating, where)
            try:
                SLIDER.check(rating.value)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from error
            found.append((where, rating))
        return found

    def _save(self, ratings: Sequence[Rating]) -> int:
        with self._lock:
            added = self.store.add(ratings, SLIDER)
            if self.table:
                write_table(self.table, self.store.ratings(STYLE))
        return added

    def next_item(self, rater: str) -> dict[str, Any]:
        """Return the pair that a rater gets next, or that there is none left.

        Raises
        ------
        RequestError
            If the name cannot be used.
        """
        done = self.rated.get(_checked_name(rater), {})
        count = {"done": len(done), "total": len(self.items)}
        order = list(range(len(self.items)))
        random.Random(f"{self.seed} {rater}").shuffle(order)
        for number in order:
            if number not in done:
                shown = {"item": number, "caption": self.items[number]["caption"]}
                return {"finished": False, **shown, **count}
        return {"finished": True, **count}

    def rate(self, rater: Any, number: Any, rating: Any) -> None:
        """Write a rating to the disk.

        Raises
        ------
        RequestError
            If the name, the item or the rating cannot be used, or the item was rated before.
        """
        rater = _checked_name(rater)
        if isinstance(number, bool) or not isinstance(number, int):
            raise RequestError(400, f"item {number!r} is not a number")
        if not 0 <= number < len(self.items):
            raise RequestError(404, f"there is no item {number}")
        try:
            value = SLIDER.check(rating)
        except ValueError as error:
            raise RequestError(400, f"rating {error}") from error
        item = self.items[number]
        where = (item["clip"], item["caption"], item["category"])
        added = self._save([Rating(*where, rater, STYLE, value)])
        self.rated.setdefault(rater, {})[number] = f"{value:g}"
        if not added:
            raise RequestError(409, f"{rater} rated item {number} before")

    def summary(self) -> str:
        """Return how many ratings there are, and of how many raters, in words."""
        return f"{sum(map(len, self.rated.values()))} ratings by {len(self.rated)} raters"

    def audio(self, number: int) -> Path:
        """Return an item's file."""
        return self.root / self.items[number]["clip"]


def _checked_name(rater: Any) -> str:
    if not isinstance(rater, str) or not rater.strip() or rater != rater.strip():
        raise RequestError(400, "a rater needs a name")
    if len(rater) > LONGEST_NAME or not rater.isprintable():
        raise RequestError(400, f"a name has at most {LONGEST_NAME} printable characters")
    return rater


def _read_items(path: str | os.PathLike) -> list[dict[str, str]]:
    items: dict[tuple[str, str], dict[str, str]] = {}
    for where, line in read_lines(path, ITEM_COLUMNS):
        item = {name: (line[name] or "").strip() for name in ITEM_COLUMNS}
        if not all(item.values()) or not all(text.isprintable() for text in item.values()):
            raise ValueError(f"{where}: clip, caption and category must be one line of text")
        if (item["clip"], item["caption"]) in items:
            raise ValueError(f"{where}: this clip and caption were there before")
        items[item["clip"], item["caption"]] = item
    if not items:
        raise ValueError(f"{path} holds no item")
    return list(items.values())
