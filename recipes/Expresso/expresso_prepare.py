#!/usr/bin/env python3
"""Prepare the test part of Expresso: speaking styles of four speakers, for zero-shot evaluation.

Layout of the release, ``data_folder`` or one folder below it:

- ``splits/test.txt``: a line for each recording, ``ex03_sad_00012``, or of which only a part is
  for testing, ``ex01-ex02_happy_001<TAB>(60.0s,)``; lines that start with ``#`` are comments.
- ``VAD_segments.txt``: where there is speech, in seconds,
  ``ex01-ex02_happy_001/channel1<TAB>(23.88, 28.14) (55.12, 61.83)``.
- ``audio_48khz/read/ex03/sad/base/ex03_sad_00012.wav``, one sentence each.
- ``audio_48khz/conversational/ex01-ex02/happy/ex01-ex02_happy_001.wav``, a speaker per channel. A
  folder such as ``animal-animaldir`` names the style of either.

> python expresso_prepare.py /path/to/expresso data/expresso
"""

import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speechbrain_clsp.dataio.audio import read_header
from speechbrain_clsp.prepare.labelled import (
    MAX_BAD_CLIPS,
    find_audio,
    run_labelled,
    write_corpus,
)
from speechbrain_clsp.utils.reading import read_text

logger = logging.getLogger(__name__)
SHORTEST, LONGEST = 0.5, 15.0  # seconds of a turn; a longer one is cut into equal clips
NUMBER = r"\d+(?:\.\d+)?"
PART = re.compile(rf"\(\s*({NUMBER})?s?\s*,\s*({NUMBER})?s?\s*\)")
TURN = re.compile(rf"\(\s*({NUMBER})\s*,\s*({NUMBER})\s*\)")
NAME = re.compile(r"(ex\d\d)(?:-(ex\d\d))?_([a-z-]+)_(?:[a-z]+_)?\d+", re.I)
HOW_TO_GET = "download the release from the page of its authors (Meta), and unpack it there"

Span = tuple[float, float]  # seconds


def prepare_expresso(data_folder: str, save_folder: str, skip_prep: bool = False) -> None:
    """Write ``test.arrow``, the manifest of sentences and of turns of conversations.

    Sentences have the label ``read_style``, turns ``conversation_style``. With ``skip_prep``,
    nothing is done.

    Raises
    ------
    FileNotFoundError
        If there are no lists or no recordings.
    ValueError
        If lists are not of this form, recordings are missing, or too many are bad.

    Example
    -------
    >>> prepare_expresso("nowhere", "data/expresso", skip_prep=True)
    """
    if skip_prep:
        return
    root = find_root(Path(data_folder))
    parts = read_parts(root / "splits" / "test.txt")
    turns = read_turns(root / "VAD_segments.txt")
    files = find_audio(root, "audio_48khz/*/ex0*/**/ex0*.wav", HOW_TO_GET)
    missing = sorted(parts.keys() - {file.stem for file in files})
    if missing:
        reason = f"{root / 'audio_48khz'} lacks {len(missing)} recordings, such as {missing[0]}"
        if len(missing) > MAX_BAD_CLIPS:
            raise FileNotFoundError(f"{reason}: {HOW_TO_GET}")
        logger.warning("%s: they are left out", reason)
    wanted = [file for file in files if file.stem in parts]
    write_corpus(save_folder, wanted, lambda path: columns_of(path, parts, turns), "expresso")


def find_root(folder: Path) -> Path:
    """Return the folder that has the release's ``splits``: this one or one below.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "expresso" / "splits").mkdir(parents=True)
    >>> find_root(folder).name
    'expresso'
    """
    for each in (folder, *sorted(folder.glob("*/"))):
        if (each / "splits").is_dir():
            return each
    raise FileNotFoundError(f"No folder splits in {folder} or one below it: {HOW_TO_GET}")


def read_parts(path: Path) -> dict[str, Span | None]:
    r"""Read the part of each recording that a split has; None for all of it.

    Example
    -------
    >>> path = getfixture("tmp_path") / "test.txt"
    >>> _ = path.write_text("# names\nex03_sad_00012\nex01-ex02_happy_001\t(60.0s,)\n")
    >>> read_parts(path)
    {'ex03_sad_00012': None, 'ex01-ex02_happy_001': (60.0, inf)}
    """
    parts: dict[str, Span | None] = {}
    for where, name, rest in read_lines(path):
        match = PART.fullmatch(rest)
        if rest and not match:
            raise ValueError(f"{where} is not of the form NAME or NAME<TAB>(60.0s,120.0s)")
        parts[name] = (float(match[1] or 0), float(match[2] or math.inf)) if match else None
    return parts


def read_turns(path: Path) -> dict[str, list[Span]]:
    r"""Read where each channel of a recording has speech.

    Example
    -------
    >>> path = getfixture("tmp_path") / "VAD_segments.txt"
    >>> _ = path.write_text("ex01-ex02_happy_001/channel1\t(23.88, 28.14) (55.12, 61.83)\n")
    >>> read_turns(path)
    {'ex01-ex02_happy_001/channel1': [(23.88, 28.14), (55.12, 61.83)]}
    """
    turns = {}
    for where, name, rest in read_lines(path):
        if TURN.sub("", rest).strip():
            raise ValueError(f"{where} is not of the form NAME<TAB>(23.88, 28.14) (55.12, 61.83)")
        turns[name] = [(float(start), float(end)) for start, end in TURN.findall(rest)]
    return turns


def read_lines(path: Path) -> list[tuple[str, str, str]]:
    r"""Return each line's place, its name, and what is behind that; comments are left out.

    Example
    -------
    >>> path = getfixture("tmp_path") / "test.txt"
    >>> _ = path.write_text("# names\nex03_sad_00012\n")
    >>> [line[1:] for line in read_lines(path)]
    [('ex03_sad_00012', '')]
    """
    if not path.is_file():
        raise FileNotFoundError(f"No {path}: {HOW_TO_GET}")
    lines = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        name, _, rest = line.strip().partition("\t")
        if name and not name.startswith("#"):
            lines.append((f"{path}, line {number},", name.strip(), rest.strip()))
    return lines


def columns_of(
    path: Path, parts: Mapping[str, Span | None], turns: Mapping[str, list[Span]]
) -> dict[str, Any] | list[dict[str, Any]] | None:
    """Return the labels of a sentence, those of a conversation's turns, or None for a long text.

    Example
    -------
    >>> columns_of(Path("ex03_sad_00012.wav"), {"ex03_sad_00012": None}, {})
    {'speaker': 'expresso_ex03', 'labels': {'read_style': 'sad'}}
    """
    match = NAME.fullmatch(path.stem)
    if not match:
        raise ValueError(f"{path}: not a name of Expresso such as ex03_sad_00012.wav")
    first, second, style = match.groups()
    if second:
        styles = style.split("-") if "-" in style else [style, style]
        return [
            {"speaker": f"expresso_{speaker}", "labels": {"conversation_style": its}, **clip}
            for number, (speaker, its) in enumerate(zip((first, second), styles, strict=True))
            for clip in cut(path, number, parts[path.stem], turns)
        ]
    if parts[path.stem] is not None:
        return None
    return {"speaker": f"expresso_{first}", "labels": {"read_style": style}}


def cut(
    path: Path, channel: int, part: Span | None, turns: Mapping[str, list[Span]]
) -> list[dict[str, Any]]:
    """Return ``id``, ``channel``, ``start`` and ``duration`` of a channel's turns within a part.

    Turns shorter than ``SHORTEST`` are left out; those longer than ``LONGEST`` are cut into clips
    of equal length.

    Example
    -------
    >>> import numpy, soundfile
    >>> path = getfixture("tmp_path") / "ex01-ex02_happy_001.wav"
    >>> soundfile.write(path, numpy.zeros((80000, 2)), 16000)
    >>> turns = {"ex01-ex02_happy_001/channel2": [(1.0, 3.0), (4.8, 6.0)]}
    >>> [(clip["start"], clip["duration"]) for clip in cut(path, 1, (2.0, 60.0), turns)]
    [(2.0, 1.0)]
    """
    name = f"{path.stem}/channel{channel + 1}"
    if name not in turns:
        raise ValueError(f"{path}: VAD_segments.txt has no {name}")
    begin, end = part or (0.0, math.inf)
    end = min(end, read_header(path).seconds)
    clips = []
    for first, last in turns[name]:
        first, last = max(first, begin), min(last, end)
        if last - first < SHORTEST:
            continue
        n_clips = math.ceil((last - first) / LONGEST)
        seconds = (last - first) / n_clips
        for start in (first + k * seconds for k in range(n_clips)):
            span = {"channel": channel, "start": start, "duration": seconds}
            name = f"{path.stem}_channel{channel + 1}_segment_{start:.2f}_{start + seconds:.2f}"
            clips.append({"id": name, **span})
    return clips


if __name__ == "__main__":
    run_labelled(prepare_expresso, "Expresso")
