#!/usr/bin/env python3
"""Prepare FCaps: its published captions and the corpora's audio, where it is, to manifests.

Audio is not copied or unpacked. Files: ``<save_folder>/{emilia,pscbase,dev,test}.arrow``, and for
each a report of what could not be matched.
"""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from speechbrain_clsp.prepare.corpora import CORPORA, AudioFinder
from speechbrain_clsp.prepare.cuts import Clip, clip_from_cut, parse_line, read_lines
from speechbrain_clsp.prepare.splits import (
    Split,
    folder_option,
    from_hub_or_folder,
    prepare_splits,
)

REPOSITORY = "yfyeung/FCaps"


class Published(NamedTuple):
    """A file of FCaps."""

    file: str
    clips: int  # as its data card counts
    label: str
    corpora: tuple[str, ...]


OTHERS = ("ears", "expresso", "voxceleb1", "voxceleb2")
SPLITS = {
    "emilia": Published("fcaps-emilia.jsonl.gz", 18_131_371, "train", ("emilia",)),
    "pscbase": Published("fcaps-pscbase-train_base.jsonl.gz", 114_684, "train", OTHERS),
    "dev": Published("fcaps-dev.jsonl.gz", 11_772, "dev", OTHERS),
    "test": Published("fcaps-test.jsonl.gz", 241, "test", OTHERS),
}


@dataclass
class ReadCut:
    """Line of a file of cuts -> clip."""

    text_is_caption: bool

    def __call__(self, line: bytes) -> Clip:
        """Return the clip, or raise ``Unusable``."""
        return clip_from_cut(parse_line(line), self.text_is_caption)


def prepare_fcaps(
    data_folder: str,
    save_folder: str,
    source: str = REPOSITORY,
    splits: Sequence[str] = tuple(SPLITS),
    folders: dict[str, str] | None = None,
    template: str | None = None,
    check_length: bool | None = None,
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
        Folder of the audio: ``Emilia/EN/*.tar``, ``ears``, ``expresso``, ``voxceleb1``,
        ``voxceleb2``; tar files or plain files in any of them.
    save_folder : str
        Where manifests and reports go.
    source : str
        Folder with the published files, or the Hub repository to download them from.
    splits : sequence of str
        Some of emilia, pscbase, dev, test.
    folders : dict of str, optional
        Other places of single corpora, e.g. ``{"emilia": "/disk2/EN"}``.
    template : str, optional
        Path of every clip's file below ``data_folder``, for other layouts, e.g.
        ``"{corpus}/{stem}.flac"``; see :class:`~speechbrain_clsp.prepare.corpora.AudioFinder`.
    check_length : bool, optional
        Open every file and leave out clips that are longer than theirs; default: for all but
        Emilia, whose 18 M files would have to be read.
    revision : str, optional
        Of the Hub repository.
    n_jobs : int, optional
        Processes; default: one per core.
    max_malformed : int
        Malformed lines per file, at most.
    dry_run : bool
        Only tell what would be found, by the first 10,000 lines of each file.
    skip_prep : bool
        If True, do nothing.

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
    unknown = set(splits) - set(SPLITS)
    if unknown:
        raise ValueError(f"splits: unknown {sorted(unknown)}; known: {list(SPLITS)}")
    for name in splits:
        published = SPLITS[name]
        (path,) = from_hub_or_folder(source, [published.file], revision)
        finder = AudioFinder(data_folder, folders, template)
        finder.check_length = name != "emilia" if check_length is None else check_length
        split = Split(
            name,
            partial(read_lines, path),
            ReadCut(text_is_caption=name == "emilia"),
            published.corpora,
            published.label,
            {"file": published.file, "bytes": path.stat().st_size},
            published.clips,
        )
        prepare_splits([split], finder, save_folder, n_jobs, dry_run, max_malformed)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description="Make FCaps' manifests from its captions and the corpora's audio.",
        epilog="example: python fcaps_prepare.py /data/download /data/fcaps --splits pscbase dev"
        " test --folder voxceleb1=/disk2/vox1",
    )
    parser.add_argument("data_folder", help=f"folder with {', '.join(CORPORA)}")
    parser.add_argument("save_folder", help="where the manifests go")
    parser.add_argument("--source", default=REPOSITORY, help="folder or Hub repository of FCaps")
    parser.add_argument("--revision", help="of the repository")
    parser.add_argument("--splits", nargs="+", default=list(SPLITS), choices=list(SPLITS))
    parser.add_argument(
        "--folder", action="append", default=[], metavar="CORPUS=PATH", type=folder_option
    )
    parser.add_argument("--template", help="path of a clip's file, e.g. '{corpus}/{stem}.flac'")
    parser.add_argument("--check_length", action=argparse.BooleanOptionalAction)
    parser.add_argument("--n_jobs", type=int, help=f"processes; default: {os.cpu_count()}")
    parser.add_argument("--max_malformed", type=int, default=100)
    parser.add_argument("--dry_run", action="store_true", help="write nothing, tell what is found")
    options = vars(parser.parse_args())
    options["folders"] = dict(options.pop("folder"))
    try:
        prepare_fcaps(**options)
    except (OSError, ValueError) as error:
        parser.exit(2, f"fcaps_prepare.py: error: {error}\n")


if __name__ == "__main__":
    main()
