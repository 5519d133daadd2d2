#!/usr/bin/env python3
"""Prepare MiniFCaps: synthetic speech with exactly known style, and captions of it.

Speech comes from libespeak-ng (extra ``mini``), captions from the settings it was made with.
Files: ``<data_folder>/{train,dev,test}.arrow`` and ``<data_folder>/wavs/``.
"""

import argparse
import json
import multiprocessing
import os
from functools import partial
from pathlib import Path

import soundfile
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from speechbrain_clsp.dataio.manifest import write_manifest
from speechbrain_clsp.mini_fcaps.corpus import Clip, manifest_row, plan_clips, render
from speechbrain_clsp.mini_fcaps.synthesis import SAMPLE_RATE

logger = get_logger(__name__)

SPLITS = ("train", "dev", "test")
VERSION = 6  # of what a seed gives


def prepare_mini_fcaps(
    data_folder: str,
    n_train: int = 4000,
    n_dev: int = 300,
    n_test: int = 300,
    seed: int = 1986,
    n_jobs: int | None = None,
    skip_prep: bool = False,
) -> None:
    """Make the clips and write the manifests.

    A second call does nothing; after an interruption it makes what is missing.

    Arguments
    ---------
    data_folder : str
        Where everything goes.
    n_train, n_dev, n_test : int
        Clips per split.
    seed : int
        The same seed and sizes give the same bytes.
    n_jobs : int, optional
        Processes; default: one per core.
    skip_prep : bool
        If True, do nothing.

    Raises
    ------
    ValueError
        If the folder holds a MiniFCaps made with other settings.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> prepare_mini_fcaps(folder, n_train=2, n_dev=1, n_test=1, n_jobs=1)
    >>> sorted(path.name for path in folder.glob("*.arrow"))
    ['dev.arrow', 'test.arrow', 'train.arrow']
    """
    if skip_prep:
        return
    folder = Path(data_folder)
    sizes = {"train": n_train, "dev": n_dev, "test": n_test}
    settings = {"version": VERSION, "seed": seed, **sizes}
    check_settings(folder / "settings.json", settings)
    if all((folder / f"{split}.arrow").is_file() for split in SPLITS):
        logger.info("MiniFCaps is ready in %s", folder)
        return
    clips = plan_clips(sizes, seed)
    for split in SPLITS:
        (folder / "wavs" / split).mkdir(parents=True, exist_ok=True)
    durations = make_clips(clips, folder, n_jobs or os.cpu_count() or 1)
    for split in SPLITS:
        rows = (
            manifest_row(clip, duration, seed)
            for clip, duration in zip(clips, durations)
            if clip.split == split
        )
        count = write_manifest(folder / f"{split}.arrow", rows)
        logger.info("%s: %d clips", split, count)
    logger.info("MiniFCaps: %.2f hours of speech in %s", sum(durations) / 3600, folder)


def check_settings(path: Path, settings: dict) -> None:
    """Record what the folder is made with, or refuse to mix two kinds in it."""
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != settings:
            raise ValueError(
                f"{path.parent} was made with {found}, not {settings}: choose another data_folder,"
                " delete this one, or set skip_prep to use it as it is"
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_suffix(".partial")
    partial_path.write_text(json.dumps(settings), encoding="utf-8")
    os.replace(partial_path, path)


def make_clips(clips: list[Clip], folder: Path, n_jobs: int) -> list[float]:
    """Render every clip that is not there yet; returns all durations in seconds."""
    work = partial(make_clip, folder=folder)
    progress = partial(tqdm, total=len(clips), desc="MiniFCaps", unit="clip")
    if n_jobs == 1:
        return list(progress(map(work, clips)))
    # Spawned, since a forked process would share the state of libespeak-ng and torch.
    with multiprocessing.get_context("spawn").Pool(n_jobs) as pool:
        return list(progress(pool.imap(work, clips, chunksize=16)))


def make_clip(clip: Clip, folder: Path) -> float:
    """Render one clip, unless its file is there; returns its duration in seconds."""
    path = folder / "wavs" / clip.split / f"{clip.id}.wav"
    if path.is_file():  # whole, since it appears by a rename
        return soundfile.info(path).duration
    wav = render(clip)
    partial_path = path.with_suffix(".partial")
    soundfile.write(partial_path, wav, SAMPLE_RATE, subtype="PCM_16", format="WAV")
    os.replace(partial_path, path)
    return len(wav) / SAMPLE_RATE


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Make MiniFCaps, synthetic speech with captions of its style.",
        epilog="example: python mini_fcaps_prepare.py data/mini_fcaps --n_train 4000",
    )
    parser.add_argument("data_folder")
    parser.add_argument("--n_train", type=int, default=4000)
    parser.add_argument("--n_dev", type=int, default=300)
    parser.add_argument("--n_test", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1986)
    parser.add_argument("--n_jobs", type=int, help="processes; default: one per core")
    prepare_mini_fcaps(**vars(parser.parse_args()))
