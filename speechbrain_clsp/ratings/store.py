"""The store of people's ratings: an SQLite file that loses nothing when a process is killed."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path

from speechbrain_clsp.ratings.scales import Scale

STORE_SUFFIX = ".sqlite"
MARK = b"CLSR"  # the application id of the file, by which a store is recognized
SCHEMA = """CREATE TABLE IF NOT EXISTS ratings (
    clip TEXT, caption TEXT, category TEXT, rater TEXT, dimension TEXT, value REAL, low REAL,
    high REAL, PRIMARY KEY (rater, dimension, clip, caption, category))"""


@dataclass(frozen=True)
class Rating:
    """One rater's rating of one caption of one clip, in one dimension.

    Arguments
    ---------
    clip, caption, category : str
        The item: file or id of a clip, the text, and the group that it belongs to, such as
        ``intrinsic`` or the system that wrote it.
    rater, dimension : str
        Who rated, and what, such as ``style`` or ``coverage``.
    value : float
        On the scale that is stored with it.

    Example
    -------
    >>> Rating("a.wav", "A man.", "intrinsic", "r1", "style", 4.5).value
    4.5
    """

    clip: str
    caption: str
    category: str
    rater: str
    dimension: str
    value: float


class RatingStore:
    """An SQLite file (in WAL mode) of ratings; each is on the disk before ``add`` returns.

    Several threads and processes may use the same file. It is made if it does not exist.

    Arguments
    ---------
    path : str or path
        The file.

    Raises
    ------
    ValueError
        If the file exists and is not a store of ratings (then it is not written to), or cannot be
        made or read.

    Example
    -------
    >>> rating = Rating("a.wav", "A man.", "intrinsic", "Ann", "style", 4.5)
    >>> with RatingStore(getfixture("tmp_path") / "ratings.sqlite") as store:
    ...     store.add([rating], Scale(0, 5)), store.ratings() == [rating]
    (1, True)
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        _recognize(self.path)
        try:
            self._base = sqlite3.connect(self.path, check_same_thread=False, timeout=30.0)
            self._base.execute(f"PRAGMA application_id = {int.from_bytes(MARK, 'big')}")
            self._base.execute(SCHEMA)
            self._base.execute("PRAGMA journal_mode = WAL")
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{path} cannot be used as a store of ratings: {error}") from error

    def add(self, ratings: Iterable[Rating], scale: Scale, replace: bool = False) -> int:
        """Add ratings on one scale, all or none; return how many are new or changed.

        An earlier rating by the same rater of the same item and dimension stays, unless ``replace``
        is true. Raises ValueError if a value is not on the scale.
        """
        rows = [
            (*astuple(rating)[:-1], scale.check(rating.value), scale.low, scale.high)
            for rating in ratings
        ]
        conflict = "DO NOTHING"
        if replace:
            conflict = (
                "(rater, dimension, clip, caption, category) DO UPDATE SET value = excluded.value,"
                " low = excluded.low, high = excluded.high WHERE value != excluded.value"
            )
        with self._lock, self._base:
            before = self._base.total_changes
            query = f"INSERT INTO ratings VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT {conflict}"
            self._base.executemany(query, rows)
            return self._base.total_changes - before

    def ratings(self, dimension: str | None = None) -> list[Rating]:
        """Return the ratings in the order in which they came, of one dimension or of all."""
        query = "SELECT clip, caption, category, rater, dimension, value FROM ratings"
        query += " WHERE ?1 IS NULL OR dimension = ?1 ORDER BY rowid"
        with self._lock:
            return [Rating(*row) for row in self._base.execute(query, (dimension,))]

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def __enter__(self) -> RatingStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _recognize(path: Path) -> None:
    """Raise ValueError if there is a file at a path that is not a store of ratings."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        head = file.read(72)
    if head and not (head.startswith(b"SQLite format 3\0") and head[68:] == MARK):
        raise ValueError(f"{path} is not a store of ratings; it is left as it is")
