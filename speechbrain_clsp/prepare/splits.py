"""What the prepare scripts of FCaps and ParaSpeechCaps have in common."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from speechbrain_clsp.prepare.assembly import Outcome, Record, assemble, write_report
from speechbrain_clsp.prepare.corpora import AudioFinder
from speechbrain_clsp.prepare.cuts import Clip

logger = logging.getLogger(__name__)

DRY_RUN_RECORDS = 10_000


@dataclass
class Split:
    """A manifest to be made.

    Arguments
    ---------
    name : str
        The manifest is ``<name>.arrow``.
    records : callable
        () -> iterable of (number, line), read as a stream.
    to_clip : callable
        Line -> :class:`~speechbrain_clsp.prepare.cuts.Clip`; picklable.
    corpora : sequence of str
        Where the audio may be.
    label : str
        What the manifest's column ``split`` says.
    settings : dict
        What the records depend on, to be compared with those of a manifest that is there.
    total : int, optional
        Number of records, if known.
    """

    name: str
    records: Callable[[], Iterable[Record]]
    to_clip: Callable[[bytes], Clip]
    corpora: Sequence[str]
    label: str
    settings: dict[str, Any] = field(default_factory=dict)
    total: int | None = None


@dataclass
class ToRow:
    """Line -> manifest row, as :func:`~speechbrain_clsp.prepare.assembly.assemble` wants it."""

    to_clip: Callable[[bytes], Clip]
    finder: AudioFinder
    label: str

    def __call__(self, line: bytes) -> dict[str, Any]:
        """Return the row, or raise ``Unusable``."""
        return {**self.finder(self.to_clip(line)), "split": self.label}


def prepare_splits(
    splits: Sequence[Split],
    finder: AudioFinder,
    save_folder: str | os.PathLike,
    n_jobs: int | None = None,
    dry_run: bool = False,
    max_malformed: int = 100,
) -> dict[str, Outcome]:
    """Make manifests that are not there yet.

    Arguments
    ---------
    splits : sequence of Split
        Which.
    finder : AudioFinder
        Not yet indexed.
    save_folder : str or path
        Gets ``<name>.arrow``, ``<name>_report.json``, ``<name>_left_out.tsv`` and, hidden, what
        scans of tar files found.
    n_jobs : int, optional
        Processes; default: one per core.
    dry_run : bool
        Write nothing: do the same with the first 10,000 records in a temporary folder.
    max_malformed : int
        Malformed lines per split, at most.

    Returns
    -------
    dict of Outcome
        Of the splits that were made.

    Raises
    ------
    ValueError
        If a manifest is there that was made from something else.
    """
    if dry_run:
        with tempfile.TemporaryDirectory() as folder:
            return _prepare(splits, finder, Path(folder), n_jobs, max_malformed, DRY_RUN_RECORDS)
    return _prepare(splits, finder, Path(save_folder), n_jobs, max_malformed, None)


def _prepare(
    splits: Sequence[Split],
    finder: AudioFinder,
    folder: Path,
    n_jobs: int | None,
    max_malformed: int,
    limit: int | None,
) -> dict[str, Outcome]:
    common = {"root": str(finder.root), "template": finder.template}
    common["folders"] = {name: str(path) for name, path in finder.folders.items()}
    common["check_length"] = finder.check_length
    to_do = [s for s in splits if not _is_made(folder, s.name, {**common, **s.settings})]
    n_jobs = n_jobs or os.cpu_count() or 1
    if to_do:
        finder.index(dict.fromkeys(c for s in to_do for c in s.corpora), folder / ".audio", n_jobs)
    outcomes = {}
    for split in to_do:
        finder.default = list(split.corpora)
        outcomes[split.name] = outcome = assemble(
            folder / f"{split.name}.arrow",
            islice(split.records(), limit),
            ToRow(split.to_clip, finder, split.label),
            # Not the source file's size: parts of a download that was cut off are good.
            fingerprint=f"{finder.fingerprint} {split.corpora} {split.label} {split.to_clip!r}",
            n_jobs=n_jobs,
            total=min(split.total or limit, limit) if limit else split.total,
            max_malformed=max_malformed,
        )
        damaged = [p for index in finder.indexes.values() for p in index.problems]
        report = {**outcome.as_dict(), "damaged_in_shards": damaged}
        report["settings"] = {**common, **split.settings}
        write_report(folder / f"{split.name}_report.json", report)
        tell(split.name, outcome, damaged)
    return outcomes


def _is_made(folder: Path, name: str, settings: dict[str, Any]) -> bool:
    """Tell whether a manifest is there, complete and made with these settings."""
    manifest, report = folder / f"{name}.arrow", folder / f"{name}_report.json"
    if not (manifest.is_file() and report.is_file()):
        return False
    found = json.loads(report.read_text(encoding="utf-8")).get("settings")
    if found is None:  # ended between the two
        return False
    if found != settings:
        changed = {k: (found.get(k), v) for k, v in settings.items() if found.get(k) != v}
        raise ValueError(
            f"{manifest} was made with other settings (then, now): {changed}. Delete it to make it"
            " anew, choose another save_folder, or set skip_prep to use it as it is"
        )
    logger.info("%s is there", manifest)
    return True


def tell(name: str, outcome: Outcome, damaged: Sequence[str] = ()) -> None:
    """Print what became of a split."""
    captions = ", ".join(f"{number:,} {kind}" for kind, number in outcome.captions.items())
    print(f"{name}: {outcome.clips:,} clips, {outcome.seconds / 3600:,.1f} h, {captions} captions")
    for reason, number in outcome.left_out.most_common():
        print(f"  left out: {number:,} {reason}")
    if damaged:
        print(f"  damaged in tar files: {len(damaged):,}, e.g. {damaged[0]}")


def folder_option(text: str) -> tuple[str, str]:
    """Read ``corpus=path`` of a command line."""
    name, sign, path = text.partition("=")
    if not sign:
        raise ValueError(f"{text!r} is not corpus=path")
    return name, path


def from_hub_or_folder(
    source: str | os.PathLike,
    names: Sequence[str],
    revision: str | None = None,
    folder: str = "data",
) -> Iterator[Path]:
    """Yield local files, after a download that a second start goes on with.

    Arguments
    ---------
    source : str or path
        A folder that holds the files, or ``data/`` with them, or a data set's Hub repository.
    names : sequence of str
        File names.
    revision : str, optional
        Of the repository.
    folder : str
        Where the repository keeps them.

    Raises
    ------
    FileNotFoundError
        If one is not there.
    """
    source = str(source)
    for name in names:
        if os.path.isdir(source):
            places = [Path(source) / name, Path(source) / folder / name]
            there = [path for path in places if path.is_file()]
            if not there:
                raise FileNotFoundError(
                    f"No {name} in {source}: download it there, or leave out its split"
                )
            yield there[0]
        elif source.count("/") == 1 and not source.startswith((".", "/", "~")):
            from huggingface_hub import hf_hub_download

            # Kept on disk, since a stream that breaks off after an hour starts from nothing.
            yield Path(
                hf_hub_download(source, f"{folder}/{name}", repo_type="dataset", revision=revision)
            )
        else:
            raise FileNotFoundError(f"{source} is neither a folder nor a Hub repository")
