"""Validation of a user's recordings and captions, and their manifest."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from speechbrain_clsp.dataio.audio import (
    MINIMUM_SECONDS,
    SAMPLE_RATE,
    TOLERANCE_SECONDS,
    seconds_of,
)
from speechbrain_clsp.dataio.manifest import write_manifest
from speechbrain_clsp.prepare.entries import (
    AUDIO_COLUMNS,
    CHANNEL,
    NUMBER_COLUMNS,
    TAG_COLUMNS,
    TEXT_COLUMNS,
    Entry,
    InvalidColumnError,
    read_entries,
)

SHOWN_ERRORS = 20


def prepare_own(
    source: str | os.PathLike,
    output: str | os.PathLike,
    skip_bad: bool = False,
    n_jobs: int = 4,
) -> tuple[int, list[str]]:
    r"""Validate a user's data and write the manifest.

    Arguments
    ---------
    source : str or path
        A ``.csv``, ``.tsv`` or ``.jsonl`` file (also ``.gz``) or a ``.parquet`` file with at least
        the columns ``wav`` and ``caption``; JSON lines of lhotse cuts; or a folder of audio files
        with captions, one per line, in ``<name>.txt`` beside each, or with ``metadata.csv`` or
        ``metadata.jsonl``.
    output : str or path
        The manifest.
    skip_bad : bool
        Leave bad rows out instead of raising.
    n_jobs : int
        Threads that open audio files.

    Returns
    -------
    (int, list of str)
        Number of clips, and a message for every row that was left out.

    Raises
    ------
    ValueError
        If rows are bad; the message names row and column of up to 20, and nothing is written.

    Example
    -------
    >>> import numpy, soundfile
    >>> folder = getfixture("tmp_path")
    >>> soundfile.write(folder / "a.wav", numpy.zeros(16000), 16000)
    >>> _ = (folder / "data.csv").write_text("wav,caption\na.wav,A man whispers.\n")
    >>> prepare_own(folder / "data.csv", folder / "train.arrow")
    (1, [])
    """
    source, output = Path(source), Path(output)
    if output.suffix != ".arrow":
        raise ValueError(f"{output}: the manifest's name must end in .arrow")
    errors: list[str] = []
    rows: list[dict[str, Any]] = []
    entries = merged(read_entries(source), errors)
    with ThreadPoolExecutor(n_jobs) as pool:
        checked = pool.map(lambda entry: _attempt(entry, output), entries)
        for result in tqdm(checked, "checking", len(entries), unit="clip", disable=None):
            (errors if isinstance(result, str) else rows).append(result)
    rows = _without_repeated_ids(rows, errors)
    if errors and not skip_bad:
        raise ValueError(_summary(errors))
    if not rows:
        raise ValueError(f"{source} has no good row. {_summary(errors) if errors else ''}".strip())
    return write_manifest(output, rows), errors


def merged(entries: Iterable[Entry], errors: list[str]) -> list[Entry]:
    """Merge the rows of each clip, one per caption; errors of unreadable rows go to ``errors``."""
    found: dict[tuple, Entry] = {}
    for entry in entries:
        if entry.error:
            errors.append(entry.error)
            continue
        try:
            entry.captions = _captions(entry)
            key = tuple(str(entry.values.get(k) or "") for k in ("id", "start", "duration"))
            key = (*key, _audio_of(entry))
        except ValueError as error:
            errors.append(str(error))
            continue
        if key not in found:
            found[key] = entry
            continue
        for kind, texts in entry.captions.items():
            found[key].captions[kind] += [t for t in texts if t not in found[key].captions[kind]]
    return list(found.values())


def _captions(entry: Entry) -> dict[str, list[str]]:
    """Return a row's captions; ``caption`` alone serves as both kinds."""
    found = {}
    for kind in ("global_captions", "fine_captions"):
        texts = _texts(entry, kind) + _texts(entry, kind[:-1]) or _texts(entry, "caption")
        found[kind] = list(dict.fromkeys(texts))
    if not any(found.values()):
        column = next((name for name in entry.values if "caption" in name), "caption")
        raise InvalidColumnError(entry.where, column, "is empty: a clip needs a caption")
    return found


def _texts(entry: Entry, column: str) -> list[str]:
    value = entry.values.get(column)
    if value is None:
        return []
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
        raise InvalidColumnError(
            entry.where, column, f"is {value!r}, not a text or a list of texts"
        )
    return [v.strip() for v in values if v.strip()]


def _audio_of(entry: Entry) -> str:
    column = next((name for name in AUDIO_COLUMNS if entry.values.get(name)), None)
    if column is None:
        raise InvalidColumnError(entry.where, "wav", "is empty: name an audio file")
    return os.path.join(entry.folder, os.path.expanduser(str(entry.values[column])))


def _attempt(entry: Entry, output: Path) -> dict[str, Any] | str:
    try:
        return _row(entry, output)
    except (ValueError, OSError) as error:
        return str(error)


def _row(entry: Entry, output: Path) -> dict[str, Any]:
    """Return a checked row of the manifest."""
    values, path = entry.values, os.path.abspath(_audio_of(entry))
    start, duration = (_number(entry, name) for name in NUMBER_COLUMNS)
    is_member = values.get("offset") is not None  # of a shard, in a cut
    if not os.path.isfile(path):
        raise InvalidColumnError(entry.where, "wav", f"no file {path}")
    row = {name: str(values[name]).strip() for name in TEXT_COLUMNS if _is_given(values, name)}
    if not is_member:
        length = seconds_of(path)
        if length == 0:
            raise InvalidColumnError(entry.where, "wav", f"{path} cannot be read as audio")
        duration = _checked_part(entry, start, duration, length)
    row |= {"audio": _shortest_path(path, output), "duration": duration, **entry.captions}
    if start is not None or _is_given(values, "duration"):
        row["start"] = None if values.get("cut") and start is None else start or 0.0
    row.setdefault("id", _name_of(path, start))
    for name in TAG_COLUMNS:
        row[name] = _tags(entry, name)
    if _is_given(values, CHANNEL):
        row[CHANNEL] = int(_number(entry, CHANNEL))
    row |= {k: values[k] for k in ("offset", "nbytes", "sample_rate") if values.get(k) is not None}
    labels = {k.partition(".")[2]: v for k, v in values.items() if k.startswith("labels.") and v}
    labels |= values.get("labels") or {}
    return row | ({"labels": labels} if labels else {})


def _is_given(values: dict[str, Any], column: str) -> bool:
    return values.get(column) not in (None, "")


def _checked_part(
    entry: Entry, start: float | None, duration: float | None, length: float
) -> float:
    """Return the part's duration [s]; raise if it is too short or ends after the file."""
    start = start or 0.0
    if start >= length:
        raise InvalidColumnError(
            entry.where, "start", f"is {start} s, the file lasts {length:.2f} s"
        )
    duration = length - start if duration is None else duration
    if start + duration > length + TOLERANCE_SECONDS:
        end = start + duration
        raise InvalidColumnError(
            entry.where, "duration", f"ends at {end:.2f} s, the file at {length:.2f} s"
        )
    if round(duration * SAMPLE_RATE) < MINIMUM_SECONDS * SAMPLE_RATE:
        message = f"is {duration:.3f} s, at least {MINIMUM_SECONDS} s are needed"
        raise InvalidColumnError(entry.where, "duration", message)
    return duration


def _number(entry: Entry, column: str) -> float | None:
    value = entry.values.get(column)
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number < float("inf"):
        raise InvalidColumnError(entry.where, column, f"is {value!r}, not a number of at least 0")
    return number


def _tags(entry: Entry, column: str) -> list[str]:
    value = entry.values.get(column)
    if isinstance(value, str):  # of a table: "deep; raspy"
        return [tag.strip() for tag in value.split(";") if tag.strip()]
    return _texts(entry, column)


def _name_of(path: str, start: float | None) -> str:
    stem = Path(path).stem
    return stem if start is None else f"{stem}-{start:g}"


def _shortest_path(path: str, output: Path) -> str:
    """Return a path below the manifest's folder relative to it, so that the folder can be moved."""
    base = os.path.join(os.path.abspath(output.parent), "")
    return path.removeprefix(base)


def _without_repeated_ids(rows: list[dict], errors: list[str]) -> list[dict]:
    """Drop clips with the id of an earlier one; ids from equal file names get the folder's name."""
    counts = Counter(row["id"] for row in rows)
    seen: dict[str, dict] = {}
    for row in rows:
        start = row.get("start")
        if counts[row["id"]] > 1 and row["id"] == _name_of(row["audio"], start):
            row["id"] = os.path.splitext(row["audio"])[0].strip("/").replace("/", "-")
            row["id"] += "" if start is None else f"-{start:g}"
        if row["id"] in seen:
            other = seen[row["id"]]["audio"]
            errors.append(f"{row['audio']}, column 'id': {row['id']!r} is also that of {other}")
        else:
            seen[row["id"]] = row
    return list(seen.values())


def _summary(errors: list[str]) -> str:
    shown = "; ".join(errors[:SHOWN_ERRORS])
    more = f"; and {len(errors) - SHOWN_ERRORS} more" if len(errors) > SHOWN_ERRORS else ""
    return f"{len(errors)} bad rows: {shown}{more}. Correct them, or leave them out by --skip-bad"
