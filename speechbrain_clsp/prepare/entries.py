"""The rows of a user's data as they stand in tables, JSON, lhotse cuts or folders."""

from __future__ import annotations

import math
import os
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from speechbrain_clsp.dataio.shards import AUDIO_SUFFIXES
from speechbrain_clsp.prepare.audio_index import UNREADABLE_SUFFIXES
from speechbrain_clsp.prepare.clip import UnusableClipError, parse_line, read_lines
from speechbrain_clsp.prepare.cuts import clip_from_cut, is_cut
from speechbrain_clsp.utils.content import explain_file
from speechbrain_clsp.utils.reading import read_csv, read_json, read_text

AUDIO_COLUMNS = ("wav", "audio", "path", "file_name")  # alternative names of one column
CAPTION_COLUMNS = ("caption", "global_caption", "fine_caption", "global_captions", "fine_captions")
NUMBER_COLUMNS = ("start", "duration", "channel")
TEXT_COLUMNS = ("id", "speaker", "gender", "accent", "pitch", "speaking_rate", "split", "source")
TAG_COLUMNS = ("intrinsic_tags", "situational_tags")
_GROUPS = (AUDIO_COLUMNS, CAPTION_COLUMNS, NUMBER_COLUMNS, TEXT_COLUMNS, TAG_COLUMNS)
KNOWN_COLUMNS = tuple(name for group in _GROUPS for name in group)
SEPARATORS = {".csv": ",", ".tsv": "\t"}
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # beside audio, as in datasets

_UNPACK = "unpack it, and prepare the folder (captions in .txt files beside the audio are read)"
_WITH_AUDIO = "write a table with the columns wav and caption, with the paths of"
# What people have that is not read, by the end of its name, and the way out.
_OTHER_FILES = {
    (".tar", ".tar.gz", ".tgz"): f"a tar file, such as a shard of WebDataset: {_UNPACK}",
    (".zip", ".7z", ".rar"): f"an archive: {_UNPACK}",
    (".xlsx", ".xls", ".ods"): "a workbook: save its sheet as CSV in UTF-8",
    (".arrow",): "a manifest, which is prepared already, or a table of datasets: save that by"
    " to_parquet",
    ("wav.scp",): f"a table of Kaldi: {_WITH_AUDIO} wav.scp",
    tuple(AUDIO_SUFFIXES | UNREADABLE_SUFFIXES): "one audio file: give its folder, or a table",
}
_OTHER_FOLDERS = {
    "wav.scp": f"a data folder of Kaldi: {_WITH_AUDIO} wav.scp",
    "state.json": "a data set that datasets saved to disk: export it by to_parquet, and its audio"
    " as files",
    "dataset_dict.json": "a dictionary of data sets that datasets saved to disk: export each by"
    " to_parquet, and its audio as files",
    "supervisions.jsonl.gz": "a folder of lhotse's recordings and supervisions: make cuts of them"
    " by `lhotse cut simple -r recordings.jsonl.gz -s supervisions.jsonl.gz cuts.jsonl.gz`",
    "*.tar": f"a folder of tar files, such as shards of WebDataset: {_UNPACK}",
    "*.parquet": "a folder of parquet files: give them one by one",
}


@dataclass
class Entry:
    """A row of the user's data.

    Arguments
    ---------
    where : str
        File and row, for messages.
    values : dict
        By column. Missing ones, such as empty cells and NaN, are left out.
    folder : path
        That relative paths start from.
    captions : dict of list of str
        By column of the manifest.
    places : dict of str
        For each column that came from another row, which one.
    """

    where: str
    values: dict[str, Any]
    folder: Path
    captions: dict[str, list[str]] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.values = {name: v for name, v in self.values.items() if not _is_missing(v)}

    def invalid(self, column: str, message: str) -> ValueError:
        """Return an error that names the row and a column whose value cannot be used."""
        return ValueError(f"{self.where}, column {column!r}: {message}")

    def number(self, column: str) -> float | None:
        """Return a number of at least 0, None if there is none."""
        value = self.values.get(column)
        if value is None:
            return None
        try:
            number = -1.0 if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = -1.0
        if not 0 <= number < math.inf:
            raise self.invalid(column, f"is {value!r}, not a number of at least 0")
        return number

    def channel(self) -> int | None:
        """Return the number of a channel, None for the mean of all."""
        number = self.number("channel")
        if number is None:
            return None
        if number != int(number) or number > 2**16:
            raise self.invalid("channel", f"is {number:g}, not a whole number from 0")
        return int(number)

    def text(self, column: str) -> str | None:
        """Return a text, or a number as text; None if there is none."""
        value = self.values.get(column)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self.invalid(column, f"is {value!r}, a {type(value).__name__}, not a text")
        return self._in_unicode(column, str(value).strip())

    def texts(self, column: str, separator: str | None = None) -> list[str]:
        """Return a text, or a list of texts, as a list."""
        value = self.values.get(column)
        if value is None:
            return []
        values = value
        if isinstance(value, str):
            values = value.split(separator) if separator else [value]
        if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
            raise self.invalid(column, f"is {value!r}, not a text or a list of texts")
        return [self._in_unicode(column, v.strip()) for v in values if v.strip()]

    def _in_unicode(self, column: str, text: str) -> str:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise self.invalid(column, f"{text!a} is not UTF-8: rename it") from error
        return text

    def labels(self) -> dict[str, str]:
        """Return the classes in columns ``labels.<key>``, and those of a cut."""
        names = [name for name in self.values if name.startswith("labels.")]
        found = {name.partition(".")[2]: self.text(name) for name in names}
        return {k: v for k, v in found.items() if v} | (self.values.get("labels") or {})

    def audio(self) -> str:
        """Return the path of the audio file, relative to the working directory or absolute."""
        columns = [name for name in AUDIO_COLUMNS if name in self.values]
        if not columns:
            raise self.invalid("wav", "is empty: name an audio file")
        paths = {self._path(column): column for column in columns}
        if len(paths) > 1:
            raise self.invalid(
                columns[0], f"is another file than {columns[1]!r} names: leave one of them out"
            )
        return self._in_unicode(columns[0], os.path.join(self.folder, *paths))

    def _path(self, column: str) -> str:
        value = self.values[column]
        if isinstance(value, Mapping):  # the Audio of datasets
            if not isinstance(value.get("path"), str) or not _is_missing(value.get("bytes")):
                raise self.invalid(
                    column,
                    f"is an Audio of datasets, {{{', '.join(map(repr, value))}}}, which holds the"
                    " sound itself: save the sounds as files, and put their paths here",
                )
            value = value["path"]
        if not isinstance(value, str | os.PathLike):
            raise self.invalid(column, f"is a {type(value).__name__}, not the path of a file")
        value = os.fspath(value)
        if "\0" in value:
            raise self.invalid(column, f"is {value!r}, which holds a zero byte")
        if value.startswith(("http://", "https://", "s3://", "gs://", "hf://")):
            raise self.invalid(column, f"is the address {value}: download it first")
        return os.path.expanduser(value)


def _is_missing(value: Any) -> bool:
    empty = isinstance(value, str) and not value.strip()
    return value is None or empty or (isinstance(value, float) and math.isnan(value))


def read_entries(source: Path, ignored: Collection[str] = ()) -> Iterator[Entry | str]:
    r"""Yield the rows of a file or folder; for one that cannot be read, the reason.

    Arguments
    ---------
    source : path
        See :func:`~speechbrain_clsp.prepare.own_data.prepare_own`.
    ignored : collection of str
        Columns to leave out.

    Raises
    ------
    FileNotFoundError
        If there is nothing at ``source``.
    ValueError
        If it is something else; the message says what, and how to get what is read from it.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.csv"
    >>> _ = path.write_text("Wav;Caption\na.wav;A man.\n")
    >>> next(read_entries(path)).values
    {'wav': 'a.wav', 'caption': 'A man.'}
    """
    name = source.name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    if source.is_dir():
        yield from _entries_of_folder(source, ignored)
    elif not source.exists():
        raise FileNotFoundError(f"No file or folder {source}")
    elif suffix in SEPARATORS:
        yield from _entries_of_table(source, SEPARATORS[suffix], ignored)
    elif suffix in (".jsonl", ".json"):
        yield from _entries_of_json(source, ignored)
    elif suffix == ".parquet":
        yield from _entries_of_parquet(source, ignored)
    else:
        for ends, what in _OTHER_FILES.items():
            if name.endswith(ends):
                raise ValueError(f"{source}: is {what}")
        raise ValueError(f"{source}: must be a .csv, .tsv, .jsonl or .parquet file or a folder")


def _entries_of_table(
    path: Path, separator: str, ignored: Collection[str]
) -> Iterator[Entry | str]:
    header, rows = read_csv(path, KNOWN_COLUMNS, separator)
    _check_columns(path, header, ignored)
    for row in rows:
        where = f"{path} row {row.number}"
        if row.fault:
            yield f"{where}: {row.fault}"
        elif len(row.cells) != len(header):
            yield f"{where}: has {len(row.cells)} fields, the header has {len(header)}"
        else:
            values = dict(zip(header, row.cells))
            yield Entry(where, _without(values, ignored), path.parent)


def column_name(name: str) -> str:
    """Return a column's name as it is known, without capitals; others as they are.

    Example
    -------
    >>> column_name("Caption"), column_name("Labels.Mood")
    ('caption', 'Labels.Mood')
    """
    return name.lower() if name.lower() in KNOWN_COLUMNS else name


def _without(values: Mapping[str, Any], ignored: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in ignored}


def _check_columns(where: str | Path, names: Iterable[str], ignored: Collection[str]) -> None:
    """Raise if columns are unknown, missing or repeated; of a whole table, also of ``ignored``."""
    names = list(names)
    if isinstance(where, Path) and (absent := [name for name in ignored if name not in names]):
        raise ValueError(f"{where}: has no columns {absent} to leave out; it has {names}")
    names = [name for name in names if name not in ignored]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ValueError(f"{where}: has the columns {repeated} more than once")
    unknown = [n for n in names if n not in KNOWN_COLUMNS and not n.startswith("labels.")]
    if unknown and (set(names) & set(AUDIO_COLUMNS) or set(names) & set(CAPTION_COLUMNS)):
        known = ", ".join(KNOWN_COLUMNS)
        raise ValueError(
            f"{where}: unknown columns {unknown}; known: {known}, labels.*. Call columns to keep"
            f" labels.<name>, and leave others out by --ignore-columns {shlex.join(unknown)}"
        )
    if not set(names) & set(AUDIO_COLUMNS):
        hint = ": the first line must name the columns" if isinstance(where, Path) else ""
        raise ValueError(f"{where}: has no column 'wav'; it has {names}{hint}")
    if not set(names) & set(CAPTION_COLUMNS):
        raise ValueError(f"{where}: has no column 'caption'; it has {names}")


def _entries_of_parquet(path: Path, ignored: Collection[str]) -> Iterator[Entry]:
    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = list(map(column_name, file.schema_arrow.names))
        _check_columns(path, names, ignored)
        number = 0
        for batch in file.iter_batches(batch_size=1024):
            for values in batch.rename_columns(names).to_pylist():
                number += 1
                yield Entry(f"{path} row {number}", _without(values, ignored), path.parent)
    except (pyarrow.ArrowException, OSError) as error:
        kind = explain_file(path, "a Parquet")
        raise ValueError(f"{path} is not a parquet file, or damaged{kind}: {error}") from error


def _entries_of_json(path: Path, ignored: Collection[str]) -> Iterator[Entry | str]:
    """Yield the rows of JSON lines, or of a file that is one array or object."""
    first = next(read_lines(path), None)
    if first is not None and _is_document(first.line):
        records = _records_of_document(path)
    else:
        records = ((f"{path} row {number}", line) for number, line in read_lines(path))
    for where, record in records:
        try:
            record = parse_line(record) if isinstance(record, bytes) else record
            yield Entry(where, _values_of(record, where, ignored), path.parent)
        except UnusableClipError as error:
            yield f"{where}: {error}"
        except ValueError as error:
            yield str(error)


def _is_document(line: bytes) -> bool:
    """Return whether a file with this first line is one JSON value, not one per line."""
    if line.startswith(b"["):
        return True
    if not line.startswith(b"{"):
        return False
    try:
        record = parse_line(line)
    except UnusableClipError:
        return line.endswith((b"{", b"[", b",", b":"))
    return _is_by_id(record)


def _is_by_id(record: Mapping[str, Any]) -> bool:
    """Return whether an object holds rows by their ids, as SpeechBrain's JSON manifests do."""
    rows = list(record.values())
    return bool(rows) and not is_cut(record) and all(isinstance(row, dict) for row in rows)


def _records_of_document(path: Path) -> Iterator[tuple[str, Any]]:
    found = read_json(path)
    if isinstance(found, dict) and not _is_by_id(found):
        raise ValueError(
            f"{path}: is one JSON object with the keys {list(found)[:5]}: an array of objects, one"
            " object per line, or {id: object} are read"
        )
    if isinstance(found, dict):
        for name, record in found.items():
            yield f"{path} key {name!r}", {"id": name, **record}
    else:
        for number, record in enumerate(found, start=1):
            yield f"{path} item {number}", record


def _values_of(record: Any, where: str, ignored: Collection[str]) -> dict[str, Any]:
    """Return the columns of a JSON object, which may be a cut."""
    if not isinstance(record, dict):
        raise ValueError(f"{where}: is not a JSON object")
    if is_cut(record):
        row = clip_from_cut(record).row
        return {**row, "wav": row.pop("audio"), "cut": True}
    for keys, kind in (
        ({"sources", "sampling_rate"}, "recording"),
        ({"recording_id", "duration"}, "supervision"),
    ):
        if keys <= record.keys():
            raise ValueError(
                f"{where}: is a {kind} of lhotse, not a cut: make cuts by `lhotse cut simple`"
            )
    names = list(map(column_name, record))
    _check_columns(where, names, ignored)
    return _without(dict(zip(names, record.values())), ignored)


def _entries_of_folder(folder: Path, ignored: Collection[str]) -> Iterator[Entry | str]:
    found = sorted(path for path in folder.rglob("*") if not _is_hidden(path, folder))
    metadata = [path for path in found if path.name in METADATA]
    if metadata:
        yield from _entries_of_metadata(metadata, folder, ignored)
        return
    files = [path for path in found if path.suffix.lower() in AUDIO_SUFFIXES | UNREADABLE_SUFFIXES]
    for pattern, what in _OTHER_FOLDERS.items():
        if any(folder.glob(pattern)) and (not files or pattern == "wav.scp"):
            raise ValueError(f"{folder}: is {what}")
    if not files:
        raise ValueError(f"{folder}: has no audio files ({', '.join(sorted(AUDIO_SUFFIXES))})")
    for path in files:
        texts, captions = path.with_suffix(".txt"), []
        where = f"{path} (captions in {texts.name})"
        if path.suffix.lower() in UNREADABLE_SUFFIXES:
            yield f"{where}: {path.suffix} is not read: convert it to wav or flac"
            continue
        try:
            if texts.is_file():
                lines = read_text(texts).split("\n")
                captions = [line.strip() for line in lines if line.strip()]
        except (OSError, ValueError) as error:
            yield str(error)
            continue
        name = path.relative_to(folder).with_suffix("").as_posix().replace("/", "-")
        values = {"id": name, "wav": str(path.relative_to(folder)), "caption": captions}
        yield Entry(where, values, folder)


def _is_hidden(path: Path, folder: Path) -> bool:
    """Return whether a file is none of the user's, such as ``._a.wav``, which macOS adds."""
    parts = path.relative_to(folder).parts
    return "__MACOSX" in parts or any(part.startswith(".") for part in parts)


def _entries_of_metadata(
    files: list[Path], folder: Path, ignored: Collection[str]
) -> Iterator[Entry | str]:
    """Yield the rows of tables that lie beside the audio, also one per split, in its folder."""
    twice = [name for name, count in Counter(path.parent for path in files).items() if count > 1]
    if twice:
        names = [path.name for path in files if path.parent == twice[0]]
        raise ValueError(f"{twice[0]}: has {' and '.join(names)}: leave one of them")
    for path in files:
        split = path.relative_to(folder).parts[0] if path.parent != folder else None
        for entry in read_entries(path, ignored):
            if isinstance(entry, Entry) and split is not None:
                entry.values.setdefault("split", split)
            yield entry
