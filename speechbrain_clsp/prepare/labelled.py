"""Manifests of corpora with class labels, from their audio files; for zero-shot evaluation."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from speechbrain_clsp.dataio.audio import check_audio
from speechbrain_clsp.dataio.manifest import write_manifest
from speechbrain_clsp.utils.checks import BadEntriesError

logger = logging.getLogger(__name__)
MAX_BAD_CLIPS = 10


def find_audio(folder: str | os.PathLike, pattern: str, how_to_get: str) -> list[Path]:
    """List a corpus's audio files by a glob pattern, sorted by name.

    Hidden files, such as the ``._*`` of archives made on a Mac, are left out; of several files with
    the same name (a corpus unpacked twice) the first is taken.

    Arguments
    ---------
    folder : str or path
        Where the corpus is.
    pattern : str
        As for :meth:`pathlib.Path.glob`.
    how_to_get : str
        What to do if there is no such file, for the message.

    Returns
    -------
    list of Path
        One per name.

    Raises
    ------
    FileNotFoundError
        If there is no such file; the message says how to get the corpus.

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


def _audio_columns(path: Path) -> dict[str, Any]:
    """Return ``audio``, ``duration`` and ``sample_rate``; raise AudioError if it is not speech."""
    seconds, sample_rate, _ = check_audio(path)
    return {"audio": str(path.resolve()), "duration": seconds, "sample_rate": sample_rate}


def write_corpus(
    save_folder: str | os.PathLike,
    files: Iterable[Path],
    columns_of: Callable[[Path], Mapping[str, Any] | Sequence[Mapping[str, Any]] | None],
    source: str,
) -> None:
    """Write ``<save_folder>/test.arrow`` with the files that have labels and are readable.

    Arguments
    ---------
    save_folder : str or path
        Where the manifest goes.
    files : iterable of Path
        The audio files; their stems are the ids.
    columns_of : callable
        Takes a file and returns its labels, or None to leave it out; it raises ValueError if its
        labels are missing or wrong. Of a recording of many clips it returns a list of those of
        each, with ``id``, ``start`` and ``duration`` (seconds), and perhaps ``channel`` (from 0).
    source : str
        The column of this name in all rows.

    Raises
    ------
    ValueError
        If no clip is left, or more than ``MAX_BAD_CLIPS`` are bad; the message lists them.

    Example
    -------
    >>> import numpy, soundfile
    >>> from speechbrain_clsp.dataio.manifest import Manifest
    >>> folder = getfixture("tmp_path")
    >>> soundfile.write(folder / "f_1.wav", numpy.sin(numpy.arange(8000)), 16000)
    >>> genders = {"f": "female", "m": "male"}
    >>> files = find_audio(folder, "*.wav", "")
    >>> write_corpus(folder, files, lambda path: {"gender": genders[path.stem[0]]}, "mine")
    >>> [(row["id"], row["gender"]) for row in Manifest(folder / "test.arrow")]
    [('f_1', 'female')]
    """
    rows, bad = [], []
    for file in files:
        try:
            columns = columns_of(file)
            clips = [columns] if isinstance(columns, Mapping) else columns
            if clips:
                common = {"id": file.stem, "source": source, "split": "test"}
                common |= _audio_columns(file)
                rows += [{**common, **clip} for clip in clips]
        except ValueError as error:
            bad.append(str(error))
    if not rows or len(bad) > MAX_BAD_CLIPS:
        raise BadEntriesError(f"{source}: {len(rows)} clips are usable, {len(bad)} are bad", bad)
    if bad:
        listed = "\n".join(f"- {reason}" for reason in bad)
        logger.warning("%s: %d clips left out:\n%s", source, len(bad), listed)
    manifest = Path(save_folder) / "test.arrow"
    logger.info("%s: %d clips in %s", source, write_manifest(manifest, rows), manifest)


def run_labelled(prepare: Callable[[str, str], None], corpus: str) -> None:
    """Call a prepare function with the two folders of the command line; errors exit with code 2.

    Arguments
    ---------
    prepare : callable
        Takes the folder of the corpus and that of the manifest.
    corpus : str
        Its name, for the help.

    Example
    -------
    >>> import sys
    >>> getfixture("monkeypatch").setattr(sys, "argv", ["x_prepare.py", "/data/X", "data/x"])
    >>> run_labelled(lambda data_folder, save_folder: print(data_folder, save_folder), "X")
    /data/X data/x
    """
    parser = argparse.ArgumentParser(description=f"Prepare {corpus} for evaluation.")
    parser.add_argument("data_folder", help="where the corpus is")
    parser.add_argument("save_folder", help="where the test set is written")
    options = parser.parse_args()
    try:
        prepare(options.data_folder, options.save_folder)
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
