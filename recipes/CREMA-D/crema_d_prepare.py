#!/usr/bin/env python3
"""Prepare CREMA-D: emotion, gender and age of 91 actors, for zero-shot evaluation.

Layout of the official repository, below ``data_folder``: ``AudioWAV/1001_DFA_ANG_XX.wav`` and
``VideoDemographics.csv`` (ActorID, Age, Sex, Race, Ethnicity). A name holds actor, sentence,
emotion and intensity (LO, MD, HI, or XX for none stated).

> python crema_d_prepare.py /path/to/CREMA-D data/crema_d
"""

import io
import re
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from speechbrain_clsp.prepare.labelled import find_audio, run_labelled, write_corpus
from speechbrain_clsp.utils.reading import read_text

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


def prepare_crema_d(data_folder: str, save_folder: str, skip_prep: bool = False) -> None:
    """Write ``test.arrow``, the manifest of all clips.

    Clips have ``gender``, ``labels.emotion``, ``labels.age`` (years) and, where it is stated,
    ``labels.intensity``. With ``skip_prep``, nothing is done.

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
    write_corpus(save_folder, files, partial(columns_of, actors=actors), "crema_d")


def read_actors(path: Path) -> dict[str, dict[str, str]]:
    r"""Return age and gender by an actor's number, from ``VideoDemographics.csv``.

    Example
    -------
    >>> path = getfixture("tmp_path") / "VideoDemographics.csv"
    >>> _ = path.write_text("ActorID,Age,Sex,Race,Ethnicity\n1001,51,Male,Caucasian,Not\n")
    >>> read_actors(path)
    {'1001': {'age': '51', 'gender': 'male'}}
    """
    if not path.is_file():
        raise FileNotFoundError(f"No {path}: {HOW_TO_GET}")
    table = pd.read_csv(io.StringIO(read_text(path)), dtype=str, keep_default_na=False)
    table = table.rename(columns=str.strip)
    absent = {"ActorID", "Age", "Sex"} - set(table.columns)
    if absent:
        raise ValueError(f"{path} lacks the columns {sorted(absent)}")
    table = table[["ActorID", "Age", "Sex"]].apply(lambda column: column.str.strip())
    table["Sex"] = table["Sex"].str.lower()
    bad = table[~(table["Age"].str.isdigit() & table["Sex"].isin(["male", "female"]))]
    if not bad.empty:
        line = bad.index[0] + 2
        raise ValueError(f"{path}, line {line}: Age or Sex is not valid: {bad.iloc[0].to_dict()}")
    return {actor: {"age": age, "gender": sex} for actor, age, sex in table.itertuples(index=False)}


def columns_of(path: Path, actors: dict[str, dict[str, str]]) -> dict[str, Any] | None:
    """Return the labels of a file, None if it is known to be silent.

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
        raise ValueError(f"{path}: not a CREMA-D name such as 1001_DFA_ANG_XX.wav")
    actor, _, emotion, intensity = match.groups()
    if actor not in actors:
        raise ValueError(f"{path}: actor {actor} is not in {DEMOGRAPHICS}")
    labels = {"emotion": EMOTIONS[emotion], "age": actors[actor]["age"]}
    if intensity in INTENSITIES:
        labels["intensity"] = INTENSITIES[intensity]
    gender = actors[actor]["gender"]
    return {"speaker": f"crema_d_{actor}", "gender": gender, "labels": labels}


if __name__ == "__main__":
    run_labelled(prepare_crema_d, "CREMA-D")
