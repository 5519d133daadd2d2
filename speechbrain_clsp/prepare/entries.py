"""Reading of a user's recordings and captions: tables, JSON lines, lhotse cuts and folders."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from speechbrain_clsp.dataio.shards import AUDIO_SUFFIXES
from speechbrain_clsp.prepare.clip import UnusableClipError, parse_line, read_lines
from speechbrain_clsp.prepare.cuts import clip_from_cut

AUDIO_COLUMNS = ("wav", "audio", "path", "file_name")  # alternative names of one column
CAPTION_COLUMNS = ("caption", "global_caption", "fine_caption", "global_captions", "fine_captions")
NUMBER_COLUMNS = ("start", "duration")
TEXT_COLUMNS = ("id", "speaker", "gender", "accent", "pitch", "speaking_rate", "split", "source")
TAG_COLUMNS = ("intrinsic_tags", "situational_tags")
CHANNEL = "channel"
_GROUPS = (AUDIO_COLUMNS, CAPTION_COLUMNS, NUMBER_COLUMNS, TEXT_COLUMNS, TAG_COLUMNS, (CHANNEL,))
KNOWN_COLUMNS = tuple(name for group in _GROUPS for name in group)
SEPARATORS = {".csv": ",", ".tsv": "\t"}


@dataclass
class Entry:
    """A row of the user's data.

    Arguments
    ---------
    where : str
        File and row, for messages.
    values : dict
        Its values by column.
    folder : path
        Folder that relative paths start from.
    error : str
        Why the row cannot be read, if so.
    captions : dict
        Captions by column of the manifest, filled in when rows of one clip are merged.
    """

    where: str
    values: dict[str, Any]
    folder: Path
    error: str = ""
    captions: dict[str, list[str]] = field(default_factory=dict)


class InvalidColumnError(ValueError):
    """A value of a row that cannot be used."""

    def __init__(self, where: str, column: str, message: str) -> None:
        super().__init__(f"{where}, column {column!r}: {message}")


def read_entries(source: Path) -> Iterator[Entry]:
    """Yield the rows of a file or folder."""
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


def _entries_of_table(path: Path, separator: str) -> Iterator[Entry]:
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
                if not values:  # an empty line
                    continue
                number += 1
                where = f"{path} row {number}"
                if len(values) == len(names):
                    yield Entry(where, dict(zip(names, values)), path.parent)
                    continue
                error = f"{where}: has {len(values)} fields, the header has {len(names)}"
                yield Entry(where, {}, path.parent, error)
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


def _entries_of_parquet(path: Path) -> Iterator[Entry]:
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path} is not a parquet file, or damaged: {error}") from error
    _check_columns(path, file.schema_arrow.names)
    number = 0
    for batch in file.iter_batches(batch_size=1024):
        for values in batch.to_pylist():
            number += 1
            yield Entry(f"{path} row {number}", values, path.parent)


def _entries_of_jsonl(path: Path) -> Iterator[Entry]:
    for number, line in read_lines(path):
        where = f"{path} row {number}"
        try:
            yield Entry(where, _values_of(parse_line(line), where), path.parent)
        except UnusableClipError as error:
            yield Entry(where, {}, path.parent, error=f"{where}: {error}")
        except ValueError as error:
            yield Entry(where, {}, path.parent, error=str(error))


def _values_of(record: dict, where: str) -> dict[str, Any]:
    """Return the columns of a JSON object, which may be a cut."""
    if "recording" in record or "supervisions" in record or "tracks" in record:
        row = clip_from_cut(record).row
        return {**row, "wav": row.pop("audio"), "cut": True}
    _check_columns(where, record)
    return record


def _entries_of_folder(folder: Path) -> Iterator[Entry]:
    for name in ("metadata.csv", "metadata.jsonl"):
        if (folder / name).is_file():
            yield from read_entries(folder / name)
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
        values = {"id": name, "wav": str(path), "caption": captions}
        yield Entry(f"{path} (captions in {texts.name})", values, folder)
