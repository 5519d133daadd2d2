#!/usr/bin/env python3
"""Prepare VoxSim: how alike the voices of two clips of VoxCeleb1 sound to people.

``data_folder`` holds VoxCeleb1 in any layout that ends in ``id10982/Arfpvkafpag/00010.wav``, and
the test list of the release, ``voxsim_test_list.txt``. Its lines are two clips, whether they are of
one speaker, an empty field, and the mean rating from 1 to 6: ``<clip>,<clip>,0,,2.0``.

> python voxsim_prepare.py /path/to/voxceleb1 data/voxsim
"""

import logging
import re
from pathlib import Path
from tempfile import TemporaryDirectory

from speechbrain_clsp.prepare.audio_index import AudioIndex, build_index
from speechbrain_clsp.prepare.labelled import MAX_BAD_CLIPS, run_labelled
from speechbrain_clsp.ratings.table import write_lines
from speechbrain_clsp.utils.checks import BadEntriesError
from speechbrain_clsp.utils.reading import read_text

logger = logging.getLogger(__name__)
LIST = "voxsim_test_list.txt"
HOW_TO_GET = "download VoxCeleb1, and put the list of the release of VoxSim beside it"
SPEAKERS = {"1": "same speaker", "0": "different speakers"}
CLIP = r"(id1\d{4}/[\w-]{11}/\d{5})\.wav"
LINE = re.compile(rf"{CLIP},{CLIP},([01]),[^,]*,([1-6](?:\.\d+)?)")
DEPTH = 3  # parts of a path that name a clip of VoxCeleb


def prepare_voxsim(data_folder: str, save_folder: str, skip_prep: bool = False) -> None:
    """Write ``test.csv``, a table of pairs for the suite ``speech-similarity``.

    Its columns are ``first``, ``second`` (paths), ``category`` (of one speaker, or of different
    ones) and ``rating``. With ``skip_prep``, nothing is done.

    Raises
    ------
    FileNotFoundError
        If the list is not there.
    ValueError
        If a line of it is not of this form, or too many clips are absent.

    Example
    -------
    >>> prepare_voxsim("nowhere", "data/voxsim", skip_prep=True)
    """
    if skip_prep:
        return
    path = Path(data_folder) / LIST
    if not path.is_file():
        raise FileNotFoundError(f"No {path}: {HOW_TO_GET}")
    lines = enumerate(read_text(path).splitlines(), start=1)
    pairs = [parse_line(line, f"{path}, line {n}") for n, line in lines if line.strip()]
    with TemporaryDirectory() as folder:
        index = build_index(data_folder, DEPTH, Path(folder))
        clips = dict.fromkeys(clip for pair in pairs for clip in pair[:2])
        files = {clip: find_clip(clip, index) for clip in clips}
    absent = [clip for clip, file in files.items() if file is None]
    known = [pair for pair in pairs if files[pair[0]] and files[pair[1]]]
    if not known or len(absent) > MAX_BAD_CLIPS:
        reason = f"{data_folder}: {len(absent)} of {len(files)} clips are absent: {HOW_TO_GET}"
        raise BadEntriesError(reason, absent)
    if absent:
        logger.warning("voxsim: %d pairs left out: no %s", len(pairs) - len(known), absent)
    rows = [(files[first], files[second], *rest) for first, second, *rest in known]
    table = Path(save_folder) / "test.csv"
    write_lines(table, [("first", "second", "category", "rating"), *rows])
    logger.info("voxsim: %d pairs in %s", len(known), table)


def parse_line(line: str, where: str) -> tuple[str, str, str, str]:
    """Return the clips, the category and the rating of a line.

    Example
    -------
    >>> parse_line("id10982/Arfpvkafpag/00010.wav,id11244/baXSnp3NMjs/00012.wav,0,,2.0", "line 1")
    ('id10982/Arfpvkafpag/00010', 'id11244/baXSnp3NMjs/00012', 'different speakers', '2.0')
    """
    match = LINE.fullmatch(line.strip())
    if not match:
        raise ValueError(f"{where}: {line!r} is not of the form <clip>,<clip>,0,,2.0")
    first, second, same, rating = match.groups()
    return first, second, SPEAKERS[same], rating


def find_clip(name: str, index: AudioIndex) -> str | None:
    """Return a clip's file, None if there is none, or it is in a tar file.

    Raises
    ------
    ValueError
        If the clip is there twice.
    """
    try:
        place = index.find(name)
    except LookupError as error:
        raise ValueError(f"{name} is {error}: keep one of them") from error
    return str(Path(place.audio).resolve()) if place and place.offset is None else None


if __name__ == "__main__":
    run_labelled(prepare_voxsim, "VoxSim")
