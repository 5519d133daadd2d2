"""Training, validation and test clips of a user's data: by a column, by speaker, or by clip."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from speechbrain_clsp.dataio.labels import value_of
from speechbrain_clsp.utils.checks import join_some

SPLITS = ("train", "valid", "test")
# What people call them, by the first word of a name such as "train-clean-100" or "test_other".
NAMES = {
    "train": ("train", "training", "tr"),
    "valid": ("valid", "validation", "val", "dev", "development"),
    "test": ("test", "testing", "eval", "evaluation"),
}
FRACTION = 0.15  # of the clips, for each part that is taken from the training clips
MINIMUM_CLIPS = 10  # with fewer there is nothing to learn from, nor to measure on

Row = Mapping[str, Any]
Group = tuple[str, ...]  # what clips that stay together have in common


@dataclass
class Parts:
    """Clips by split.

    Arguments
    ---------
    rows : dict of list of dict
        Rows of a manifest, for each of :data:`SPLITS`.
    notes : list of str
        How they came there, in sentences for the user.

    Example
    -------
    >>> parts = Parts({"train": [{"id": "a"}], "valid": [], "test": [{"id": "b"}]})
    >>> [row["id"] for row in parts.rows["test"]]
    ['b']
    """

    rows: dict[str, list[Row]]
    notes: list[str] = field(default_factory=list)


def split_clips(rows: Sequence[Row], columns: Sequence[str] = (), seed: int = 0) -> Parts:
    """Split clips as their column ``split`` says, or by speaker; always the same for a seed.

    A part that the column lacks is taken from the training clips. Without speakers the clips of one
    recording stay together; where most clips have a speaker, those without stay in training. Where
    a split by speaker is impossible, since there are too few or each value of an attribute has one
    speaker only, clips are split one by one.

    Arguments
    ---------
    rows : sequence of dict
        Rows of a manifest.
    columns : sequence of str
        Columns whose every value is to occur in training.
    seed : int
        Of the choice between speakers, or clips, that serve alike.

    Returns
    -------
    Parts
        The rows of each split, and how they came there.

    Raises
    ------
    ValueError
        If there are fewer than 10 clips, a value of ``split`` is not known, or no clip is for
        training.

    Example
    -------
    >>> rows = [{"id": f"{i}", "speaker": f"s{i // 4}", "split": None} for i in range(16)]
    >>> parts = split_clips(rows)
    >>> {split: len(clips) for split, clips in parts.rows.items()}
    {'train': 8, 'valid': 4, 'test': 4}
    """
    if len(rows) < MINIMUM_CLIPS:
        raise ValueError(f"{len(rows)} clips are too few to train on: at least {MINIMUM_CLIPS}")
    parts = _by_column(rows)
    wanted = max(1, round(FRACTION * sum(map(len, parts.rows.values()))))
    missing = [split for split in ("test", "valid") if not parts.rows[split]]
    if not parts.rows["train"]:
        raise ValueError("No clip has the split 'train': there is nothing to train on")
    if missing:
        _take_parts(parts, missing, wanted, columns, seed)
    if len(parts.rows["train"]) < 2:
        raise ValueError("One clip is left for training: that is too few")
    return parts


def split_name(value: str) -> str | None:
    """Return which of :data:`SPLITS` a value of the column ``split`` means, None if none.

    Example
    -------
    >>> split_name("Dev"), split_name("test-other"), split_name("fold 3")
    ('valid', 'test', None)
    """
    word = re.match(r"[^\W\d_]*", value.strip().casefold())
    return next((name for name, words in NAMES.items() if word and word[0] in words), None)


def _by_column(rows: Sequence[Row]) -> Parts:
    """Return the parts that the column ``split`` names; without it all clips are for training."""
    values = Counter(row["split"] for row in rows)
    if set(values) == {None}:
        return Parts({"train": list(rows), "valid": [], "test": []})
    unknown = [value for value in values if value is not None and split_name(value) is None]
    if unknown:
        named = join_some((f"{value!r} ({values[value]} clips)" for value in unknown), ", ")
        raise ValueError(
            f"The column split has {named}: it must be train, valid or test. Rename them, or leave"
            " the column out by --ignore-columns split, and clips are split by speaker"
        )
    parts = Parts({split: [] for split in SPLITS}, ["Split as the column split says."])
    for row in rows:
        if row["split"] is not None:
            parts.rows[split_name(row["split"]) or ""].append(row)
    if None in values:
        parts.notes.append(f"{values[None]} clips without a split are left out.")
    return parts


def _take_parts(
    parts: Parts, missing: Sequence[str], wanted: int, columns: Sequence[str], seed: int
) -> None:
    """Move clips from training to the missing parts."""
    train = parts.rows["train"]
    what = " and ".join(reversed(missing))
    begins = f"{what[0].upper()}{what[1:]} clips were taken from the training clips"
    named = [row for row in train if row.get("speaker")]
    nameless = [row for row in train if not row.get("speaker")]
    if len(named) >= len(nameless):
        taken = _take(named, [(row["speaker"],) for row in named], missing, wanted, columns, seed)
        if taken is not None:
            parts.notes.append(f"{begins} by speaker: no speaker is in two of the parts.")
            if nameless:
                parts.notes.append(f"{len(nameless)} clips without a speaker stay in training.")
            parts.rows |= {**taken, "train": [*taken["train"], *nameless]}
            return
        why = _why_not_by_speaker(named, columns, 1 + len(missing))
        warning = f"{why} Speakers are in several parts: results hold for speakers that were heard"
        warning += " in training, not for new ones."
    else:
        few = "Few clips have a speaker" if named else "There is no column speaker"
        warning = f"{few}: if one speaker has several clips, results may be"
        warning += " better than they are for new speakers."
    recordings = [(row["audio"],) if _is_part(row) else (row["id"], "") for row in train]
    taken = _take(train, recordings, missing, wanted, columns, seed)
    way = "by recording" if any(map(_is_part, train)) else "clip by clip"
    if taken is None:
        way = "clip by clip"
        taken = _take(train, [(row["id"],) for row in train], missing, wanted, (), seed)
    if taken is None:
        raise ValueError(f"{len(train)} training clips are too few to take {what} clips from them")
    parts.notes += [f"{begins} {way}.", warning]
    parts.rows |= taken


def _is_part(row: Row) -> bool:
    """Return whether a clip is a part of a longer recording."""
    return row.get("start") is not None


def _why_not_by_speaker(rows: Sequence[Row], columns: Sequence[str], n_parts: int) -> str:
    speakers = {row["speaker"] for row in rows}
    if len(speakers) < n_parts:
        return f"{len(speakers)} speakers are too few for {n_parts} parts."
    for column in columns:
        of_value: dict[str, set[str]] = {}
        for row in rows:
            if (value := value_of(row, column)) is not None:
                of_value.setdefault(value, set()).add(row["speaker"])
        if of_value and all(len(own) == 1 for own in of_value.values()):
            return f"Each value of {column} has one speaker, so that clips were not split by them."
    return "A value of an attribute would be missing from training if clips were split by speaker."


def _take(
    rows: Sequence[Row],
    groups: Sequence[Group],
    missing: Sequence[str],
    wanted: int,
    columns: Sequence[str],
    seed: int,
) -> dict[str, list[Row]] | None:
    """Return the parts, groups left whole, or None if one of them would be empty."""
    found: dict[str, list[Row]] = {}
    left = list(zip(groups, rows))
    for split in missing:
        chosen = _choose(left, wanted, columns, f"{seed} {split}")
        if not chosen:
            return None
        found[split] = [row for group, row in left if group in chosen]
        left = [(group, row) for group, row in left if group not in chosen]
    return {**found, "train": [row for _, row in left]}


def _choose(
    clips: Sequence[tuple[Group, Row]], wanted: int, columns: Sequence[str], seed: str
) -> set[Group]:
    """Return groups of together about ``wanted`` clips, without which no value is missing.

    Of each value at least half as many clips stay as a group takes.
    First those are chosen that have most of the values not chosen yet, then others by chance.
    """
    values: dict[Group, Counter] = {}
    sizes: Counter = Counter()
    for group, row in clips:
        sizes[group] += 1
        known = ((column, value_of(row, column)) for column in columns)
        values.setdefault(group, Counter()).update(pair for pair in known if pair[1] is not None)
    left: Counter = sum(values.values(), Counter())
    waiting = sorted(values, key=lambda group: blake2b(f"{seed} {group}".encode()).digest())
    chosen: set[Group] = set()
    covered: set[tuple] = set()
    count = 0

    def is_possible(group: Group) -> bool:
        most = 2 * wanted if chosen else max(2 * wanted, len(clips) // 2)
        return (
            group not in chosen
            and len(chosen) + 1 < len(waiting)
            and count + sizes[group] <= most
            and all(left[pair] - number >= number / 2 for pair, number in values[group].items())
        )

    def choose(group: Group) -> int:
        chosen.add(group)
        covered.update(values[group])
        left.subtract(values[group])
        return sizes[group]

    while count < 2 * wanted:
        gains = {g: len(set(values[g]) - covered) for g in _some(waiting) if is_possible(g)}
        best = max(gains, key=lambda group: (gains[group], -sizes[group]), default=None)
        if best is None or not gains[best]:
            break
        count += choose(best)
    for group in waiting:
        if count >= wanted:
            break
        if is_possible(group):
            count += choose(group)
    return chosen


def _some(groups: Iterable[Group], most: int = 20000) -> list[Group]:
    """Return the first groups: among so many, one with a value that is not rare will be."""
    return [group for group, _ in zip(groups, range(most))]
