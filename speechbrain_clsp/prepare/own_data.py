"""A user's recordings and captions: reading, validation, and their manifest.

They come as tables, JSON lines, lhotse cuts, folders, shards of WebDataset or data sets.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
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
from speechbrain_clsp.dataio.shards import ClipReader, ShardWriter
from speechbrain_clsp.prepare.columns import (
    AUDIO_COLUMNS,
    CAPTION_COLUMNS,
    NUMBER_COLUMNS,
    TAG_COLUMNS,
    TEXT_COLUMNS,
)
from speechbrain_clsp.prepare.entries import read_entries
from speechbrain_clsp.prepare.entry import Entry, ReadOptions
from speechbrain_clsp.utils.checks import BadEntriesError
from speechbrain_clsp.utils.reading import printable


def prepare_own(
    source: str | os.PathLike,
    output: str | os.PathLike,
    skip_bad: bool = False,
    n_jobs: int = 4,
    options: ReadOptions | None = None,
) -> tuple[int, list[str]]:
    r"""Validate a user's data and write the manifest.

    Arguments
    ---------
    source : str or path
        A ``.csv``, ``.tsv``, ``.jsonl`` or ``.json`` file (also ``.gz``) or a ``.parquet`` file
        with at least columns for audio and captions; JSON lines of lhotse cuts; ``.tar`` files of
        WebDataset; a folder of audio files with captions, one per line, in ``<name>.txt`` beside
        each, or with ``metadata.csv``, ``.jsonl`` or ``.parquet``, in it or in a folder per split;
        a data folder of Kaldi; a folder of the library ``datasets``, or the name of a data set of
        the Hub. Braces and wildcards stand for several files.
    output : str or path
        The manifest. Audio that is in no file, such as the bytes in a table, is stored beside it,
        in tar files in the folder ``<name>-audio``.
    skip_bad : bool
        Leave bad rows out instead of raising.
    n_jobs : int
        Threads that decode audio files.
    options : ReadOptions, optional
        What is set for reading, such as names of columns.

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
    options = options or ReadOptions()
    errors: list[str] = []
    found: list[tuple[Entry, dict[str, Any]]] = []
    with ShardWriter(output.with_name(f"{output.stem}-audio")) as shards:
        options = replace(options, store=shards.add)
        entries = _merged(read_entries(source, options), errors)
        shards.flush()
        with ThreadPoolExecutor(n_jobs) as pool:
            checked = pool.map(_attempt, entries)
            for result in tqdm(checked, "checking", len(entries), unit="clip", disable=None):
                if isinstance(result, str):
                    errors.append(result)
                else:
                    found.append(result)
        rows = _with_ids(found, errors)
        _check_errors(source, rows, errors, skip_bad)
        names = shards.commit()
    # Relative below the manifest's folder, so that the folder can be moved.
    folder = os.path.join(os.path.abspath(output.parent), "")
    for row in rows:
        row["audio"] = names.get(row["audio"], row["audio"]).removeprefix(folder)
    return write_manifest(output, rows), [printable(error) for error in errors]


def _check_errors(
    source: Path, rows: list[dict[str, Any]], errors: list[str], skip_bad: bool
) -> None:
    if errors and (not skip_bad or not rows):
        none = "" if rows else f"{source} has no good row. "
        way_out = "Correct them, or leave them out by --skip-bad" if rows else "Correct them"
        lines = [printable(error) for error in errors]
        raise BadEntriesError(f"{none}{len(errors)} bad rows", lines, way_out)
    if not rows:
        raise ValueError(f"{source} has no good row")


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
            file = (entry.audio(), entry.values.get("offset"))
            first = found.setdefault((entry.text("id"), *place, *file), entry)
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


def _attempt(entry: Entry) -> tuple[Entry, dict[str, Any]] | str:
    try:
        return entry, _row(entry)
    except (ValueError, OSError) as error:
        return str(error)


def _row(entry: Entry) -> dict[str, Any]:
    """Return a checked row of the manifest."""
    path = os.path.abspath(entry.audio())
    if not os.path.isfile(path):
        raise entry.invalid("wav", f"no file {path}")
    row: dict[str, Any] = {n: entry.text(n) for n in TEXT_COLUMNS if n in entry.values}
    row["audio"] = path
    row |= {**entry.captions, "channel": entry.channel()}
    for name in ("offset", "nbytes", "sample_rate"):  # of cuts and shards, which are checked
        row[name] = entry.values.get(name)
    row["start"], row["duration"] = _checked_part(entry, path, row)
    for name in TAG_COLUMNS:
        row[name] = entry.texts(name, separator=";")  # of a table: "deep; raspy"
    return row | {"labels": entry.labels() or None}


def _checked_part(entry: Entry, path: str, row: dict[str, Any]) -> tuple[float | None, float]:
    """Decode a clip; return its start [s], None if it is all of its file, and its duration [s]."""
    start, duration = entry.number("start"), entry.number("duration")
    try:
        source = ClipReader(1).source_of({**row, "audio": path})
        # In tar files, of which some are temporary, that of the clip.
        name = entry.names[0] if row["offset"] is not None and entry.names else path
        length = read_header(source, name).seconds
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
        # Many tables state the length of the whole file.
        is_length = duration is None or abs(duration - length) <= TOLERANCE_SECONDS
        is_whole = start is None and is_length
        found = check_audio(source, name, first, None if is_whole else wanted, row["channel"])
    except AudioError as error:
        column = "channel" if "channels, not number" in str(error) else "wav"
        raise entry.invalid(column, str(error)) from error
    if is_whole:
        is_cut = "cut" in entry.values and duration is not None
        return None, wanted if is_cut else found.seconds
    return first, wanted


def _with_ids(found: list[tuple[Entry, dict[str, Any]]], errors: list[str]) -> list[dict[str, Any]]:
    """Return rows with ids; those that repeat a given one go to ``errors``.

    An id is made from the path of the file, below the folder of the source, and the part. It does
    not depend on rows that come later.
    """
    taken: dict[str, tuple[Entry, dict[str, Any]]] = {}
    for entry, row in found:
        if "id" not in row:
            continue
        if row["id"] in taken:
            other, others = taken[row["id"]]
            errors.append(
                f"{entry.where}, column 'id': {row['id']!r} is also that of {others['audio']} in"
                f" {other.where}"
            )
            row["id"] = None
        else:
            taken[row["id"]] = entry, row
    files: dict[str, tuple[str, int | None]] = {}  # by the name that ids of their parts begin with
    names: dict[tuple[str, int | None], str] = {}
    for entry, row in found:
        if "id" in row:
            continue
        file = (row["audio"], row["offset"])
        if file not in names:
            names[file] = next(name for name in _names_of(entry, row) if name not in files)
            files[names[file]] = file
        row["id"] = next(name for name in _ids_of(names[file], row) if name not in taken)
        taken[row["id"]] = entry, row
    return [row for _, row in found if row["id"] is not None]


def _names_of(entry: Entry, row: dict[str, Any]) -> Iterator[str]:
    """Yield names for a file, from the shortest on; the first that no other file has is taken."""
    path, folder = row["audio"], os.path.join(os.path.abspath(entry.folder), "")
    if row["offset"] is not None and entry.names:  # of sound that is no file of its own
        names = list(entry.names)
    else:
        parts = path.split("/")
        longer = ["/".join(parts[-n:]) for n in range(2, len(parts) + 1)]
        is_below = path.startswith(folder)
        short = path.removeprefix(folder) if is_below else longer.pop(0)
        # With the suffix, of two files that differ in it: an empty one is cut off below.
        names = [short, *longer]
        names.insert(1 if is_below else 2, f"{short}.")
    names = [os.path.splitext(name)[0] for name in names]
    for name in names:
        yield "-".join(part for part in name.split("/") if part not in ("", "."))
    yield from _numbered(names[0].replace("/", "-"))


def _ids_of(name: str, row: dict[str, Any]) -> Iterator[str]:
    """Yield ids for a part of a file; the first that no other row has is taken."""
    start, channel = row["start"], row["channel"]
    end = "" if channel is None else f"-channel{channel}"
    short = name if start is None else f"{name}-{start:.10g}"
    yield f"{short}{end}"
    if start is not None:
        short = f"{short}-{start + row['duration']:.10g}"
        yield f"{short}{end}"
    yield from _numbered(f"{short}{end}")


def _numbered(name: str) -> Iterator[str]:
    return (f"{name}-{number}" for number in count(2))
