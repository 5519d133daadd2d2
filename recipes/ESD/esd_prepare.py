#!/usr/bin/env python3
"""Prepare the English part of ESD: emotion and gender of ten speakers, for zero-shot evaluation.

Layout of the release, anywhere below ``data_folder``: ``0011/Angry/0011_000351.wav``, or with the
parts of the release as further folders, ``0011/Angry/test/0011_000371.wav``. Each speaker says the
same 350 sentences in each of five emotions; of these, in the order of their numbers, the first 20
are for validation, the next 30 for testing. Expressive speech retrieval (arXiv 2508.11187) is
evaluated on these 1,500 clips, too. Speakers 0001 to 0010 speak Mandarin and are left out.

> python esd_prepare.py /path/to/ESD data/esd
"""

import re
from pathlib import Path
from typing import Any

from speechbrain_clsp.prepare.labelled import find_audio, run_labelled, write_corpus

EMOTIONS = {
    "Angry": "angry",
    "Happy": "happy",
    "Neutral": "neutral",
    "Sad": "sad",
    "Surprise": "surprised",
}
# As the release's ReadMe states them.
GENDERS = {
    **dict.fromkeys(("0011", "0012", "0013", "0014", "0020"), "male"),
    **dict.fromkeys(("0015", "0016", "0017", "0018", "0019"), "female"),
}
SENTENCES = 350  # of each emotion
TEST = range(20, 50)  # of these
NAME = re.compile(r"(00(?:1[1-9]|20))_(\d{6})")
HOW_TO_GET = "ask for ESD on the page of its authors (HLT Singapore), and unpack it there"


def prepare_esd(data_folder: str, save_folder: str, skip_prep: bool = False) -> None:
    """Write ``test.arrow``, the manifest of the English test clips.

    Clips have ``gender`` and ``labels``: ``emotion``, and ``sentence``, which is the same number
    for the same words. With ``skip_prep``, nothing is done.

    Raises
    ------
    FileNotFoundError
        If there are no clips.
    ValueError
        If too many names or files are bad.

    Example
    -------
    >>> prepare_esd("nowhere", "data/esd", skip_prep=True)
    """
    if skip_prep:
        return
    files = find_audio(data_folder, "**/00[12][0-9]/*/**/00[12][0-9]_*.wav", HOW_TO_GET)
    write_corpus(save_folder, files, columns_of, "esd")


def columns_of(path: Path) -> dict[str, Any] | None:
    """Return the labels of a file, None if it is Mandarin or not in the test part.

    Example
    -------
    >>> columns_of(Path("0015/Angry/0015_000371.wav"))["labels"]
    {'emotion': 'angry', 'sentence': '21'}
    >>> columns_of(Path("0015/Angry/0015_000401.wav")) is None
    True
    """
    match = NAME.fullmatch(path.stem)
    if not match:
        if path.stem.startswith("0010_"):
            return None
        raise ValueError(f"{path}: not an English name of ESD such as 0011_000351.wav")
    speaker, number = match.groups()
    folders = path.parts[:-1]
    if speaker not in folders:
        raise ValueError(f"{path}: speaker {speaker} in the folder of another")
    sentence = (int(number) - 1) % SENTENCES
    if sentence not in TEST:
        return None
    emotions = [EMOTIONS[folder] for folder in folders if folder in EMOTIONS]
    if len(emotions) != 1:
        raise ValueError(f"{path}: is in no folder of an emotion: {', '.join(EMOTIONS)}")
    return {
        "speaker": f"esd_{speaker}",
        "gender": GENDERS[speaker],
        "labels": {"emotion": emotions[0], "sentence": str(sentence + 1)},
    }


if __name__ == "__main__":
    run_labelled(prepare_esd, "ESD")
