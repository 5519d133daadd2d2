"""What a user names to be embedded: a manifest, folders, files, lists of files, patterns."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from speechbrain_clsp.dataio.audio import seconds_of
from speechbrain_clsp.dataio.manifest import Manifest, write_manifest
from speechbrain_clsp.dataio.shards import AUDIO_SUFFIXES
from speechbrain_clsp.search.store import CLIPS, check_store_folder
from speechbrain_clsp.utils.files import expand, sha256_of_file
from speechbrain_clsp.utils.reading import read_text


def open_source(words: Sequence[str], folder: Path) -> Manifest:
    """Return the manifest that a user names, or one of the files, in the store's folder.

    Arguments
    ---------
    words : list of str
        One ``.arrow`` manifest; or audio files, folders of them, patterns such as
        ``"clips/**/*.wav"``, and ``.txt`` files with a path per line.
    folder : pathlib.Path
        The store; of files, ``clips.arrow`` is written there. An id is the file's path below the
        folder that all have in common.

    Raises
    ------
    FileNotFoundError
        If a folder or a pattern leads to no file, a file that is named is not there, or none of
        those that are listed.
    FileExistsError
        If the folder holds something else than a store.
    ValueError
        If the store was begun with other files.

    Example
    -------
    >>> import numpy, soundfile
    >>> tmp = getfixture("tmp_path")
    >>> for name in ("b.wav", "a.flac"):
    ...     soundfile.write(tmp / name, numpy.zeros(16000), 16000)
    >>> [row["id"] for row in open_source([str(tmp)], tmp / "store")]
    ['a.flac', 'b.wav']
    """
    if len(words) == 1 and words[0].endswith(".arrow"):
        return Manifest(words[0])
    check_store_folder(folder)
    paths = list(dict.fromkeys(os.path.abspath(path) for path in find_audio(words)))
    if not any(map(os.path.isfile, paths)):
        raise FileNotFoundError(f"{paths[0]}: no such file{', nor any other' * (len(paths) > 1)}")
    common = os.path.dirname(paths[0]) if len(paths) == 1 else os.path.commonpath(paths)
    rows = (
        {"id": os.path.relpath(path, common), "audio": path, "duration": seconds_of(path)}
        for path in paths
    )
    path = folder / CLIPS
    if not path.is_file():
        write_manifest(path, rows)
        return Manifest(path)
    again = folder / f".{os.getpid()}-{CLIPS}"
    try:
        write_manifest(again, rows)
        if sha256_of_file(again) != sha256_of_file(path):
            raise ValueError(f"{folder} was begun with other recordings: choose another folder")
    finally:
        again.unlink(missing_ok=True)
    return Manifest(path)


def find_audio(words: Sequence[str]) -> Iterator[str]:
    """Yield the audio files that a user names, in the order given; those of a folder sorted.

    Example
    -------
    >>> tmp = getfixture("tmp_path")
    >>> for name in ("a.wav", "b.wav"):
    ...     (tmp / name).touch()
    >>> [Path(path).name for path in find_audio([str(tmp / "b.wav"), str(tmp)])]
    ['b.wav', 'a.wav', 'b.wav']
    """
    for word in words:
        path = expand(word)
        if path.is_dir():
            files = sorted(_walk(path))
        elif path.suffix.lower() == ".txt":
            files = [line.strip() for line in read_text(path).splitlines() if line.strip()]
        elif not path.exists() and glob.has_magic(word):
            files = sorted(glob.glob(str(path), recursive=True))
        elif path.exists():
            files = [str(path)]
        else:
            raise FileNotFoundError(f"{word}: no such file")
        if not files:
            raise FileNotFoundError(f"{word}: no audio file ({', '.join(sorted(AUDIO_SUFFIXES))})")
        yield from files


def _walk(folder: Path) -> Iterator[str]:
    for parent, _, names in os.walk(folder, followlinks=True):
        for name in names:
            is_audio = os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES
            if is_audio and not name.startswith("."):
                yield os.path.join(parent, name)
