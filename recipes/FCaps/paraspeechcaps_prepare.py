#!/usr/bin/env python3
"""Prepare ParaSpeechCaps: its published captions, cleaned, and the corpora's audio, to manifests.

Files: ``<save_folder>/{train_base,train_scaled,dev,holdout,test}.arrow``, and for each a report of
what could not be matched. ``test`` is one clip of holdout per distinct style.
"""

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path, PurePosixPath

import pyarrow.parquet

from speechbrain_clsp.captions.cleanup import clean_caption, repair_accent
from speechbrain_clsp.prepare.assembly import Record
from speechbrain_clsp.prepare.corpora import CORPORA, AudioFinder
from speechbrain_clsp.prepare.cuts import Clip, Unusable, parse_line, read_lines
from speechbrain_clsp.prepare.splits import Split, folder_option, prepare_splits

REPOSITORY = "ajd12342/paraspeechcaps"
SPLITS = {"train_base": 116_516, "train_scaled": 924_651, "dev": 11_967, "holdout": 14_756}
ALL = (*SPLITS, "test")
COLUMNS = (  # the others, such as phonemes, are large
    *("source", "relative_audio_path", "text_description", "intrinsic_tags", "situational_tags"),
    *("speakerid", "name", "duration", "gender", "accent", "pitch", "speaking_rate"),
)
STYLE = ("gender", "accent", "pitch", "speaking_rate")
SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz")


@dataclass
class ReadDescription:
    """Line of ParaSpeechCaps -> clip with clean captions.

    Arguments
    ---------
    split : str
        Part of the ids: ``<split>-<source>-<name of the file>``.
    shortest : int
        Captions of fewer characters are dropped.
    """

    split: str
    shortest: int = 32

    def __call__(self, line: bytes) -> Clip:
        """Return the clip, or raise ``Unusable``."""
        record = parse_line(line)
        path, source = record.get("relative_audio_path"), str(record.get("source") or "").lower()
        if not path:
            raise Unusable("malformed line", "no relative_audio_path")
        parts = PurePosixPath(path).with_suffix("").parts
        depth = 1 if source in ("emilia", "expresso") else CORPORA.get(source, (0, 3))[1]
        name = "-".join([self.split, source, *parts[-depth:]])
        captions = record.get("text_description") or []
        captions = [captions] if isinstance(captions, str) else captions
        accent = record.get("accent")
        captions = [repair_accent(clean_caption(text), accent) for text in captions if text]
        captions = [text for text in dict.fromkeys(captions) if len(text) >= self.shortest]
        if not captions:
            raise Unusable("no caption", "none is left after the clean-up", name)
        duration = record.get("duration")
        row = {"id": name, "audio": path, "start": None, "source": None}
        row["duration"] = None if duration is None else float(duration)
        row["speaker"] = record.get("speakerid") or record.get("name")
        row |= {key: record.get(key) or None for key in STYLE}
        row |= {k: list(record.get(k) or []) for k in ("intrinsic_tags", "situational_tags")}
        row |= {"global_captions": captions, "fine_captions": []}
        return Clip(row, list(dict.fromkeys([f"{source}/{path}", name])))


def read_records(files: Sequence[Path]) -> Iterator[Record]:
    """Yield (number, JSON line) of parquet or JSON lines files, a thousand rows in memory."""
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
                    yield next(numbers), json.dumps(row, ensure_ascii=False).encode()
        else:
            for _, line in read_lines(path):
                yield next(numbers), line


def one_of_each_style(records: Iterator[Record]) -> Iterator[Record]:
    """Yield the first record of every distinct combination of labels and situational tags."""
    seen = set()
    for number, line in records:
        try:
            record = json.loads(line)
            tags = frozenset(record.get("situational_tags") or [])
            style = (*(record.get(key) for key in STYLE), tags)
        except (ValueError, AttributeError, TypeError):
            style = number  # told of as malformed where all lines are read
        if style not in seen:
            seen.add(style)
            yield number, line


def files_of(source: str, split: str, revision: str | None) -> list[Path]:
    """Return a split's local files, after a download if ``source`` is a repository."""
    if not os.path.isdir(source):
        from huggingface_hub import snapshot_download

        if source.count("/") != 1 or source.startswith((".", "/", "~")):
            raise FileNotFoundError(f"{source} is neither a folder nor a Hub repository")
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
    source: str = REPOSITORY,
    splits: Sequence[str] = ("train_base", "dev", "test"),
    folders: dict[str, str] | None = None,
    template: str | None = None,
    check_length: bool = True,
    shortest_caption: int = 32,
    revision: str | None = None,
    n_jobs: int | None = None,
    max_malformed: int = 100,
    dry_run: bool = False,
    skip_prep: bool = False,
) -> None:
    """Write the manifests that are not there yet; after an interruption it goes on.

    Arguments
    ---------
    data_folder : str
        Folder of the audio: ``ears``, ``expresso``, ``voxceleb1``, ``voxceleb2``, ``Emilia/EN``.
    save_folder : str
        Where manifests and reports go.
    source : str
        Folder with ``<split>-*.parquet`` or ``<split>.jsonl``, or a Hub repository.
    splits : sequence of str
        Some of train_base, train_scaled, dev, holdout, and test, which is taken from holdout.
    folders : dict of str, optional
        Other places of single corpora.
    template : str, optional
        Path of every clip's file below ``data_folder``, for other layouts.
    check_length : bool
        Open every file and leave out clips that are longer than theirs.
    shortest_caption : int
        Captions of fewer characters are dropped.
    revision : str, optional
        Of the Hub repository.
    n_jobs : int, optional
        Processes; default: one per core.
    max_malformed : int
        Malformed records per split, at most.
    dry_run : bool
        Only tell what would be found, by the first 10,000 records of each split.
    skip_prep : bool
        If True, do nothing.

    Raises
    ------
    FileNotFoundError, ValueError
        If something is missing or damaged; the message says what to do.
    """
    if skip_prep:
        return
    unknown = set(splits) - set(ALL)
    if unknown:
        raise ValueError(f"splits: unknown {sorted(unknown)}; known: {list(ALL)}")
    for name in splits:
        published = "holdout" if name == "test" else name
        files = files_of(str(source), published, revision)
        records = partial(read_records, files)
        if name == "test":
            records = partial(lambda all_: one_of_each_style(all_()), records)
        label = "train" if name.startswith("train") else name
        settings = {"files": {p.name: p.stat().st_size for p in files}}
        settings["shortest_caption"] = shortest_caption
        finder = AudioFinder(data_folder, folders, template, check_length=check_length)
        reader = ReadDescription(published, shortest_caption)
        corpora = ("emilia",) if name == "train_scaled" else tuple(CORPORA)[1:]
        split = Split(name, records, reader, corpora, label, settings, SPLITS.get(name))
        prepare_splits([split], finder, save_folder, n_jobs, dry_run, max_malformed)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description="Make ParaSpeechCaps' manifests from its captions and the corpora's audio.",
        epilog="example: python paraspeechcaps_prepare.py /data/download /data/psc --splits dev"
        " test --folder voxceleb1=/disk2/vox1",
    )
    parser.add_argument("data_folder", help=f"folder with {', '.join(CORPORA)}")
    parser.add_argument("save_folder", help="where the manifests go")
    parser.add_argument("--source", default=REPOSITORY, help="folder or Hub repository")
    parser.add_argument("--revision", help="of the repository")
    parser.add_argument("--splits", nargs="+", default=["train_base", "dev", "test"], choices=ALL)
    parser.add_argument(
        "--folder", action="append", default=[], metavar="CORPUS=PATH", type=folder_option
    )
    parser.add_argument("--template", help="path of a clip's file, e.g. '{corpus}/{stem}.flac'")
    parser.add_argument("--check_length", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--shortest_caption", type=int, default=32, help="characters")
    parser.add_argument("--n_jobs", type=int, help=f"processes; default: {os.cpu_count()}")
    parser.add_argument("--max_malformed", type=int, default=100)
    parser.add_argument("--dry_run", action="store_true", help="write nothing, tell what is found")
    options = vars(parser.parse_args())
    options["folders"] = dict(options.pop("folder"))
    try:
        prepare_paraspeechcaps(**options)
    except (OSError, ValueError) as error:
        parser.exit(2, f"paraspeechcaps_prepare.py: error: {error}\n")


if __name__ == "__main__":
    main()
