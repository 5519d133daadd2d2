"""Manifests of corpora with class labels, from their audio files; for zero-shot evaluation."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from speechbrain_clsp.dataio.audio import MINIMUM_SECONDS, AudioError, read_header
from speechbrain_clsp.dataio.manifest import write_manifest

logger = logging.getLogger(__name__)
MAX_BAD_CLIPS = 10
_LFS_POINTER = b"version https://git-lfs"


def find_audio(folder: str | os.PathLike, pattern: str, how_to_get: str) -> list[Path]:
    """List a corpus's audio files, sorted by name.

    Arguments
    ---------
    folder : str or path
        The corpus's folder.
    pattern : str
        Glob pattern below it, such as ``**/Actor_*/*.wav``.
    how_to_get : str
        How to get the corpus, for the message.

    Returns
    -------
    list of path
        Without hidden files, such as the ``._*`` of archives made on a Mac; of several files with
        the same name (a corpus unpacked twice) the first.

    Raises
    ------
    FileNotFoundError
        If there is no such file.

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
        raise FileNotFoundError(f"No {pattern} under {folder}: {how_to_get}")
    return sorted(found.values(), key=lambda path: path.name)


def audio_columns(path: Path) -> dict[str, Any]:
    """Return the columns of the manifest that are read from the audio file.

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
        If it is not audio, too short, or a Git LFS pointer.

    Example
    -------
    >>> import soundfile
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> soundfile.write(path, [0.0] * 8000, 16000)
    >>> audio_columns(path)["duration"]
    0.5
    """
    with open(path, "rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise AudioError(f"{path}: is a Git LFS pointer, not audio; run `git lfs pull` there")
    seconds, sample_rate, _ = read_header(path)
    if seconds < MINIMUM_SECONDS:
        raise AudioError(f"{path}: lasts {seconds:.3f} s, too short to be speech")
    return {"audio": str(path.resolve()), "duration": seconds, "sample_rate": sample_rate}


def write_corpus(
    save_folder: str | os.PathLike,
    files: Iterable[Path],
    columns_of: Callable[[Path], Mapping[str, Any] | None],
    source: str,
    split: str = "test",
) -> Path:
    """Write ``<save_folder>/<split>.arrow`` with the files that have labels and are readable.

    Arguments
    ---------
    save_folder : str or path
        Where the manifest is written.
    files : iterable of path
        Audio files; their stems are the ids.
    columns_of : callable
        Takes a file and returns its labels, or None to leave it out; raises ValueError if its
        labels are missing or wrong.
    source, split : str
        Values of these columns in all rows.

    Returns
    -------
    path
        The manifest.

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
        raise ValueError(f"{source}: {len(rows)} clips are usable, {len(bad)} are bad:\n{listed}")
    if bad:
        logger.warning("%s: %d clips left out:\n%s", source, len(bad), listed)
    manifest = Path(save_folder) / f"{split}.arrow"
    count = write_manifest(manifest, rows)
    logger.info("%s: %d clips in %s", source, count, manifest)
    return manifest
