"""Sheets by which people judge the same captions as a model, blind and in random order."""

from __future__ import annotations

import csv
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from speechbrain_clsp.annotation.judge import SCORES, dimensions

KEY_COLUMNS = ("item", "id", "source")


def write_sheet(
    path: str | os.PathLike,
    rows: Sequence[Mapping[str, Any]],
    captions: Mapping[str, Mapping[str, str]],
    seed: int = 0,
) -> Path:
    """Write a sheet to fill in, and the key that tells sources, which raters must not see.

    Arguments
    ---------
    path : str or path
        The sheet, ``.csv``: item, audio, caption, and an empty column per dimension.
    rows : sequence of dict
        Rows of the manifest, the clips.
    captions : mapping
        For each source, caption by id of the clip.
    seed : int
        Of the order.

    Returns
    -------
    Path
        The key, ``x.key.csv`` for ``x.csv``: item, id, source.

    Raises
    ------
    FileExistsError
        If either file is there: it may hold ratings.
    """
    path = Path(path)
    key_path = path.with_suffix(".key.csv")
    items = [(row, source) for row in rows for source in captions]
    random.Random(seed).shuffle(items)
    with (
        open(path, "x", encoding="utf-8", newline="") as sheet,
        open(key_path, "x", encoding="utf-8", newline="") as key,
    ):
        to_fill, told = csv.writer(sheet), csv.writer(key)
        to_fill.writerow(["item", "audio", "caption", *dimensions()])
        told.writerow(KEY_COLUMNS)
        for item, (row, source) in enumerate(items, start=1):
            caption = captions[source][row["id"]]
            to_fill.writerow([item, row["audio"], caption, *[""] * len(dimensions())])
            told.writerow([item, row["id"], source])
    return key_path


def read_sheet(
    path: str | os.PathLike, key: str | os.PathLike, rater: str
) -> Iterator[dict[str, Any]]:
    """Yield a filled sheet as records of scores; items that are left empty are left out.

    Arguments
    ---------
    path, key : str or path
        See :func:`write_sheet`.
    rater : str
        Who filled it in.

    Returns
    -------
    iterator of dict
        As those of :func:`~speechbrain_clsp.annotation.judge.judge_jobs`, with ``judge`` the word
        ``people`` and ``round`` the rater.

    Raises
    ------
    ValueError
        If a line cannot be understood; names it.
    """
    with open(key, encoding="utf-8", newline="") as file:
        told = {line["item"]: line for line in csv.DictReader(file)}
    with open(path, encoding="utf-8-sig", newline="") as file:
        for number, line in enumerate(csv.DictReader(file), start=2):
            place = f"{path}, line {number}"
            if line.get("item") not in told:
                raise ValueError(f"{place}: item {line.get('item')!r} is not in {key}")
            scores = {name: _score(line.get(name), f"{place}, {name}") for name in dimensions()}
            if any(score is None for score in scores.values()):
                if any(score is not None for score in scores.values()):
                    raise ValueError(f"{place}: fill in all of {', '.join(dimensions())}, or none")
                continue
            about = told[line["item"]]
            record = {"key": f"{rater} {line['item']} {key}", "id": about["id"], "kind": "score"}
            yield {**record, "judge": "people", "round": rater, "source": about["source"], **scores}


def _score(text: str | None, place: str) -> int | None:
    if text is None or not text.strip():
        return None
    if text.strip() not in map(str, SCORES):
        raise ValueError(f"{place}: {text!r} is not a whole number from 1 to 5")
    return int(text)
