"""What the prepare scripts of labelled corpora share: from files and labels to a manifest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import soundfile
from speechbrain.utils.logger import get_logger

from speechbrain_clsp.dataio.audio import MINIMUM_SECONDS, AudioError
from speechbrain_clsp.dataio.manifest import write_manifest

logger = get_logger(__name__)
MAX_BAD_CLIPS = 10
_LFS = b"version https://git-lfs"


def find_audio(folder: str | os.PathLike, pattern: str, where_from: str) -> list[Path]:
    """List a corpus's audio files, sorted by name.

    Arguments
    ---------
    folder : str or path
        Where the corpus was unpacked.
    pattern : str
        Glob below it, such as ``**/Actor_*/*.wav``.
    where_from : str
        How to get the corpus, for the message.

    Returns
    -------
    list of path
        Without the ``._*`` files that archives made on a Mac leave; of several files with the same
        name (a corpus unpacked twice) the first.

    Raises
    ------
    FileNotFoundError
        If there is none.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for name in ("b.wav", "._b.wav", "a.wav"):
    ...     _ = (folder / name).write_bytes(b"")
    >>> [path.name for path in find_audio(folder, "*.wav", "")]
    ['a.wav', 'b.wav']
    """
    found: dict[str, Path] = {}
    for path in sorted(Path(folder).glob(pattern)):
        if not path.name.startswith("."):
            found.setdefault(path.name, path)
    if not found:
        raise FileNotFoundError(f"No {pattern} under {folder}: {where_from}")
    return sorted(found.values(), key=lambda path: path.name)


def audio_columns(path: Path) -> dict[str, Any]:
    """Return the manifest's columns that the file itself gives.

    Arguments
    ---------
    path : path
        An audio file.

    Returns
    -------
    dict
        ``audio``, absolute; ``duration`` [s]; ``sample_rate``.

    Raises
    ------
    AudioError
        If it is no audio, too short, or a Git LFS pointer.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> soundfile.write(path, [0.0] * 8000, 16000)
    >>> audio_columns(path)["duration"]
    0.5
    """
    with open(path, "rb") as file:
        if file.read(len(_LFS)) == _LFS:
            raise AudioError(f"{path}: is a Git LFS pointer, not audio; run `git lfs pull` there")
    try:
        info = soundfile.info(path)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{path}: cannot be read as audio; get the file again") from error
    if info.duration < MINIMUM_SECONDS:
        raise AudioError(f"{path}: lasts {info.duration:.3f} s, too short to be speech")
    return {
        "audio": str(path.resolve()),
        "duration": info.duration,
        "sample_rate": info.samplerate,
    }


def write_corpus(
    path: str | os.PathLike,
    files: Iterable[Path],
    columns_of: Callable[[Path], Mapping[str, Any] | None],
    source: str,
    split: str = "test",
) -> int:
    """Write a manifest of the files that have labels and can be read.

    Arguments
    ---------
    path : str or path
        Where the manifest goes.
    files : iterable of path
        Audio files; their stems are the ids.
    columns_of : callable
        From a file to its labels, None to leave it out; ValueError if its labels are wrong.
    source, split : str
        Columns of all rows.

    Returns
    -------
    int
        Number of clips.

    Raises
    ------
    ValueError
        If no clip is left, or more than ``MAX_BAD_CLIPS`` are bad; the message lists them.
    """
    rows, bad = [], []
    for file in files:
        try:
            columns = columns_of(file)
            if columns is not None:
                common = {"id": file.stem, "source": source, "split": split}
                rows.append({**common, **audio_columns(file), **columns})
        except ValueError as error:
            bad.append(str(error))
    listed = "\n".join(f"- {reason}" for reason in bad[: 2 * MAX_BAD_CLIPS])
    if not rows or len(bad) > MAX_BAD_CLIPS:
        raise ValueError(f"{source}: {len(rows)} clips can be used, {len(bad)} are bad:\n{listed}")
    if bad:
        logger.warning("%s: %d clips left out:\n%s", source, len(bad), listed)
    count = write_manifest(path, rows)
    logger.info("%s: %d clips in %s", source, count, path)
    return count
