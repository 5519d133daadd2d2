#!/usr/bin/env python3
"""Prepare IEMOCAP: emotion and gender of ten actors, for zero-shot evaluation.

Layout of ``IEMOCAP_full_release``, which is ``data_folder`` or lies in it:
``Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav``, and the raters' majority in
``Session1/dialog/EmoEvaluation/Ses01F_impro01.txt``, whose lines are
``[6.2901 - 8.2357]<tab>Ses01F_impro01_F000<tab>neu<tab>[2.5000, 2.5000, 2.5000]``.

> python iemocap_prepare.py /path/to/IEMOCAP_full_release data/iemocap
"""

import re
from functools import partial
from pathlib import Path
from typing import Any

from speechbrain_clsp.prepare.labelled import find_audio, run_labelled, write_corpus
from speechbrain_clsp.utils.reading import read_text

LINE = re.compile(
    r"\[[\d.]+ - [\d.]+\]\t(Ses0[1-5][FM]_\w+)\t([a-z]{3})\t\[([\d.]+), ([\d.]+), ([\d.]+)\]"
)
NAME = re.compile(r"Ses0([1-5])[FM]_\w+_([FM])(?:XX)?\d+")
HOW_TO_GET = "ask the corpus's authors for it, and give the folder with Session1 to Session5"


def prepare_iemocap(data_folder: str, save_folder: str, skip_prep: bool = False) -> None:
    """Write ``test.arrow``, the manifest of all five sessions.

    All emotions are kept, as the codes of the corpus (ang, hap, exc, neu, sad, fru, ..., xxx where
    raters did not agree). The prompt file defines which of them are classes. Clips have ``gender``
    and ``labels``: ``emotion``, ``session``, ``style`` (impro or script), and the mean ratings
    ``valence``, ``activation``, ``dominance`` (1-5). With ``skip_prep``, nothing is done.

    Raises
    ------
    FileNotFoundError
        If there are no clips, or a session lacks its labels.
    ValueError
        If a turn has two emotions, or too many clips are bad.
    """
    if skip_prep:
        return
    first_sessions = sorted(Path(data_folder).glob("**/Session1"))
    root = first_sessions[0].parent if first_sessions else Path(data_folder)
    files = find_audio(root, "Session[1-5]/sentences/wav/*/*.wav", HOW_TO_GET)
    sessions = sorted({path.parents[3] for path in files})
    emotions: dict[str, dict[str, str]] = {}
    for session in sessions:
        emotions |= read_emotions(session / "dialog" / "EmoEvaluation")
    write_corpus(save_folder, files, partial(columns_of, emotions=emotions), "iemocap")


def read_emotions(folder: Path) -> dict[str, dict[str, str]]:
    r"""Return emotion, valence, activation and dominance of each turn of a session.

    The folders in ``EmoEvaluation``, with votes of single raters, are not read.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> line = "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]\n"
    >>> _ = (folder / "Ses01F_impro01.txt").write_text("% [START_TIME - END_TIME] ...\n" + line)
    >>> read_emotions(folder)["Ses01F_impro01_F000"]["emotion"]
    'neu'
    """
    names = ("valence", "activation", "dominance")
    emotions: dict[str, dict[str, str]] = {}
    for path in sorted(folder.glob("Ses*.txt")):
        for turn, emotion, *ratings in LINE.findall(read_text(path)):
            labels = {"emotion": emotion, **dict(zip(names, ratings))}
            if emotions.setdefault(turn, labels) != labels:
                raise ValueError(f"{path}: {turn} is {labels} here, {emotions[turn]} before")
    if not emotions:
        raise FileNotFoundError(f"No labels in {folder}: {HOW_TO_GET}")
    return emotions


def columns_of(path: Path, emotions: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Return a turn's labels.

    The speaker's gender is the letter before the turn's number; the first F or M of a name is that
    of the actor who wore the motion-capture markers.

    Example
    -------
    >>> turn = "Ses01F_impro01_M003"
    >>> columns_of(Path(f"{turn}.wav"), {turn: {"emotion": "ang"}})["gender"]
    'male'
    """
    match = NAME.fullmatch(path.stem)
    if not match:
        raise ValueError(f"{path}: not an IEMOCAP name such as Ses01F_impro01_F000.wav")
    if path.stem not in emotions:
        raise ValueError(f"{path}: has no label in EmoEvaluation")
    session, letter = match.groups()
    style = "script" if "_script" in path.stem else "impro"
    return {
        "speaker": f"iemocap_{session}{letter}",
        "gender": {"F": "female", "M": "male"}[letter],
        "labels": {**emotions[path.stem], "session": session, "style": style},
    }


if __name__ == "__main__":
    run_labelled(prepare_iemocap, "IEMOCAP")
