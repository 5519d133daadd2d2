#!/usr/bin/env python3
"""Prepare CREMA-D: emotion, gender and age of 91 actors, for zero-shot evaluation.

Layout of the official repository, below ``data_folder``: ``AudioWAV/1001_DFA_ANG_XX.wav`` and
``VideoDemographics.csv`` (ActorID, Age, Sex, Race, Ethnicity). A name holds actor, sentence,
emotion and intensity (LO, MD, HI, or XX for none stated).

> python crema_d_prepare.py /path/to/CREMA-D data/crema_d.arrow
"""

import argparse
import csv
import re
from functools import partial
from pathlib import Path
from typing import Any

from speechbrain_clsp.prepare.labelled import find_audio, write_corpus

EMOTIONS = {
    "ANG": "angry",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happy",
    "NEU": "neutral",
    "SAD": "sad",
}
INTENSITIES = {"LO": "low", "MD": "medium", "HI": "high"}
# One name of the release ends in X where all others have XX.
NAME = re.compile(rf"(\d{{4}})_([A-Z]{{3}})_({'|'.join(EMOTIONS)})_(LO|MD|HI|XX|X)")
SILENT = {"1076_MTI_SAD_XX"}  # holds no speech, as the corpus's authors state
DEMOGRAPHICS = "VideoDemographics.csv"
HOW_TO_GET = "clone the official CREMA-D repository with Git LFS, and give its folder"


def prepare_crema_d(data_folder: str, manifest: str, skip_prep: bool = False) -> None:
    """Write the manifest.

    Arguments
    ---------
    data_folder : str
        The repository's folder.
    manifest : str
        The .arrow file to write. Clips have ``gender``, ``labels.emotion``, ``labels.age`` (years)
        and, where it is stated, ``labels.intensity``.
    skip_prep : bool
        If True, do nothing.

    Raises
    ------
    FileNotFoundError
        If there are no clips, or no demographics.
    ValueError
        If the demographics lack a column, or too many clips are bad.
    """
    if skip_prep:
        return
    actors = read_actors(Path(data_folder) / DEMOGRAPHICS)
    files = find_audio(data_folder, "AudioWAV/*.wav", HOW_TO_GET)
    write_corpus(manifest, files, partial(columns_of, actors=actors), "crema_d")


def read_actors(path: Path) -> dict[str, dict[str, str]]:
    r"""Read age and gender of every actor.

    Arguments
    ---------
    path : path
        ``VideoDemographics.csv``.

    Returns
    -------
    dict
        For an actor's number, ``age`` and ``gender``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If columns are missing or a line is no actor's.

    Example
    -------
    >>> path = getfixture("tmp_path") / "VideoDemographics.csv"
    >>> _ = path.write_text("ActorID,Age,Sex,Race,Ethnicity\n1001,51,Male,Caucasian,Not\n")
    >>> read_actors(path)
    {'1001': {'age': '51', 'gender': 'male'}}
    """
    if not path.is_file():
        raise FileNotFoundError(f"No {path}: {HOW_TO_GET}")
    actors = {}
    with open(path, newline="", encoding="utf-8-sig") as file:
        for number, line in enumerate(csv.DictReader(file), start=2):
            line = {str(key).strip(): (value or "").strip() for key, value in line.items()}
            absent = {"ActorID", "Age", "Sex"} - line.keys()
            if absent:
                raise ValueError(f"{path} lacks the columns {sorted(absent)}")
            gender = line["Sex"].lower()
            if not line["Age"].isdigit() or gender not in ("male", "female"):
                raise ValueError(f"{path}, line {number}: Age or Sex cannot be read: {line}")
            actors[line["ActorID"]] = {"age": line["Age"], "gender": gender}
    return actors


def columns_of(path: Path, actors: dict[str, dict[str, str]]) -> dict[str, Any] | None:
    """Return what a file's name and the demographics say, None if it is known to be silent.

    Raises
    ------
    ValueError
        If the name is no CREMA-D name, or the actor is not known.

    Example
    -------
    >>> actors = {"1001": {"age": "51", "gender": "male"}}
    >>> columns_of(Path("1001_DFA_ANG_XX.wav"), actors)["labels"]
    {'emotion': 'angry', 'age': '51'}
    """
    if path.stem in SILENT:
        return None
    match = NAME.fullmatch(path.stem)
    if not match:
        raise ValueError(f"{path}: no CREMA-D name such as 1001_DFA_ANG_XX.wav")
    actor, _, emotion, intensity = match.groups()
    if actor not in actors:
        raise ValueError(f"{path}: actor {actor} is not in {DEMOGRAPHICS}")
    labels = {"emotion": EMOTIONS[emotion], "age": actors[actor]["age"]}
    if intensity in INTENSITIES:
        labels["intensity"] = INTENSITIES[intensity]
    return {
        "speaker": f"crema_d_{actor}",
        "gender": actors[actor]["gender"],
        "labels": labels,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Write a manifest of CREMA-D.",
        epilog="example: python crema_d_prepare.py /path/to/CREMA-D data/crema_d.arrow",
    )
    parser.add_argument("data_folder")
    parser.add_argument("manifest")
    prepare_crema_d(**vars(parser.parse_args()))
