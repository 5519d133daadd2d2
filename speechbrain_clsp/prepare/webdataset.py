"""Shards of WebDataset: tar files of audio with captions in members of the same stem.

Clips are not unpacked; the manifest names their places in the shards.
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from speechbrain_clsp.dataio.shards import (
    AUDIO_SUFFIXES,
    FFMPEG_SUFFIXES,
    ClipReader,
    Member,
    scan_shard,
)
from speechbrain_clsp.prepare.columns import AUDIO_COLUMNS, CAPTION_COLUMNS
from speechbrain_clsp.prepare.entry import Entry, ReadOptions
from speechbrain_clsp.utils.reading import decode_text, parse_json

_AUDIO = AUDIO_SUFFIXES | FFMPEG_SUFFIXES
_TEXTS = frozenset({".json", ".txt"})
_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
_MOST_FILES = 1_000_000  # that braces may name


def is_pattern(source: Path) -> bool:
    """Return whether a name stands for several files.

    Example
    -------
    >>> is_pattern(Path("a-{000..012}.tar")), is_pattern(Path("a-*.tar")), is_pattern(Path("a"))
    (True, True, False)
    """
    return _BRACES.search(str(source)) is not None or glob.has_magic(str(source))


def expand_pattern(source: Path) -> list[Path]:
    """Return the files that braces or wildcards stand for.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If braces stand for too many.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for name in ("a-08.tar", "a-09.tar", "a-10.tar"):
    ...     (folder / name).touch()
    >>> [path.name for path in expand_pattern(folder / "a-{08..09}.tar")]
    ['a-08.tar', 'a-09.tar']
    """
    paths: list[Path] = []
    for name in _without_braces(str(source)):
        found = sorted(map(Path, glob.glob(name, recursive=True))) if glob.has_magic(name) else []
        if not found and not os.path.exists(name):
            of = f" (of {source})" if name != str(source) else ""
            raise FileNotFoundError(f"No file or folder {name}{of}")
        paths += found or [Path(name)]
    return paths


def _without_braces(pattern: str) -> Iterator[str]:
    """Yield the names that a pattern stands for, of the forms {000..012} and {a,b}."""
    parts = _BRACES.split(pattern)  # text, first, last, list, text, first, ...
    choices: list[list[str]] = [[parts[0]]]
    n_names = 1
    for first, last, several, text in zip(parts[1::4], parts[2::4], parts[3::4], parts[4::4]):
        if several is None:
            low, high = int(first), int(last)
            n_names *= max(0, high - low + 1)
            if n_names > _MOST_FILES or high < low:
                raise ValueError(f"{pattern}: {{{first}..{last}}} stands for no files, or too many")
            choices.append([str(number).zfill(len(first)) for number in range(low, high + 1)])
        else:
            choices.append(several.split(","))
        choices.append([text])
    return map("".join, product(*choices))


def entries_of_shard(path: Path, options: ReadOptions) -> Iterator[Entry | str]:
    """Yield the clips of a tar file; for one that cannot be used, and for damage, the reason.

    Captions stand in ``<stem>.json``, an object with the columns of a table, or, if it has none,
    one per line in ``<stem>.txt``.
    """
    members, problems = scan_shard(path, _AUDIO | _TEXTS)
    yield from (f"{path}: {problem}" for problem in problems)
    if not members and not problems:
        raise ValueError(f"{path}: has no audio files ({', '.join(sorted(AUDIO_SUFFIXES))})")
    groups: dict[str, list[Member]] = {}
    for member in members:
        groups.setdefault(os.path.splitext(member.name)[0], []).append(member)
    reader = ClipReader(1)
    for stem, group in groups.items():
        where = f"{path} member {stem}"
        try:
            yield _entry(path, where, group, reader, options)
        except (ValueError, OSError) as error:
            yield str(error) if where in str(error) else f"{where}: {error}"


def _entry(
    path: Path, where: str, group: list[Member], reader: ClipReader, options: ReadOptions
) -> Entry:
    by_suffix: dict[str, Member] = {}
    for member in group:
        if by_suffix.setdefault(os.path.splitext(member.name)[1].lower(), member) is not member:
            raise ValueError(f"{member.name} is there twice")
    sounds = [member for suffix, member in by_suffix.items() if suffix in _AUDIO]
    if len(sounds) != 1:
        names = [member.name for member in sounds]
        raise ValueError(f"has several audio files: {names}" if names else "has no audio file")
    texts = {
        suffix: reader.read_bytes({"audio": str(path), **by_suffix[suffix]._asdict()})
        for suffix in _TEXTS & by_suffix.keys()
    }
    values = _values(where, texts, options)
    (sound,) = sounds
    values |= {"wav": os.path.abspath(path), "offset": sound.offset, "nbytes": sound.nbytes}
    names = [sound.name, f"{path.stem}/{sound.name}"]
    return Entry(where, values, path.parent, names=names)


def _values(where: str, texts: Mapping[str, bytes], options: ReadOptions) -> dict[str, Any]:
    """Return the columns that the members beside a clip give."""
    values: dict[str, Any] = {}
    if ".json" in texts:
        try:
            record = parse_json(decode_text(texts[".json"], f"{where}.json"))
        except json.JSONDecodeError as error:
            raise ValueError(f"its .json is not JSON: {error}") from error
        if not isinstance(record, dict):
            raise ValueError("its .json is not an object")
        needed = () if ".txt" in texts else ("caption",)
        columns = options.columns.rename(where, list(record), needed)
        # The audio that it names is the member beside it.
        values = {
            ours: record[theirs] for theirs, ours in columns.items() if ours not in AUDIO_COLUMNS
        }
    if not set(CAPTION_COLUMNS) & values.keys() and ".txt" in texts:
        lines = decode_text(texts[".txt"], f"{where}.txt").splitlines()
        values["caption"] = [line.strip() for line in lines if line.strip()]
    return values
