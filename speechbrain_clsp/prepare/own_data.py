"""A user's recordings and captions: reading, validation, and their manifest.

They come as tables, JSON lines, lhotse cuts or folders.
"""

from __future__ import annotations

import csv
import gzip
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from tqdm import tqdm

from speechbrain_clsp.dataio.audio import (
    MINIMUM_SECONDS,
    SAMPLE_RATE,
    TOLERANCE_SECONDS,
    seconds_of,
)
from speechbrain_clsp.dataio.manifest import write_manifest
from speechbrain_clsp.dataio.shards import AUDIO_SUFFIXES
from speechbrain_clsp.prepare.clip import UnusableClipError, parse_line, read_lines
from speechbrain_clsp.prepare.cuts import clip_from_cut

SHOWN_ERRORS = 20
AUDIO_COLUMNS = ("wav", "audio", "path", "file_name")  # alternative names of one column
CAPTION_COLUMNS = ("caption", "global_caption", "fine_caption", "global_captions", "fine_captions")
NUMBER_COLUMNS = ("start", "duration")
TEXT_COLUMNS = ("id", "speaker", "gender", "accent", "pitch", "speaking_rate", "split", "source")
TAG_COLUMNS = ("intrinsic_tags", "situational_tags")
_GROUPS = (AUDIO_COLUMNS, CAPTION_COLUMNS, NUMBER_COLUMNS, TEXT_COLUMNS, TAG_COLUMNS, ("channel",))
KNOWN_COLUMNS = tuple(name for group in _GROUPS for name in group)
SEPARATORS = {".csv": ",", ".tsv": "\t"}


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
    entries = _merged(_read_entries(source), errors)
    with ThreadPoolExecutor(n_jobs) as pool:
        checked = pool.map(lambda entry: _attempt(entry, output), entries)
        for result in tqdm(checked, "checking", len(entries), unit="clip", disable=None):
            if isinstance(result, str):
                errors.append(result)
            else:
                rows.append(result)
    rows = _without_repeated_ids(rows, errors)
    if errors and not skip_bad:
        raise ValueError(_summary(errors))
    if not rows:
        raise ValueError(f"{source} has no good row. {_summary(errors) if errors else ''}".strip())
    return write_manifest(output, rows), errors


@dataclass
class _Entry:
    """A row of the user's data."""

    where: str  # file and row, for messages
    values: dict[str, Any]  # by column
    folder: Path  # that relative paths start from
    captions: dict[str, list[str]] = field(default_factory=dict)  # by column of the manifest

    def invalid(self, column: str, message: str) -> ValueError:
        """Return an error that names the row and a column whose value cannot be used."""
        return ValueError(f"{self.where}, column {column!r}: {message}")


def _read_entries(source: Path) -> Iterator[_Entry | str]:
    """Yield the rows of a file or folder; for one that cannot be read, the reason."""
    suffix = Path(source.name.removesuffix(".gz")).suffix
    if source.is_dir():
        yield from _entries_of_folder(source)
    elif not source.exists():
        raise FileNotFoundError(f"No file or folder {source}")
    elif suffix in SEPARATORS:
        yield from _entries_of_table(source, SEPARATORS[suffix])
    elif suffix in (".jsonl", ".json"):
        yield from _entries_of_jsonl(source)
    elif suffix == ".parquet":
        yield from _entries_of_parquet(source)
    else:
        raise ValueError(f"{source}: must be a .csv, .tsv, .jsonl or .parquet file or a folder")


def _entries_of_table(path: Path, separator: str) -> Iterator[_Entry | str]:
    # Not by pandas, which can go on after a row with too many fields only if it also drops rows
    # with an open quotation mark without notice, and renames the second of two equal columns.
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=separator, strict=True)
        try:
            names = [name.strip() for name in next(reader, [])]
            _check_columns(path, names)
            number = 1
            for values in reader:
                number += bool(values)  # an empty line is no row
                where = f"{path} row {number}"
                if len(values) == len(names):
                    yield _Entry(where, dict(zip(names, values)), path.parent)
                elif values:
                    yield f"{where}: has {len(values)} fields, the header has {len(names)}"
        except (csv.Error, UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
            raise ValueError(f"{path} near line {reader.line_num + 1}: {error}") from error


def _check_columns(where: str | Path, names: Iterable[str]) -> None:
    """Raise if columns are unknown, missing or repeated."""
    names = list(names)
    unknown = [n for n in names if n not in KNOWN_COLUMNS and not n.startswith("labels.")]
    if unknown:
        known = ", ".join(KNOWN_COLUMNS)
        raise ValueError(f"{where}: unknown columns {unknown}; known: {known}, labels.*")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ValueError(f"{where}: has the columns {repeated} more than once")
    if not set(names) & set(AUDIO_COLUMNS):
        raise ValueError(f"{where}: has no column 'wav'; it has {names}")
    if not set(names) & set(CAPTION_COLUMNS):
        raise ValueError(f"{where}: has no column 'caption'; it has {names}")


def _entries_of_parquet(path: Path) -> Iterator[_Entry]:
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path} is not a parquet file, or damaged: {error}") from error
    _check_columns(path, file.schema_arrow.names)
    batches = file.iter_batches(batch_size=1024)
    rows = (values for batch in batches for values in batch.to_pylist())
    for number, values in enumerate(rows, start=1):
        yield _Entry(f"{path} row {number}", values, path.parent)


def _entries_of_jsonl(path: Path) -> Iterator[_Entry | str]:
    for number, line in read_lines(path):
        where = f"{path} row {number}"
        try:
            yield _Entry(where, _values_of(parse_line(line), where), path.parent)
        except UnusableClipError as error:
            yield f"{where}: {error}"
        except ValueError as error:
            yield str(error)


def _values_of(record: dict, where: str) -> dict[str, Any]:
    """Return the columns of a JSON object, which may be a cut."""
    if "recording" in record or "supervisions" in record or "tracks" in record:
        row = clip_from_cut(record).row
        return {**row, "wav": row.pop("audio"), "cut": True}
    _check_columns(where, record)
    return record


def _entries_of_folder(folder: Path) -> Iterator[_Entry | str]:
    for name in ("metadata.csv", "metadata.jsonl"):
        if (folder / name).is_file():
            yield from _read_entries(folder / name)
            return
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES)
    if not files:
        raise ValueError(f"{folder}: has no audio files ({', '.join(sorted(AUDIO_SUFFIXES))})")
    for path in files:
        texts, captions = path.with_suffix(".txt"), []
        if texts.is_file():
            lines = texts.read_text(encoding="utf-8").splitlines()
            captions = [line.strip() for line in lines if line.strip()]
        name = path.relative_to(folder).with_suffix("").as_posix().replace("/", "-")
        values = {"id": name, "wav": str(path.relative_to(folder)), "caption": captions}
        yield _Entry(f"{path} (captions in {texts.name})", values, folder)


def _merged(entries: Iterable[_Entry | str], errors: list[str]) -> list[_Entry]:
    """Merge the rows of each clip, one per caption; errors of unreadable rows go to ``errors``."""
    found: dict[tuple, _Entry] = {}
    for entry in entries:
        if isinstance(entry, str):
            errors.append(entry)
            continue
        try:
            entry.captions = _captions(entry)
            key = tuple(str(entry.values.get(k) or "") for k in ("id", "start", "duration"))
            first = found.setdefault((*key, _audio_of(entry)), entry)
        except ValueError as error:
            errors.append(str(error))
            continue
        for kind, texts in entry.captions.items():
            first.captions[kind] = list(dict.fromkeys(first.captions[kind] + texts))
    return list(found.values())


def _captions(entry: _Entry) -> dict[str, list[str]]:
    """Return a row's captions; ``caption`` alone serves as both kinds."""
    found = {}
    for kind in ("global_captions", "fine_captions"):
        texts = _texts(entry, kind) + _texts(entry, kind[:-1]) or _texts(entry, "caption")
        found[kind] = list(dict.fromkeys(texts))
    if not any(found.values()):
        column = next((name for name in entry.values if "caption" in name), "caption")
        raise entry.invalid(column, "is empty: a clip needs a caption")
    return found


def _texts(entry: _Entry, column: str, separator: str | None = None) -> list[str]:
    value = entry.values.get(column)
    if value is None:
        return []
    values = value
    if isinstance(value, str):
        values = value.split(separator) if separator else [value]
    if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
        raise entry.invalid(column, f"is {value!r}, not a text or a list of texts")
    return [v.strip() for v in values if v.strip()]


def _audio_of(entry: _Entry) -> str:
    column = next((name for name in AUDIO_COLUMNS if entry.values.get(name)), None)
    if column is None:
        raise entry.invalid("wav", "is empty: name an audio file")
    return os.path.join(entry.folder, os.path.expanduser(str(entry.values[column])))


def _attempt(entry: _Entry, output: Path) -> dict[str, Any] | str:
    try:
        return _row(entry, output)
    except (ValueError, OSError) as error:
        return str(error)


def _row(entry: _Entry, output: Path) -> dict[str, Any]:
    """Return a checked row of the manifest."""
    values = {name: value for name, value in entry.values.items() if value not in (None, "")}
    path = os.path.abspath(_audio_of(entry))
    start, duration = (_number(entry, name) for name in NUMBER_COLUMNS)
    if not os.path.isfile(path):
        raise entry.invalid("wav", f"no file {path}")
    row: dict[str, Any] = {n: str(values[n]).strip() for n in TEXT_COLUMNS if n in values}
    if "offset" not in values:  # of a cut whose audio lies in a shard
        length = seconds_of(path)
        if length == 0:
            raise entry.invalid("wav", f"{path} cannot be read as audio")
        duration = _checked_part(entry, start, duration, length)
    # Relative below the manifest's folder, so that the folder can be moved.
    audio = path.removeprefix(os.path.join(os.path.abspath(output.parent), ""))
    row |= {"audio": audio, "duration": duration, **entry.captions}
    if start is not None or "duration" in values:
        row["start"] = None if values.get("cut") and start is None else start or 0.0
    row.setdefault("id", _name_of(path, start))
    for name in TAG_COLUMNS:
        row[name] = _texts(entry, name, separator=";")  # of a table: "deep; raspy"
    if (channel := _number(entry, "channel")) is not None:
        row["channel"] = int(channel)
    row |= {name: values[name] for name in ("offset", "nbytes", "sample_rate") if name in values}
    labels = {k.partition(".")[2]: v for k, v in values.items() if k.startswith("labels.") and v}
    labels |= values.get("labels") or {}
    return row | ({"labels": labels} if labels else {})


def _checked_part(
    entry: _Entry, start: float | None, duration: float | None, length: float
) -> float:
    """Return the part's duration [s]; raise if it is too short or ends after the file."""
    start = start or 0.0
    if start >= length:
        raise entry.invalid("start", f"is {start} s, the file lasts {length:.2f} s")
    duration = length - start if duration is None else duration
    if start + duration > length + TOLERANCE_SECONDS:
        end = start + duration
        raise entry.invalid("duration", f"ends at {end:.2f} s, the file at {length:.2f} s")
    if round(duration * SAMPLE_RATE) < MINIMUM_SECONDS * SAMPLE_RATE:
        message = f"is {duration:.3f} s, at least {MINIMUM_SECONDS} s are needed"
        raise entry.invalid("duration", message)
    return duration


def _number(entry: _Entry, column: str) -> float | None:
    value = entry.values.get(column)
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number < float("inf"):
        raise entry.invalid(column, f"is {value!r}, not a number of at least 0")
    return number


def _name_of(path: str, start: float | None) -> str:
    stem = Path(path).stem
    return stem if start is None else f"{stem}-{start:g}"


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
