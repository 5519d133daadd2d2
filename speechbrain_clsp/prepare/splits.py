"""Preparation of one manifest from published records and local audio.

Shared by the prepare scripts of FCaps and ParaSpeechCaps, with their command lines.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download

from speechbrain_clsp.prepare.assembly import Outcome, assemble, parts_folder, report_path
from speechbrain_clsp.prepare.clip import ClipRecord, Record
from speechbrain_clsp.prepare.corpora import CORPORA, AudioFinder
from speechbrain_clsp.utils.files import parse_key_values
from speechbrain_clsp.utils.reading import read_json

logger = logging.getLogger(__name__)

DRY_RUN_RECORDS = 10_000


@dataclass
class Split:
    """A manifest to prepare.

    Arguments
    ---------
    name : str
        The manifest is ``<name>.arrow``.
    label : str
        Value of its column ``split``.
    records : iterable of Record
        Read once, as a stream.
    to_clip : callable
        Converts a line; must be picklable, and its ``repr`` must tell its settings.
    settings : dict
        What the records depend on; an existing manifest must have been made with equal ones.
    total : int, optional
        Number of records, if known.

    Example
    -------
    >>> from speechbrain_clsp.prepare.clip import parse_line
    >>> def to_clip(line):
    ...     record = parse_line(line)
    ...     return ClipRecord(record, [record["audio"]])
    >>> split = Split("valid", "valid", [Record(1, b'{"audio": "a.wav"}')], to_clip)
    >>> [split.to_clip(record.line).names for record in split.records]
    [['a.wav']]
    """

    name: str
    label: str
    records: Iterable[Record]
    to_clip: Callable[[bytes], ClipRecord]
    settings: dict[str, Any] = field(default_factory=dict)
    total: int | None = None


def _row(
    line: bytes, to_clip: Callable[[bytes], ClipRecord], finder: AudioFinder, label: str
) -> dict[str, Any]:
    """Return the manifest row of a line, or raise ``UnusableClipError``."""
    return {**finder(to_clip(line)), "split": label}


def prepare_split(
    split: Split,
    finder: AudioFinder,
    save_folder: str | os.PathLike,
    n_jobs: int | None = None,
    max_malformed: int = 100,
    dry_run: bool = False,
) -> Outcome | None:
    """Write a manifest, unless it exists, and print its counts.

    Arguments
    ---------
    split : Split
        The manifest.
    finder : AudioFinder
        Locates the audio, which is indexed here.
    save_folder : str or path
        Gets the files of :func:`~speechbrain_clsp.prepare.assembly.assemble` and, in hidden
        folders, the indexes of tar files.
    n_jobs : int, optional
        Number of processes; default: one per core.
    max_malformed : int
        Largest number of malformed lines.
    dry_run : bool
        Write nothing to ``save_folder``: convert the first 10,000 records in a temporary folder.

    Returns
    -------
    Outcome or None
        Its counts; None if it existed.

    Raises
    ------
    ValueError
        If the manifest exists and was made with other settings.
    FileExistsError
        If there is a manifest that was not made here.

    Example
    -------
    >>> import numpy, soundfile
    >>> from speechbrain_clsp.prepare.clip import parse_line
    >>> folder = getfixture("tmp_path")
    >>> soundfile.write(folder / "a.wav", numpy.ones(8000) / 2, 16000)
    >>> def to_clip(line):
    ...     record = parse_line(line)
    ...     return ClipRecord({**record, "start": None}, [record["audio"]])
    >>> record = Record(1, b'{"id": "a", "audio": "a.wav", "duration": 0.5}')
    >>> split = Split("valid", "valid", [record], to_clip)
    >>> finder = AudioFinder(folder, template="{path}")
    >>> outcome = prepare_split(split, finder, folder / "manifests", n_jobs=1)
    valid: 1 clips, 0.0 h, 0 global, 0 fine captions
    >>> outcome.clips
    1
    """
    if dry_run:
        n_records = min(split.total or DRY_RUN_RECORDS, DRY_RUN_RECORDS)
        first = replace(split, records=islice(split.records, n_records), total=n_records)
        with tempfile.TemporaryDirectory() as folder:
            return prepare_split(first, finder, folder, n_jobs, max_malformed)
    manifest = Path(save_folder) / f"{split.name}.arrow"
    settings = {**finder.settings, **split.settings}
    if _is_made(manifest, settings):
        return None
    n_jobs = n_jobs or os.cpu_count() or 1
    finder.index(manifest.parent / ".audio", n_jobs)
    damaged = [problem for index in finder.indexes.values() for problem in index.problems]
    outcome = assemble(
        manifest,
        split.records,
        partial(_row, to_clip=split.to_clip, finder=finder, label=split.label),
        # Without the source file's size: parts made of a truncated download remain valid.
        fingerprint=f"{finder.fingerprint} {split.label} {split.to_clip!r}",
        n_jobs=n_jobs,
        total=split.total,
        max_malformed=max_malformed,
        about={"damaged_in_shards": damaged, "settings": settings},
    )
    _print_outcome(split.name, outcome, damaged)
    return outcome


def _is_made(manifest: Path, settings: dict[str, Any]) -> bool:
    """Return whether a manifest is complete; raise if it was made with other settings."""
    if not manifest.exists():
        return False
    if not report_path(manifest).is_file():
        if parts_folder(manifest).is_dir():  # interrupted before the report was written
            return False
        raise FileExistsError(
            f"{manifest} was not made by this script, or its {report_path(manifest).name} was"
            " deleted: move it away, choose another save_folder, or set skip_prep to use it as it"
            " is"
        )
    found = read_json(report_path(manifest)).get("settings")
    if found is None:
        return False
    if found != settings:
        changed = {k: (found.get(k), v) for k, v in settings.items() if found.get(k) != v}
        raise ValueError(
            f"{manifest} was made with other settings (then, now): {changed}. Delete it to make it"
            " again, choose another save_folder, or set skip_prep to use it as it is"
        )
    logger.info("%s exists", manifest)
    return True


def _print_outcome(name: str, outcome: Outcome, damaged: Sequence[str]) -> None:
    captions = ", ".join(f"{number:,} {kind}" for kind, number in outcome.captions.items())
    print(f"{name}: {outcome.clips:,} clips, {outcome.seconds / 3600:,.1f} h, {captions} captions")
    for reason, number in outcome.left_out.most_common():
        print(f"  left out: {number:,} {reason}")
    if damaged:
        print(f"  damaged in tar files: {len(damaged):,}, e.g. {damaged[0]}")


def check_splits(splits: Iterable[str], known: Iterable[str]) -> None:
    """Raise ValueError if a split is not known."""
    unknown = set(splits) - set(known)
    if unknown:
        raise ValueError(f"splits: unknown {sorted(unknown)}; known: {list(known)}")


def local_file(source: str | os.PathLike, name: str, revision: str | None = None) -> Path:
    """Return a published file, downloaded to the Hub's cache if need be.

    ``source`` is a folder with the file, directly or in ``data/``, or a data set repository of the
    Hub that has it in ``data/``.

    Raises
    ------
    FileNotFoundError
        If there is no such file, or ``source`` is neither a folder nor a repository's name.
    """
    folder = Path(source)
    if folder.is_dir():
        for path in (folder / name, folder / "data" / name):
            if path.is_file():
                return path
        raise FileNotFoundError(f"No {name} in {source}: download it there, or leave out its split")
    check_repository(str(source))
    # Downloaded, not streamed: a stream that breaks off after an hour starts from the beginning.
    return Path(
        hf_hub_download(str(source), f"data/{name}", repo_type="dataset", revision=revision)
    )


def check_repository(source: str) -> None:
    """Raise FileNotFoundError if a source that is not a folder cannot be a Hub repository."""
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise FileNotFoundError(f"{source} is neither a folder nor a Hub repository")


def run_prepare(
    prepare: Callable[..., None], description: str, example: str, splits: Sequence[str]
) -> None:
    """Call a prepare function with the options of the command line; errors exit with code 2.

    What is not given on the command line is left to the function's defaults.
    """
    parser = argparse.ArgumentParser(description=description, epilog=f"example: python {example}")
    parser.add_argument("data_folder", help=f"folder with {', '.join(CORPORA)}")
    parser.add_argument("save_folder", help="where the manifests are written")
    parser.add_argument("--source", help="folder or Hub repository of captions")
    parser.add_argument("--revision", help="of the repository")
    parser.add_argument("--splits", nargs="+", choices=list(splits))
    parser.add_argument("--folder", action="append", default=[], metavar="CORPUS=PATH")
    parser.add_argument("--template", help="path of a clip's file, e.g. '{corpus}/{stem}.flac'")
    parser.add_argument("--check_length", action=argparse.BooleanOptionalAction)
    parser.add_argument("--n_jobs", type=int, help=f"processes; default: {os.cpu_count()}")
    parser.add_argument("--max_malformed", type=int, help="stop at more malformed lines")
    parser.add_argument(
        "--dry_run", action="store_true", help="write nothing, report the first 10,000 records"
    )
    options = {key: value for key, value in vars(parser.parse_args()).items() if value is not None}
    try:
        options["folders"] = parse_key_values(options.pop("folder"), "--folder")
        prepare(**options)
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
