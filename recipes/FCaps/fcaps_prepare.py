#!/usr/bin/env python3
"""Prepare FCaps: manifests from its published captions and local copies of the corpora's audio.

Audio is neither copied nor unpacked. Files: ``<save_folder>/{emilia,pscbase,valid,test}.arrow`` and
for each a report of what could not be matched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from speechbrain_clsp.prepare.clip import ClipRecord, parse_line, read_lines
from speechbrain_clsp.prepare.corpora import AudioFinder
from speechbrain_clsp.prepare.cuts import clip_from_cut
from speechbrain_clsp.prepare.splits import (
    Split,
    check_splits,
    local_file,
    prepare_split,
    run_prepare,
)

REPOSITORY = "yfyeung/FCaps"


class PublishedFile(NamedTuple):
    """A file of FCaps."""

    name: str
    clips: int  # according to its data card
    label: str
    corpora: tuple[str, ...]


PSC_BASE = ("ears", "expresso", "voxceleb1", "voxceleb2")
SPLITS = {
    "emilia": PublishedFile("fcaps-emilia.jsonl.gz", 18_131_371, "train", ("emilia",)),
    "pscbase": PublishedFile("fcaps-pscbase-train_base.jsonl.gz", 114_684, "train", PSC_BASE),
    "valid": PublishedFile("fcaps-dev.jsonl.gz", 11_772, "valid", PSC_BASE),
    "test": PublishedFile("fcaps-test.jsonl.gz", 241, "test", PSC_BASE),
}


@dataclass
class ReadCut:
    """Conversion of a line of a file of cuts to a record."""

    text_is_caption: bool

    def __call__(self, line: bytes) -> ClipRecord:
        """Return the record, or raise ``UnusableClipError``."""
        return clip_from_cut(parse_line(line), self.text_is_caption)


def prepare_fcaps(
    data_folder: str,
    save_folder: str,
    skip_prep: bool = False,
    source: str = REPOSITORY,
    splits: Sequence[str] = tuple(SPLITS),
    folders: dict[str, str] | None = None,
    template: str | None = None,
    check_length: bool | None = None,
    revision: str | None = None,
    n_jobs: int | None = None,
    max_malformed: int = 100,
    dry_run: bool = False,
) -> None:
    """Write the manifests that do not exist yet; an interrupted call is resumed.

    Arguments
    ---------
    data_folder, save_folder : str
        Folder of the audio (``Emilia/EN/*.tar``, ``ears``, ``expresso``, ``voxceleb1``,
        ``voxceleb2``; tar files or plain files in any of them), and of manifests and reports.
    skip_prep : bool
        If True, do nothing.
    source, revision : str
        Folder with the published files, or the Hub repository to download them from.
    splits : sequence of str
        Some of emilia, pscbase, valid, test.
    folders : dict of str, optional
        Other places of single corpora, e.g. ``{"emilia": "/disk2/EN"}``.
    template : str, optional
        Path of every clip's file below ``data_folder``, for other layouts, e.g.
        ``"{corpus}/{stem}.flac"``; see :class:`~speechbrain_clsp.prepare.corpora.AudioFinder`.
    check_length : bool, optional
        Open every file and leave out clips that end after it; default: for all but Emilia, whose
        18 M files would have to be read.
    n_jobs, max_malformed, dry_run
        As for :func:`~speechbrain_clsp.prepare.splits.prepare_split`.

    Raises
    ------
    FileNotFoundError
        If captions or all audio folders are missing.
    ValueError
        If a published file is damaged, no clip is found, or a manifest was made with other
        settings. The message says what to do.
    """
    if skip_prep:
        return
    check_splits(splits, SPLITS)
    for name in splits:
        published = SPLITS[name]
        path = local_file(source, published.name, revision)
        check = name != "emilia" if check_length is None else check_length
        finder = AudioFinder(data_folder, folders, template, published.corpora, check)
        split = Split(
            name,
            published.label,
            read_lines(path),
            ReadCut(text_is_caption=name == "emilia"),
            settings={"file": published.name, "bytes": path.stat().st_size},
            total=published.clips,
        )
        prepare_split(split, finder, save_folder, n_jobs, max_malformed, dry_run)


if __name__ == "__main__":
    run_prepare(
        prepare_fcaps,
        "Make FCaps' manifests from its captions and the corpora's audio.",
        "fcaps_prepare.py /data/download /data/fcaps --splits pscbase valid test"
        " --folder voxceleb1=/disk2/vox1",
        tuple(SPLITS),
    )
