"""The rows of a user's data as they stand in tables, JSON, lhotse cuts or folders."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from speechbrain_clsp.dataio.shards import AUDIO_SUFFIXES, FFMPEG_SUFFIXES
from speechbrain_clsp.prepare.clip import UnusableClipError, parse_line, read_lines
from speechbrain_clsp.prepare.columns import KNOWN_COLUMNS
from speechbrain_clsp.prepare.cuts import clip_from_cut, is_cut
from speechbrain_clsp.prepare.entry import Entry, ReadOptions
from speechbrain_clsp.prepare.hub_datasets import entries_of_dataset, is_hub_name
from speechbrain_clsp.prepare.kaldi import entries_of_kaldi
from speechbrain_clsp.prepare.webdataset import entries_of_shard, expand_pattern, is_pattern
from speechbrain_clsp.utils.content import explain_file
from speechbrain_clsp.utils.reading import read_csv, read_json, read_text

SEPARATORS = {".csv": ",", ".tsv": "\t"}
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # beside audio, as in datasets
ROWS_AT_ONCE = 1024  # of a parquet file
SOUNDS_AT_ONCE = 16  # of one that holds the audio itself
_PART_OF_SPLIT = re.compile(r"(\w+)-\d{5}-of-\d{5}")  # as datasets names its parquet files

_UNPACK = "unpack it, and prepare the folder (captions in .txt files beside the audio are read)"
# What people have that is not read, by the end of its name, and the way out.
_OTHER_FILES = {
    (".tar.gz", ".tgz"): "a compressed tar file: gunzip it, since clips are read in place",
    (".zip", ".7z", ".rar"): f"an archive: {_UNPACK}",
    (".xlsx", ".xls", ".ods"): "a workbook: save its sheet as CSV in UTF-8",
    (".arrow",): "a manifest, which is prepared already, or a table of datasets: give the folder"
    " that save_to_disk wrote",
    ("wav.scp",): "a table of Kaldi: give its folder",
    tuple(AUDIO_SUFFIXES | FFMPEG_SUFFIXES): "one audio file: give its folder, or a table",
}
_LHOTSE = "supervisions.jsonl.gz"


def read_entries(source: Path, options: ReadOptions | None = None) -> Iterator[Entry | str]:
    r"""Yield the rows of a file or folder; for one that cannot be read, the reason.

    Arguments
    ---------
    source : path
        See :func:`~speechbrain_clsp.prepare.own_data.prepare_own`.
    options : ReadOptions, optional
        What is set for reading it.

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
    options = options or ReadOptions()
    seen, found = Counter[str | None](), 0
    is_dataset = _is_dataset(source)
    if options.captions_file is not None and not (source / "wav.scp").is_file():
        raise ValueError(f"{source}: --captions is for data folders of Kaldi, which have a wav.scp")
    if options.streaming and (source.exists() or not is_dataset):
        raise ValueError(f"{source}: --streaming is for data sets of the Hub, by their names")
    entries = entries_of_dataset(source, options) if is_dataset else _entries(source, options)
    for entry in entries:
        if isinstance(entry, str):
            yield entry
            continue
        if options.split is not None and not is_dataset:
            split = entry.values.get("split")
            seen[split] += 1
            if split != options.split:
                continue
        found += 1
        try:
            entry.resolve(options)
            yield entry
        except ValueError as error:
            yield str(error)
    if seen and not found:
        splits = sorted(str(split) for split in seen if split is not None)
        has = f"it has {splits}" if splits else "no row has a split"
        raise ValueError(f"{source}: no row is of the split {options.split!r}; {has}")
    if found:
        options.columns.check_used(source)


def _is_dataset(source: Path) -> bool:
    """Return whether the library datasets reads something: what it saved, or a data set's name."""
    if source.is_dir():
        return any((source / name).is_file() for name in ("state.json", "dataset_dict.json"))
    return not source.exists() and not is_pattern(source) and is_hub_name(source)


def _entries(source: Path, options: ReadOptions) -> Iterator[Entry | str]:
    name = source.name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    if not source.exists():
        for path in expand_pattern(source):
            yield from _entries(path, options)
    elif source.is_dir():
        yield from _entries_of_folder(source, options)
    elif suffix in SEPARATORS:
        yield from _entries_of_table(source, SEPARATORS[suffix], options)
    elif suffix in (".jsonl", ".json"):
        yield from _entries_of_json(source, options)
    elif suffix == ".parquet":
        yield from _entries_of_parquet(source, options)
    elif name.endswith(".tar"):
        yield from entries_of_shard(source, options)
    else:
        for ends, what in _OTHER_FILES.items():
            if name.endswith(ends):
                raise ValueError(f"{source}: is {what}")
        raise ValueError(
            f"{source}: must be a .csv, .tsv, .jsonl, .parquet or .tar file or a folder"
        )


def _entries_of_table(path: Path, separator: str, options: ReadOptions) -> Iterator[Entry | str]:
    header, rows = read_csv(path, KNOWN_COLUMNS, separator)
    columns = options.columns.rename(path, header)
    for row in rows:
        where = f"{path} row {row.number}"
        if row.fault:
            yield f"{where}: {row.fault}"
        elif len(row.cells) != len(header):
            yield f"{where}: has {len(row.cells)} fields, the header has {len(header)}"
        else:
            values = _renamed(dict(zip(header, row.cells)), columns)
            yield Entry(where, values, options.folder(path.parent))


def _renamed(values: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    return {ours: values[theirs] for theirs, ours in columns.items()}


def _entries_of_parquet(path: Path, options: ReadOptions) -> Iterator[Entry]:
    folder, number = options.folder(path.parent), 0
    split = _PART_OF_SPLIT.match(path.name)
    try:
        file = pyarrow.parquet.ParquetFile(path)
        columns = options.columns.rename(path, file.schema_arrow.names)
        n_rows = SOUNDS_AT_ONCE if _holds_bytes(file.schema_arrow, columns) else ROWS_AT_ONCE
        for batch in file.iter_batches(n_rows, columns=list(columns)):
            for row in batch.to_pylist():
                number += 1
                values = _renamed(row, columns)
                if split:
                    values.setdefault("split", split[1])
                names = [f"{path.stem}-{number}."]
                yield Entry(f"{path} row {number}", values, folder, names=names)
    except (pyarrow.ArrowException, OSError) as error:
        kind = explain_file(path, "a Parquet")
        raise ValueError(f"{path} is not a parquet file, or damaged{kind}: {error}") from error


def _holds_bytes(schema: pyarrow.Schema, names: Iterable[str]) -> bool:
    """Return whether a table holds audio itself, as bytes or as {bytes, path} of datasets."""
    kinds = [schema.field(name).type for name in names]
    return any(pyarrow.types.is_struct(k) or "binary" in str(k) for k in kinds)


def _entries_of_json(path: Path, options: ReadOptions) -> Iterator[Entry | str]:
    """Yield the rows of JSON lines, or of a file that is one array or object."""
    first = next(read_lines(path), None)
    if first is not None and _is_document(first.line):
        records = _records_of_document(path)
    else:
        records = ((f"{path} row {number}", line) for number, line in read_lines(path))
    for where, record in records:
        try:
            record = parse_line(record) if isinstance(record, bytes) else record
            folder = options.folder(path.parent)
            yield Entry(where, _values_of(record, where, options), folder)
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


def _values_of(record: Any, where: str, options: ReadOptions) -> dict[str, Any]:
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
    return _renamed(record, options.columns.rename(where, list(record)))


def _entries_of_folder(folder: Path, options: ReadOptions) -> Iterator[Entry | str]:
    found = sorted(path for path in folder.rglob("*") if not _is_hidden(path, folder))
    if metadata := [path for path in found if path.name in METADATA]:
        yield from _entries_of_metadata(metadata, folder, options)
        return
    if (folder / "wav.scp").is_file():
        yield from entries_of_kaldi(folder, options)
        return
    files = [path for path in found if path.suffix.lower() in AUDIO_SUFFIXES | FFMPEG_SUFFIXES]
    if files:
        yield from _entries_of_files(files, folder)
        return
    if (folder / _LHOTSE).is_file():
        raise ValueError(
            f"{folder}: is a folder of lhotse's recordings and supervisions: make cuts of them by"
            f" `lhotse cut simple -r recordings.jsonl.gz -s {_LHOTSE} cuts.jsonl.gz`"
        )
    tables = [path for path in found if path.suffix.lower() in (".tar", ".parquet")]
    if not tables:
        names = ", ".join(sorted(AUDIO_SUFFIXES))
        raise ValueError(f"{folder}: has no audio files ({names}), nor .tar or .parquet files")
    for path in tables:
        yield from _entries(path, options)


def _entries_of_files(files: list[Path], folder: Path) -> Iterator[Entry | str]:
    """Yield the audio files of a folder, with captions in .txt files beside them."""
    for path in files:
        texts, captions = path.with_suffix(".txt"), []
        where = f"{path} (captions in {texts.name})"
        try:
            if texts.is_file():
                lines = read_text(texts).split("\n")
                captions = [line.strip() for line in lines if line.strip()]
        except (OSError, ValueError) as error:
            yield str(error)
            continue
        values = {"wav": str(path.relative_to(folder)), "caption": captions}
        yield Entry(where, values, folder)


def _is_hidden(path: Path, folder: Path) -> bool:
    """Return whether a file is none of the user's, such as ``._a.wav``, which macOS adds."""
    parts = path.relative_to(folder).parts
    return "__MACOSX" in parts or any(part.startswith(".") for part in parts)


def _entries_of_metadata(
    files: list[Path], folder: Path, options: ReadOptions
) -> Iterator[Entry | str]:
    """Yield the rows of tables that lie beside the audio, also one per split, in its folder."""
    twice = [name for name, count in Counter(path.parent for path in files).items() if count > 1]
    if twice:
        names = [path.name for path in files if path.parent == twice[0]]
        raise ValueError(f"{twice[0]}: has {' and '.join(names)}: leave one of them")
    for path in files:
        split = path.relative_to(folder).parts[0] if path.parent != folder else None
        for entry in _entries(path, options):
            if isinstance(entry, Entry) and split is not None:
                entry.values.setdefault("split", split)
            yield entry
