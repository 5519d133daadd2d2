"""A corpus from what annotation kept: cuts in the form of FCaps, a manifest, and a datasheet."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from speechbrain_clsp.annotation.datasheet import Datasheet
from speechbrain_clsp.annotation.records import read_places, row_of
from speechbrain_clsp.annotation.stages import STAGES
from speechbrain_clsp.dataio.manifest import Manifest, write_manifest
from speechbrain_clsp.prepare.cuts import write_cuts

CUTS, MANIFEST = "captions.jsonl.gz", "manifest.arrow"


def shard_files(folder: str | os.PathLike, stage: str) -> list[Path]:
    """Return the files of a stage's records: one, or one per shard.

    Raises
    ------
    ValueError
        If there is none, or shards are missing; names them.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "select.0-of-2.jsonl").touch()
    >>> shard_files(folder, "select")
    Traceback (most recent call last):
    ValueError: select: missing select.1-of-2.jsonl; run these shards first
    """
    folder = Path(folder)
    names = {p.name for p in folder.glob(f"{stage}.*-of-*.jsonl") if p.name.count(".") == 2}
    if (folder / f"{stage}.jsonl").is_file():
        if names:
            raise ValueError(
                f"{folder} has {stage}.jsonl and shards of it: remove one or the other"
            )
        return [folder / f"{stage}.jsonl"]
    counts = sorted({name.split(".")[1].split("-of-")[1] for name in names})
    if len(counts) != 1:
        found = f"shards of {' and '.join(counts)}" if counts else "no records"
        raise ValueError(f"{stage}: {found} in {folder}; run clsp annotate --stage {stage}")
    wanted = [f"{stage}.{number}-of-{counts[0]}.jsonl" for number in range(int(counts[0]))]
    missing = [name for name in wanted if name not in names]
    if missing:
        raise ValueError(f"{stage}: missing {', '.join(missing[:5])}; run these shards first")
    return [folder / name for name in wanted]


class SortedRecords:
    """The records of some files in the order of the manifest's rows, read when they are needed.

    Of a record only its place is in memory, 24 bytes.

    Raises
    ------
    ValueError
        If a row has two records.
    """

    def __init__(self, paths: Sequence[str | os.PathLike]) -> None:
        self.paths = paths
        places = [
            (record["row"], number, start)
            for number, path in enumerate(paths)
            for record, start, _ in read_places(path)
        ]
        self._places_of_rows = np.array(sorted(places), dtype=np.int64).reshape(-1, 3)
        rows = self._places_of_rows[:, 0]
        twice = rows[1:][rows[1:] == rows[:-1]]
        if len(twice):
            raise ValueError(
                f"Row {twice[0]} of the manifest has two records in {paths[0]}: an earlier"
                " stage was run anew; delete the files of the stages after it and run them again"
            )

    def __len__(self) -> int:
        return len(self._places_of_rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with ExitStack() as stack:
            files = [stack.enter_context(open(path, "rb")) for path in self.paths]
            for _, number, offset in self._places_of_rows.tolist():
                files[number].seek(offset)
                yield json.loads(files[number].readline())


def released_rows(records: SortedRecords, manifest: Manifest) -> Iterator[dict[str, Any]]:
    """Yield the manifest's rows with the captions that were kept as fine captions.

    Clips that lost all captions are left out; global captions stay as they are.
    """
    for record in records:
        if record["captions"]:
            yield {**row_of(record, manifest), "fine_captions": record["captions"]}


def write_release(
    annotated: str | os.PathLike, manifest: Manifest, folder: str | os.PathLike
) -> dict[str, Any]:
    """Write a release of a folder of records; the same records give the same bytes.

    Arguments
    ---------
    annotated : str or path
        Folder of records.
    manifest : Manifest
        What was annotated.
    folder : str or path
        Gets ``captions.jsonl.gz`` (a lhotse ``MonoCut`` per line, as FCaps has them),
        ``manifest.arrow`` (to train on), ``datasheet.md``, ``.json`` and ``.html``.

    Returns
    -------
    dict
        The datasheet's statistics.

    Raises
    ------
    ValueError
        If a stage has not run, shards are missing, or nothing was kept.

    Example
    -------
    >>> from speechbrain_clsp.annotation.records import Records
    >>> folder = getfixture("tmp_path")
    >>> _ = write_manifest(folder / "m.arrow", [{"id": "a", "audio": "a.wav", "duration": 1.0}])
    >>> record = {"key": "1", "id": "a", "row": 0, "captions": ["Softly."], "dropped": []}
    >>> for stage in STAGES:
    ...     with Records(folder / "records" / f"{stage}.jsonl") as records:
    ...         _ = records.append(record)
    >>> _ = write_release(folder / "records", Manifest(folder / "m.arrow"), folder / "release")
    >>> Manifest(folder / "release" / MANIFEST)[0]["fine_captions"]
    ['Softly.']
    """
    folder = Path(folder)
    records = SortedRecords(shard_files(annotated, STAGES[-1]))
    sheet = Datasheet()
    for row in released_rows(records, manifest):
        sheet.add(row)
    if not sheet.per_clip:
        raise ValueError(f"{annotated}: no caption was kept; see the rules in its records")
    for stage in STAGES:
        for path in shard_files(annotated, stage):
            sheet.add_records(stage, path)
    folder.mkdir(parents=True, exist_ok=True)
    write_cuts(folder / CUTS, released_rows(records, manifest), read_headers=False)
    write_manifest(folder / MANIFEST, released_rows(records, manifest))
    return sheet.write(folder)
