"""Data folders of Kaldi, with a file of captions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from speechbrain_clsp.prepare.entry import Entry, ReadOptions
from speechbrain_clsp.utils.checks import quote
from speechbrain_clsp.utils.reading import read_text

CAPTIONS = "captions"
_GENDERS = {"m": "male", "f": "female"}


def entries_of_kaldi(folder: Path, options: ReadOptions) -> Iterator[Entry | str]:
    r"""Yield the utterances of a data folder; for one that cannot be used, the reason.

    ``wav.scp`` names audio files, ``segments`` parts of them, ``utt2spk`` and ``spk2gender`` who
    speaks; ``captions``, or what ``options.captions_file`` names, holds a line ``ID caption`` for
    each caption of an utterance.

    Raises
    ------
    OSError, ValueError
        If ``wav.scp`` or the captions are not there, or a file cannot be read.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "wav.scp").write_text("u1 a.wav\n")
    >>> _ = (folder / "captions").write_text("u1 A man whispers.\n")
    >>> next(entries_of_kaldi(folder, ReadOptions())).values
    {'id': 'u1', 'wav': 'a.wav', 'caption': ['A man whispers.']}
    """
    captions_path = folder / (options.captions_file or CAPTIONS)
    if not captions_path.is_file():
        raise FileNotFoundError(
            f"{captions_path}: no such file of captions, with a line 'ID caption' for each: name"
            " another one by --captions (Kaldi's text usually holds what is said, not how)"
        )
    captions: dict[str, list[str]] = {}
    for where, name, caption in _lines(captions_path):
        captions.setdefault(name, [])
        if caption:
            captions[name].append(caption)
        else:
            yield f"{where}: has nothing after {name!r}"
    faults: list[str] = []
    recordings, speakers, genders = (
        _table(folder / name, faults) for name in ("wav.scp", "utt2spk", "spk2gender")
    )
    yield from faults
    is_cut = (folder / "segments").is_file()
    utterances = _lines(folder / "segments") if is_cut else _lines(folder / "wav.scp")
    seen: set[str] = set()
    for where, name, rest in utterances:
        if name in seen or not rest:  # told above, if it is a line of wav.scp
            if is_cut:
                yield f"{where}: {f'has {name!r} again' if rest else f'has nothing after {name!r}'}"
            continue
        seen.add(name)
        try:
            values = {"id": name, **_place(rest, recordings, is_cut)}
        except ValueError as error:
            yield f"{where}: {error}"
            continue
        values["caption"] = captions.get(name)
        if not values["caption"]:
            yield f"{where}: {name!r} has no caption in {captions_path}"
            continue
        speaker = speakers.get(name)
        gender = genders.get(speaker) if speaker else None
        values |= {"speaker": speaker, "gender": _GENDERS.get(gender or "", gender)}
        yield Entry(where, values, options.folder(folder))
    for name in captions.keys() - seen:
        yield f"{captions_path}: {name!r} has a caption, and no audio"


def _place(rest: str, recordings: dict[str, str], is_cut: bool) -> dict[str, object]:
    """Return the audio of an utterance and, if it is cut from a recording, which part."""
    if not is_cut:
        return {"wav": _checked(rest)}
    fields = rest.split()
    if len(fields) != 3:
        raise ValueError(f"{quote(rest)} is not RECORDING START END")
    recording, start, end = fields
    if recording not in recordings:
        raise ValueError(f"the recording {recording!r} is not in wav.scp")
    try:
        first, last = float(start), float(end)
    except ValueError:
        first = last = 0.0
    if not 0 <= first < last:
        raise ValueError(f"the part from {start} to {end} is none")
    duration = round(last - first, 6)  # of decimal numbers
    return {"wav": _checked(recordings[recording]), "start": first, "duration": duration}


def _checked(path: str) -> str:
    if path.endswith("|"):
        raise ValueError(
            f"{quote(path)} is a command, and none is run: write its output to a file, as by"
            " `wav-copy scp:wav.scp` or sox, and name that"
        )
    start, _, offset = path.rpartition(":")
    if start.endswith(".ark") and offset.isdigit():
        raise ValueError(f"{quote(path)} is in an archive of Kaldi: write it to a wav file")
    return path


def _table(path: Path, faults: list[str]) -> dict[str, str]:
    """Return what a file says first of each name; nothing if there is no such file."""
    found: dict[str, str] = {}
    for where, name, rest in _lines(path) if path.is_file() else ():
        if not rest:
            faults.append(f"{where}: has nothing after {name!r}")
        elif found.setdefault(name, rest) != rest:
            faults.append(f"{where}: {name!r} has another entry before: {quote(found[name])}")
    return found


def _lines(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield place, first word and the rest, which may be "", of the lines that are not empty."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        name, *rest = line.split(maxsplit=1)
        yield f"{path}, line {number}", name, "".join(rest).strip()
