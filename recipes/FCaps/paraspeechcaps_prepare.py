#!/usr/bin/env python3
"""Prepare ParaSpeechCaps: manifests from its published captions, cleaned, and the corpora's audio.

Files: ``<save_folder>/{train_base,train_scaled,valid,holdout,test}.arrow``, for each a report of
what could not be matched. ``test`` is one clip of holdout per distinct style.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pyarrow
import pyarrow.parquet
from huggingface_hub import snapshot_download

from speechbrain_clsp.captions.cleanup import clean_caption, repair_accent
from speechbrain_clsp.prepare.clip import (
    MALFORMED,
    ClipRecord,
    Record,
    UnusableClipError,
    parse_line,
    read_lines,
)
from speechbrain_clsp.prepare.corpora import CORPORA, AudioFinder
from speechbrain_clsp.prepare.splits import (
    Split,
    check_repository,
    check_splits,
    prepare_split,
    run_prepare,
)

REPOSITORY = "ajd12342/paraspeechcaps"


class PublishedSplit(NamedTuple):
    """A split of ParaSpeechCaps."""

    name: str  # as published; part of the ids
    label: str
    clips: int | None = None
    corpora: tuple[str, ...] = ("ears", "expresso", "voxceleb1", "voxceleb2")


SPLITS = {
    "train_base": PublishedSplit("train_base", "train", 116_516),
    "train_scaled": PublishedSplit("train_scaled", "train", 924_651, ("emilia",)),
    "valid": PublishedSplit("dev", "valid", 11_967),
    "holdout": PublishedSplit("holdout", "holdout", 14_756),
    "test": PublishedSplit("holdout", "test"),
}
DEFAULT_SPLITS = ("train_base", "valid", "test")
COLUMNS = (  # the others, such as phonemes, are large
    *("source", "relative_audio_path", "text_description", "intrinsic_tags", "situational_tags"),
    *("speakerid", "name", "duration", "gender", "accent", "pitch", "speaking_rate"),
)
STYLE = ("gender", "accent", "pitch", "speaking_rate")
SHORTEST_CAPTION = 32  # characters; captions of fewer are dropped
SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz")


@dataclass
class ReadDescription:
    """Conversion of a line of ParaSpeechCaps to a record with clean captions."""

    split: str  # part of the ids: ``<split>-<source>-<name of the file>``

    def __call__(self, line: bytes) -> ClipRecord:
        """Return the record, or raise ``UnusableClipError``."""
        record = parse_line(line)
        path, source = record.get("relative_audio_path"), str(record.get("source") or "").lower()
        if not path:
            raise UnusableClipError(MALFORMED, "no relative_audio_path")
        name = self._id_of(source, path)
        captions = record.get("text_description") or []
        captions = [captions] if isinstance(captions, str) else captions
        accent = record.get("accent")
        captions = [repair_accent(clean_caption(text), accent) for text in captions if text]
        captions = [text for text in dict.fromkeys(captions) if len(text) >= SHORTEST_CAPTION]
        if not captions:
            raise UnusableClipError("no caption", "none is left after the cleanup", name)
        duration = record.get("duration")
        row = {
            "id": name,
            "audio": path,
            "start": None,
            "duration": None if duration is None else float(duration),
            "source": None,
            "speaker": record.get("speakerid") or record.get("name"),
            "intrinsic_tags": list(record.get("intrinsic_tags") or []),
            "situational_tags": list(record.get("situational_tags") or []),
            "global_captions": captions,
            "fine_captions": [],
            **{key: record.get(key) or None for key in STYLE},
        }
        return ClipRecord(row, list(dict.fromkeys([f"{source}/{path}", name])))

    def _id_of(self, source: str, path: str) -> str:
        """Return an id with as many parts of the path as identify a clip."""
        parts = PurePosixPath(path).with_suffix("").parts
        # "voxceleb" stands for voxceleb1 and voxceleb2.
        depth = CORPORA[source].depth if source in CORPORA else CORPORA["voxceleb1"].depth
        return "-".join([self.split, source, *parts[-depth:]])


def read_records(files: Sequence[Path]) -> Iterator[Record]:
    """Stream parquet or JSON lines files as JSON lines; a thousand rows are in memory."""
    numbers = count(1)
    for path in files:
        if path.suffix == ".parquet":
            try:
                table = pyarrow.parquet.ParquetFile(path)
            except pyarrow.ArrowInvalid as error:
                raise ValueError(f"{path} is damaged ({error}): download it again") from error
            columns = [name for name in COLUMNS if name in table.schema_arrow.names]
            for batch in table.iter_batches(batch_size=1024, columns=columns):
                for row in batch.to_pylist():
                    yield Record(next(numbers), json.dumps(row, ensure_ascii=False).encode())
        else:
            for record in read_lines(path):
                yield Record(next(numbers), record.line)


def one_of_each_style(records: Iterable[Record]) -> Iterator[Record]:
    """Yield the first record of every distinct combination of labels and situational tags."""
    seen = set()
    for record in records:
        try:
            values = json.loads(record.line)
            tags = frozenset(values.get("situational_tags") or [])
            style = (*(values.get(key) for key in STYLE), tags)
        except (ValueError, AttributeError, TypeError):
            style = record.number  # yielded, to be counted as malformed
        if style not in seen:
            seen.add(style)
            yield record


def files_of(source: str, split: str, revision: str | None) -> list[Path]:
    """Return a split's local files, downloaded if ``source`` is a repository."""
    if not Path(source).is_dir():
        check_repository(source)
        patterns = [f"**{split}-*", f"**{split}.*", f"**{split}/*"]
        source = snapshot_download(
            source, repo_type="dataset", revision=revision, allow_patterns=patterns
        )
    starts = (f"{split}-", f"{split}.")
    files = [path for path in sorted(Path(source).rglob("*")) if path.name.endswith(SUFFIXES)]
    found = [p for p in files if p.name.startswith(starts) or p.parent.name == split]
    if not found:
        raise FileNotFoundError(
            f"No {split}-*.parquet or {split}.jsonl in {source}: download it there, or leave out"
            " its split"
        )
    return found


def prepare_paraspeechcaps(
    data_folder: str,
    save_folder: str,
    skip_prep: bool = False,
    source: str = REPOSITORY,
    splits: Sequence[str] = DEFAULT_SPLITS,
    folders: dict[str, str] | None = None,
    template: str | None = None,
    check_length: bool = True,
    revision: str | None = None,
    n_jobs: int | None = None,
    max_malformed: int = 100,
    dry_run: bool = False,
) -> None:
    """Write the manifests that do not exist yet; an interrupted call is resumed.

    The other arguments and errors are those of ``prepare_fcaps`` in ``fcaps_prepare.py``.

    Arguments
    ---------
    source : str
        Folder with ``<split>-*.parquet`` or ``<split>.jsonl``, or a Hub repository.
    splits : sequence of str
        Some of train_base, train_scaled, valid (published as dev), holdout, and test, which is
        taken from holdout.
    check_length : bool
        Open every file and leave out clips that end after it.
    """
    if skip_prep:
        return
    check_splits(splits, SPLITS)
    for name in splits:
        published = SPLITS[name]
        files = files_of(str(source), published.name, revision)
        records = read_records(files)
        sizes = {path.name: path.stat().st_size for path in files}
        split = Split(
            name,
            published.label,
            one_of_each_style(records) if name == "test" else records,
            ReadDescription(published.name),
            settings={"files": sizes},
            total=published.clips,
        )
        finder = AudioFinder(data_folder, folders, template, published.corpora, check_length)
        prepare_split(split, finder, save_folder, n_jobs, max_malformed, dry_run)


if __name__ == "__main__":
    run_prepare(
        prepare_paraspeechcaps,
        "Make ParaSpeechCaps' manifests from its captions and the corpora's audio.",
        "paraspeechcaps_prepare.py /data/download /data/psc --splits valid test"
        " --folder voxceleb1=/disk2/vox1",
        tuple(SPLITS),
    )
