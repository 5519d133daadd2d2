#!/usr/bin/env python3
"""Prepare MiniFCaps: synthetic speech whose style is known exactly, with captions of it.

Speech comes from libespeak-ng (extra ``mini``), captions from the settings it was made with.
Files: ``<data_folder>/wavs/``, ``<save_folder>/{train,valid,test}.arrow``, and for probes
``<save_folder>/probes.arrow`` (the test clips, and twins that differ from one of them in one thing)
and ``<save_folder>/pairs.jsonl`` (minimal pairs).
"""

import argparse
import json
import logging
import os
from functools import partial
from pathlib import Path

import soundfile
from tqdm import tqdm

from speechbrain_clsp.dataio.audio import SAMPLE_RATE, read_header
from speechbrain_clsp.dataio.manifest import write_manifest
from speechbrain_clsp.mini_fcaps.contrasts import plan_contrasts, with_twins
from speechbrain_clsp.mini_fcaps.corpus import PlannedClip, manifest_row, plan_clips, render
from speechbrain_clsp.mini_fcaps.pairs import write_pairs
from speechbrain_clsp.prepare.audio_index import run_all
from speechbrain_clsp.utils.files import atomic_path, atomic_write

logger = logging.getLogger(__name__)

VERSION = 13  # changes whenever a seed gives other files


def prepare_mini_fcaps(
    data_folder: str,
    save_folder: str | None = None,
    skip_prep: bool = False,
    n_train: int = 4000,
    n_valid: int = 300,
    n_test: int = 300,
    twins: bool = True,
    recorded: float = 0.0,
    seed: int = 1986,
    n_jobs: int | None = None,
) -> None:
    """Synthesize the clips and write the manifests.

    A second call does nothing; an interrupted call is resumed. The same seed and sizes give the
    same bytes.

    Arguments
    ---------
    data_folder : str
        Where the speech is written.
    save_folder : str, optional
        Where the manifests are written; default: ``data_folder``, which can then be moved.
    skip_prep : bool
        If True, do nothing.
    n_train, n_valid, n_test : int
        Clips per split.
    twins : bool
        Whether every second training clip differs from the one before it in one thing only.
    recorded : float
        Fraction of training clips in other voices, and as if recorded in rooms, with noise or over
        the telephone, so that a model does not rely on the synthesizer's sound.
    seed : int
        Of all draws.
    n_jobs : int, optional
        Number of processes; default: one per core.

    Raises
    ------
    ValueError
        If the folder holds a MiniFCaps made with other settings.
    FileExistsError
        If it holds files of these names that are not a MiniFCaps.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> prepare_mini_fcaps(folder, n_train=2, n_valid=1, n_test=1, n_jobs=1)
    >>> sorted(path.name for path in folder.glob("*.arrow"))
    ['probes.arrow', 'test.arrow', 'train.arrow', 'valid.arrow']
    """
    if skip_prep:
        return
    folder, save_folder = Path(data_folder), Path(save_folder or data_folder)
    sizes = {"train": n_train, "valid": n_valid, "test": n_test}
    manifests = {split: save_folder / f"{split}.arrow" for split in (*sizes, "probes")}
    pairs_file = save_folder / "pairs.jsonl"
    outputs = [*manifests.values(), pairs_file, folder / "wavs"]
    settings = {"version": VERSION, "seed": seed, "twins": twins, "recorded": recorded, **sizes}
    _check_settings(folder, settings, outputs)
    if all(path.is_file() for path in (*manifests.values(), pairs_file)):
        logger.info("MiniFCaps exists in %s", save_folder)
        return
    clips = plan_clips(sizes, seed, recorded)
    if twins:
        clips = with_twins(clips, seed)
    test_clips = [clip for clip in clips if clip.split == "test"]
    contrasts = plan_contrasts(test_clips, seed)
    probes = {clip.id: clip for contrast in contrasts for clip in contrast.clips}
    clips += [clip for clip in probes.values() if clip.split == "probes"]
    made = run_all(partial(make_clip, folder=folder), clips, n_jobs or os.cpu_count() or 1)
    durations = list(tqdm(made, "MiniFCaps", len(clips), unit="clip"))
    root = "" if save_folder == folder else folder.absolute()
    rows = [manifest_row(clip, duration, seed) for clip, duration in zip(clips, durations)]
    for split, path in manifests.items():
        splits = ("test", "probes") if split == "probes" else (split,)
        chosen = [row for row in rows if row["split"] in splits]
        in_place = [{**row, "audio": os.path.join(root, row["audio"])} for row in chosen]
        logger.info("%s: %d clips", split, write_manifest(path, in_place))
    pairs = write_pairs(test_clips, contrasts, seed)
    atomic_write(pairs_file, "".join(f"{json.dumps(pair)}\n" for pair in pairs))
    logger.info("%d minimal pairs in %s", len(pairs), pairs_file)
    logger.info("MiniFCaps: %.2f hours of speech in %s", sum(durations) / 3600, folder)


def _check_settings(folder: Path, settings: dict, outputs: list[Path]) -> None:
    """Record the settings that a folder is made with; raise if there are others, or files."""
    path = folder / "settings.json"
    if not path.is_file():
        if there := [str(output) for output in outputs if output.exists()]:
            raise FileExistsError(
                f"{', '.join(there)}: there already, without the {path.name} of a MiniFCaps; move"
                " them away, choose other folders, or set skip_prep to use them as they are"
            )
        atomic_write(path, json.dumps(settings))
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FileExistsError(f"{path} is not that of a MiniFCaps ({error})") from error
    if found != settings:
        raise ValueError(
            f"{path.parent} was made with {found}, not {settings}: choose another data_folder,"
            " delete this one, or set skip_prep to use it as it is"
        )


def make_clip(clip: PlannedClip, folder: Path) -> float:
    """Render one clip, unless its file exists; return its duration [s]."""
    path = folder / "wavs" / clip.split / f"{clip.id}.wav"
    if path.is_file():  # complete, since it is written atomically
        return read_header(path).seconds
    wav = render(clip)
    with atomic_path(path) as partial_path:
        soundfile.write(partial_path, wav, SAMPLE_RATE, subtype="PCM_16")
    return len(wav) / SAMPLE_RATE


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Make MiniFCaps, synthetic speech with captions of its style.",
        epilog="example: python mini_fcaps_prepare.py data/mini_fcaps --n_train 4000",
    )
    parser.add_argument("data_folder", help="where the speech is written")
    parser.add_argument("save_folder", nargs="?", help="of the manifests; default: data_folder")
    parser.add_argument("--n_train", type=int, default=4000)
    parser.add_argument("--n_valid", type=int, default=300)
    parser.add_argument("--n_test", type=int, default=300)
    parser.add_argument(
        "--no_twins",
        dest="twins",
        action="store_false",
        help="draw every training clip by itself, instead of every second as a twin",
    )
    parser.add_argument("--recorded", type=float, default=0.0, help="fraction of training clips")
    parser.add_argument("--seed", type=int, default=1986)
    parser.add_argument("--n_jobs", type=int, help="processes; default: one per core")
    prepare_mini_fcaps(**vars(parser.parse_args()))
