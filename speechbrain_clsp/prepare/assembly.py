"""Parallel, resumable conversion of millions of records to a manifest.

Records are read in blocks. Each block is converted to a part file, which also states what was left
out and a checksum of its records; a part whose checksum is unchanged is reused when an interrupted
preparation is started again. At the end the parts are joined.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from speechbrain_clsp.dataio.manifest import (
    SCHEMA,
    check_manifest_path,
    checked_row,
    make_batch,
    why_unfit,
    write_batches,
)
from speechbrain_clsp.prepare.audio_index import run_all
from speechbrain_clsp.prepare.clip import MALFORMED, Record, UnusableClipError
from speechbrain_clsp.utils.files import atomic_path, atomic_write

BLOCK_RECORDS = 8192
REPEATED = "id occurs twice"
Convert = Callable[[bytes], dict[str, Any]]


@dataclass
class Outcome:
    """Counts of a conversion."""

    clips: int = 0  # rows of the manifest
    seconds: float = 0.0  # their total duration
    captions: Counter = field(default_factory=Counter)  # of the rows, by ``global`` and ``fine``
    left_out: Counter = field(default_factory=Counter)  # records that gave no row, by reason


def assemble(
    output: str | os.PathLike,
    records: Iterable[Record],
    convert: Convert,
    fingerprint: str = "",
    n_jobs: int = 1,
    total: int | None = None,
    max_malformed: int = 100,
    about: Mapping[str, Any] | None = None,
) -> Outcome:
    """Convert records to a manifest, and list beside it what was left out.

    Writes ``<output>``, ``<stem>_report.json`` (counts by reason) and ``<stem>_left_out.tsv`` (one
    line per record that gave no row: number, id, reason, details). Of several records with one id
    the first is kept.

    Arguments
    ---------
    output : str or path
        The manifest, ``<split>.arrow``.
    records : iterable of Record
        Read as a stream, of which some blocks are in memory.
    convert : callable
        Takes a line and returns a manifest row, or raises ``UnusableClipError``; picklable.
    fingerprint : str
        What rows depend on besides their lines. Parts made with another fingerprint are made again.
    n_jobs, total : int
        Number of processes, and of records, for the progress bar.
    max_malformed : int
        Stop at more malformed lines than that: the file is probably not the expected one.
    about : dict, optional
        What the report states besides the counts.

    Raises
    ------
    ValueError
        If no record gave a row, or too many lines are malformed.

    Example
    -------
    >>> from speechbrain_clsp.prepare.clip import parse_line
    >>> folder = getfixture("tmp_path")
    >>> lines = [b'{"id": "a", "audio": "a.wav", "duration": 2}', b"oops"]
    >>> records = [Record(number, line) for number, line in enumerate(lines, start=1)]
    >>> assemble(folder / "train.arrow", records, parse_line).left_out
    Counter({'malformed line': 1})
    """
    output = Path(output)
    check_manifest_path(output)
    folder = parts_folder(output)
    folder.mkdir(parents=True, exist_ok=True)
    parts, malformed = [], []
    with tqdm(desc=output.stem, total=total, unit="clip") as progress:
        make = partial(make_part, folder, convert=convert, fingerprint=fingerprint)
        for part in run_all(make, enumerate(_blocks(records)), n_jobs):
            parts.append(part)
            found = _about(part)
            progress.update(found["records"])
            malformed += [entry for entry in found["left_out"] if entry[2] == MALFORMED]
            if len(malformed) > max_malformed:
                number, _, _, detail = malformed[0]
                raise ValueError(
                    f"More than {max_malformed} lines are malformed, the first: line {number},"
                    f" {detail}. Is this the right file? If so, raise max_malformed"
                )
    outcome = _join(output, parts)
    report = {
        "clips": outcome.clips,
        "hours": round(outcome.seconds / 3600, 3),
        "captions": outcome.captions,
        "left_out": dict(outcome.left_out.most_common()),
        **(about or {}),
    }
    text = json.dumps(report, indent=2, ensure_ascii=False)
    atomic_write(report_path(output), text + "\n")
    shutil.rmtree(folder)
    return outcome


def _blocks(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Group records; those read before a ValueError are yielded before it is raised."""
    block: list[Record] = []
    try:
        for record in records:
            block.append(record)
            if len(block) == BLOCK_RECORDS:
                yield block
                block = []
    except ValueError:
        if block:
            yield block
        raise
    if block:
        yield block


def make_part(
    folder: Path, numbered: tuple[int, list[Record]], convert: Convert, fingerprint: str
) -> Path:
    """Write the part of one numbered block, unless it exists; return its path."""
    number, block = numbered
    path = folder / f"{number:06d}.arrow"
    content = zlib.crc32(b"\n".join(record.line for record in block))
    check = f"{zlib.crc32(fingerprint.encode())}-{content}-{len(block)}"
    if path.is_file() and _about(path)["check"] == check:
        return path
    rows, numbers, left_out = [], [], []
    for record in block:
        try:
            rows.append(checked_row(convert(record.line), record.number))
            numbers.append(record.number)
        except UnusableClipError as error:
            left_out.append([record.number, error.name, error.reason, error.detail])
    batch = _fitting_batch(rows, numbers, left_out)
    about = {"check": check, "records": len(block), "left_out": left_out}
    schema = SCHEMA.with_metadata({"about": json.dumps(about)})
    with (
        atomic_path(path) as partial,
        pa.OSFile(str(partial), "wb") as sink,
        pa.ipc.new_file(sink, schema) as writer,
    ):
        writer.write_batch(batch)
    return path


def _fitting_batch(
    rows: list[dict[str, Any]], numbers: list[int], left_out: list[list]
) -> pa.RecordBatch:
    """Return the rows whose values fit their columns; the others go to ``left_out``."""
    try:
        return make_batch(rows, 1)
    except ValueError:
        reasons = [why_unfit(row) for row in rows]
    for row, number, reason in zip(rows, numbers, reasons):
        if reason:
            left_out.append([number, str(row["id"]), MALFORMED, reason])
    return make_batch([row for row, reason in zip(rows, reasons) if not reason], 1)


def _about(path: Path) -> dict[str, Any]:
    """Return the metadata of a part."""
    with pa.memory_map(str(path)) as source:
        return json.loads(pa.ipc.open_file(source).schema.metadata[b"about"])


def _batch(path: Path) -> pa.RecordBatch:
    # Read, not mapped: thousands of maps would stay open.
    batch = pa.ipc.open_file(pa.BufferReader(path.read_bytes())).get_batch(0)
    return pa.RecordBatch.from_arrays(batch.columns, schema=SCHEMA)


def _join(output: Path, parts: list[Path]) -> Outcome:
    """Join parts into the manifest, without second occurrences of ids; list what was left out."""
    outcome = Outcome()
    repeated = _repeated(parts)
    with (
        atomic_path(output.with_name(f"{output.stem}_left_out.tsv")) as partial,
        open(partial, "w", encoding="utf-8") as file,
    ):
        file.write("record\tid\treason\tdetail\n")
        write_batches(output, _kept(parts, repeated, outcome, file))
    return outcome


def _kept(
    parts: list[Path], repeated: set[int], outcome: Outcome, file: TextIO
) -> Iterator[pa.RecordBatch]:
    """Yield the rows to keep; count them, and count and list the others."""
    seen: set[str] = set()
    for part in parts:
        left_out = _about(part)["left_out"]
        batch = _batch(part)
        keep = [True] * batch.num_rows
        for i, name in enumerate(batch.column("id").to_pylist()):
            if hash(name) in repeated:
                keep[i] = name not in seen
                seen.add(name)
                if not keep[i]:
                    left_out.append(["", name, REPEATED, "the first is kept"])
        for number, name, reason, detail in left_out:
            outcome.left_out[reason] += 1
            file.write(f"{number}\t{name or ''}\t{reason}\t{' '.join(detail.split())}\n")
        batch = batch if all(keep) else batch.filter(pa.array(keep))
        outcome.clips += batch.num_rows
        outcome.seconds += float(np.asarray(batch.column("duration")).sum())
        for kind in ("global", "fine"):
            outcome.captions[kind] += len(batch.column(f"{kind}_captions").flatten())
        yield batch


def _repeated(parts: list[Path]) -> set[int]:
    """Return the hashes of ids that occur more than once, using 8 bytes per id; refuse no id."""
    hashes = array("q")
    for part in parts:
        hashes.extend(map(hash, _batch(part).column("id").to_pylist()))
    if not hashes:
        entries = [entry for part in parts for entry in _about(part)["left_out"]]
        reasons = dict(Counter(entry[2] for entry in entries).most_common(3))
        example = f", for example {entries[0][1]}: {entries[0][3]}" if entries else ""
        raise ValueError(
            f"No record gives a clip: {reasons or 'there is no record'}{example}. Correct the"
            " folders or the path template and start again"
        )
    found = np.sort(np.frombuffer(hashes, dtype=np.int64))
    return set(found[1:][found[1:] == found[:-1]].tolist())


def parts_folder(manifest: Path) -> Path:
    """Return the folder of an unfinished manifest's parts."""
    return manifest.with_name(f".{manifest.stem}_parts")


def report_path(manifest: Path) -> Path:
    """Return the path of a manifest's report."""
    return manifest.with_name(f"{manifest.stem}_report.json")
