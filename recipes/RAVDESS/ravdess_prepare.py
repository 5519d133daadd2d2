#!/usr/bin/env python3
"""Prepare RAVDESS: emotion and gender of 24 actors, for zero-shot evaluation.

Layout of the official archive ``Audio_Speech_Actors_01-24.zip`` (Zenodo record 1188976), unpacked
anywhere below ``data_folder``: ``Actor_01/03-01-05-01-02-01-01.wav``. A name's numbers are modality
(03 is audio), channel (01 speech, 02 song), emotion, intensity, statement, repetition and actor.

> python ravdess_prepare.py /path/to/RAVDESS data/ravdess
"""

import re
from pathlib import Path
from typing import Any

from speechbrain_clsp.prepare.labelled import find_audio, run_labelled, write_corpus

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fear", "disgust", "surprised")
INTENSITIES = ("normal", "strong")
AUDIO, SPEECH = "03", "01"
NAME = re.compile(r"(\d\d)-(\d\d)-(0[1-8])-(0[12])-(0[12])-(0[12])-(\d\d)")
HOW_TO_GET = "unpack Audio_Speech_Actors_01-24.zip of Zenodo record 1188976 there"


def prepare_ravdess(data_folder: str, save_folder: str, skip_prep: bool = False) -> None:
    """Write ``test.arrow``, the manifest of spoken clips; songs and videos are left out.

    Clips have ``gender``, ``labels.emotion`` and ``labels.intensity``. With ``skip_prep``, nothing
    is done.

    Raises
    ------
    FileNotFoundError
        If there are no clips.
    ValueError
        If too many names or files are bad.
    """
    if skip_prep:
        return
    files = find_audio(data_folder, "**/Actor_*/*.wav", HOW_TO_GET)
    write_corpus(save_folder, files, columns_of, "ravdess")


def columns_of(path: Path) -> dict[str, Any] | None:
    """Return the labels in a file's name, None if it is not speech.

    Example
    -------
    >>> columns_of(Path("Actor_12/03-01-06-02-01-01-12.wav"))["labels"]
    {'emotion': 'fear', 'intensity': 'strong'}
    """
    match = NAME.fullmatch(path.stem)
    if not match:
        raise ValueError(f"{path}: not a RAVDESS name such as 03-01-05-01-02-01-01.wav")
    modality, channel, emotion, intensity, _, _, actor = match.groups()
    if path.parent.name != f"Actor_{actor}":
        raise ValueError(f"{path}: actor {actor} in the folder of another")
    if (modality, channel) != (AUDIO, SPEECH):
        return None
    return {
        "speaker": f"ravdess_{actor}",
        "gender": "female" if int(actor) % 2 == 0 else "male",
        "labels": {
            "emotion": EMOTIONS[int(emotion) - 1],
            "intensity": INTENSITIES[int(intensity) - 1],
        },
    }


if __name__ == "__main__":
    run_labelled(prepare_ravdess, "RAVDESS")
