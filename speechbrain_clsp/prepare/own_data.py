"""A user's recordings and captions: reading, validation, and their manifest.

They come as tables, JSON lines, lhotse cuts or folders.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from speechbrain_clsp.dataio.audio import (
    MINIMUM_SECONDS,
    SAMPLE_RATE,
    TOLERANCE_SECONDS,
    AudioError,
    check_audio,
    read_header,
)
from speechbrain_clsp.dataio.manifest import check_manifest_path, write_manifest
from speechbrain_clsp.dataio.shards import ClipReader
from speechbrain_clsp.prepare.entries import (
    AUDIO_COLUMNS,
    CAPTION_COLUMNS,
    NUMBER_COLUMNS,
    TAG_COLUMNS,
    TEXT_COLUMNS,
    Entry,
    column_name,
    read_entries,
)
from speechbrain_clsp.utils.checks import BadEntriesError
from speechbrain_clsp.utils.reading import printable


def prepare_own(
    source: str | os.PathLike,
    output: str | os.PathLike,
    skip_bad: bool = False,
    n_jobs: int = 4,
    ignore_columns: Collection[str] = (),
) -> tuple[int, list[str]]:
    r"""Validate a user's data and write the manifest.

    Arguments
    ---------
    source : str or path
        A ``.csv``, ``.tsv``, ``.jsonl`` or ``.json`` file (also ``.gz``) or a ``.parquet`` file
        with at least the columns ``wav`` and ``caption``; JSON lines of lhotse cuts; or a folder of
        audio files with captions, one per line, in ``<name>.txt`` beside each, or with
        ``metadata.csv``, ``.jsonl`` or ``.parquet``, in it or in a folder per split.
    output : str or path
        The manifest.
    skip_bad : bool
        Leave bad rows out instead of raising.
    n_jobs : int
        Threads that decode audio files.
    ignore_columns : collection of str
        Columns to leave out.

    Returns
    -------
    (int, list of str)
        Number of clips, and a message for every row that was left out.

    Raises
    ------
    ValueError
        If rows are bad, or contradict others of the same clip; the message names row and column of
        up to 10 (``entries`` of the error are all), and nothing is written.
    FileExistsError
        If there is another file than a manifest at ``output``.

    Example
    -------
    >>> import numpy, soundfile
    >>> folder = getfixture("tmp_path")
    >>> soundfile.write(folder / "a.wav", numpy.sin(numpy.arange(16000)), 16000)
    >>> _ = (folder / "data.csv").write_text("wav,caption\na.wav,A man whispers.\n")
    >>> prepare_own(folder / "data.csv", folder / "train.arrow")
    (1, [])
    """
    source, output = Path(source), Path(output)
    if output.suffix != ".arrow":
        raise ValueError(f"{output}: the manifest's name must end in .arrow")
    check_manifest_path(output)
    errors: list[str] = []
    found: list[tuple[Entry, dict[str, Any]]] = []
    ignored = {column_name(name) for name in ignore_columns}
    entries = _merged(read_entries(source, ignored), errors)
    with ThreadPoolExecutor(n_jobs) as pool:
        checked = pool.map(lambda entry: _attempt(entry, output), entries)
        for result in tqdm(checked, "checking", len(entries), unit="clip", disable=None):
            if isinstance(result, str):
                errors.append(result)
            else:
                found.append(result)
    rows = _without_repeated_ids(found, errors)
    errors = [printable(error) for error in errors]
    if errors and (not skip_bad or not rows):
        none = "" if rows else f"{source} has no good row. "
        way_out = "Correct them, or leave them out by --skip-bad" if rows else "Correct them"
        raise BadEntriesError(f"{none}{len(errors)} bad rows", errors, way_out)
    if not rows:
        raise ValueError(f"{source} has no good row")
    return write_manifest(output, rows), errors


def _merged(entries: Iterable[Entry | str], errors: list[str]) -> list[Entry]:
    """Merge the rows of each clip, one per caption; errors of rows go to ``errors``."""
    found: dict[tuple, Entry] = {}
    for entry in entries:
        if isinstance(entry, str):
            errors.append(entry)
            continue
        try:
            entry.captions = _captions(entry)
            place = (entry.number("start"), entry.number("duration"), entry.channel())
            first = found.setdefault((entry.text("id"), *place, entry.audio()), entry)
            if first is not entry:
                _add_row(first, entry)
        except ValueError as error:
            errors.append(str(error))
    return list(found.values())


def _captions(entry: Entry) -> dict[str, list[str]]:
    """Return a row's captions; ``caption`` alone serves as both kinds."""
    found = {}
    kinds = ("global_captions", "fine_captions")
    own = {kind: entry.texts(kind) + entry.texts(kind[:-1]) for kind in kinds}
    texts = entry.texts("caption")
    if texts and all(own.values()):
        raise entry.invalid(
            "caption",
            "stands beside global and fine captions, of which it is neither: rename it"
            " global_caption or fine_caption, or leave it out",
        )
    found = {kind: list(dict.fromkeys(own[kind] or texts)) for kind in kinds}
    if not any(found.values()):
        column = next((name for name in entry.values if "caption" in name), "caption")
        raise entry.invalid(column, "is empty: a clip needs a caption")
    return found


def _add_row(first: Entry, further: Entry) -> None:
    """Add what a further row says of a clip; raise, and add nothing, if the two contradict."""
    added: dict[str, Any] = {}
    for column, value in further.values.items():
        if column in TAG_COLUMNS:
            tags = [tag for row in (first, further) for tag in row.texts(column, separator=";")]
            added[column] = list(dict.fromkeys(tags))
        elif column not in (*AUDIO_COLUMNS, *CAPTION_COLUMNS, *NUMBER_COLUMNS):
            before = first.values.get(column, value)
            if str(before).strip() != str(value).strip():
                place = first.places.get(column, first.where)
                raise further.invalid(
                    column, f"is {value!r}, but {before!r} in {place}, of the same clip"
                )
            if column not in first.values:
                added[column] = value
                first.places[column] = further.where
    first.values |= added
    for kind, texts in further.captions.items():
        first.captions[kind] = list(dict.fromkeys(first.captions[kind] + texts))


def _attempt(entry: Entry, output: Path) -> tuple[Entry, dict[str, Any]] | str:
    try:
        return entry, _row(entry, output)
    except (ValueError, OSError) as error:
        return str(error)


def _row(entry: Entry, output: Path) -> dict[str, Any]:
    """Return a checked row of the manifest."""
    path = os.path.abspath(entry.audio())
    if not os.path.isfile(path):
        raise entry.invalid("wav", f"no file {path}")
    row: dict[str, Any] = {n: entry.text(n) for n in TEXT_COLUMNS if n in entry.values}
    # Relative below the manifest's folder, so that the folder can be moved.
    row["audio"] = path.removeprefix(os.path.join(os.path.abspath(output.parent), ""))
    row |= {**entry.captions, "channel": entry.channel()}
    for name in ("offset", "nbytes", "sample_rate"):  # of cuts, which are checked
        row[name] = entry.values.get(name)
    row["start"], row["duration"] = _checked_part(entry, path, row)
    row.setdefault("id", _name_of(path, row["start"], row["channel"]))
    for name in TAG_COLUMNS:
        row[name] = entry.texts(name, separator=";")  # of a table: "deep; raspy"
    return row | {"labels": entry.labels() or None}


def _checked_part(entry: Entry, path: str, row: dict[str, Any]) -> tuple[float | None, float]:
    """Decode a clip; return its start [s], None if it is all of its file, and its duration [s]."""
    start, duration = entry.number("start"), entry.number("duration")
    try:
        source = ClipReader(1).source_of({**row, "audio": path})
        length = read_header(source, path).seconds
        first = start or 0.0
        if first >= length:
            raise entry.invalid("start", f"is {first} s, the file lasts {length:.2f} s")
        wanted = length - first if duration is None else duration
        if first + wanted > length + TOLERANCE_SECONDS:
            end = first + wanted
            raise entry.invalid("duration", f"ends at {end:.2f} s, the file at {length:.2f} s")
        if round(wanted * SAMPLE_RATE) < MINIMUM_SECONDS * SAMPLE_RATE:
            message = f"is {wanted:.3f} s, at least {MINIMUM_SECONDS} s are needed"
            raise entry.invalid("duration", message)
        # A cut of a whole recording has a duration, but no part is to be read of it.
        is_whole = start is None and (duration is None or _is_length(entry, duration, length))
        found = check_audio(source, path, first, None if is_whole else wanted, row["channel"])
    except AudioError as error:
        column = "channel" if "channels, not number" in str(error) else "wav"
        raise entry.invalid(column, str(error)) from error
    if is_whole:
        return None, found.seconds if duration is None else duration
    return first, wanted


def _is_length(entry: Entry, duration: float, length: float) -> bool:
    return "cut" in entry.values and abs(duration - length) <= TOLERANCE_SECONDS


def _name_of(path: str, start: float | None, channel: int | None) -> str:
    name = Path(path).stem
    name += "" if start is None else f"-{start:.10g}"
    return name if channel is None else f"{name}-channel{channel}"


def _without_repeated_ids(
    found: list[tuple[Entry, dict[str, Any]]], errors: list[str]
) -> list[dict[str, Any]]:
    """Drop clips with the id of an earlier one; ids from equal file names get the folder's name."""
    counts = Counter(row["id"] for _, row in found)
    seen: dict[str, tuple[Entry, dict[str, Any]]] = {}
    for entry, row in found:
        place = (row["start"], row["channel"])
        if counts[row["id"]] > 1 and row["id"] == _name_of(row["audio"], *place):
            stem = os.path.splitext(row["audio"])[0].strip("/").replace("/", "-")
            row["id"] = _name_of(f"{stem}.wav", *place)
        if row["id"] in seen:
            other, others = seen[row["id"]]
            errors.append(
                f"{entry.where}, column 'id': {row['id']!r} is also that of {others['audio']} in"
                f" {other.where}"
            )
        else:
            seen[row["id"]] = entry, row
    return [row for _, row in seen.values()]
