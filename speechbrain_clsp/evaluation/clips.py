"""The clips of a test set as files of their own, and the captions that they are evaluated on.

Models take files; a manifest's clip may also be a part of a recording, one channel of it, or a
member of a tar file, as in FCaps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from scipy.io import wavfile

from speechbrain_clsp.captions.policies import EVALUATED
from speechbrain_clsp.dataio.shards import ClipReader

PLACE = ("offset", "nbytes", "start", "channel")  # columns of clips that are parts of a file


@contextmanager
def whole_files(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield rows whose ``audio`` is a file with that clip and nothing else.

    Clips that are files stay where they are; others are written to a temporary folder, named after
    their id, as float32 samples at their own rate.

    Raises
    ------
    FileNotFoundError, AudioError
        If a clip that is to be written cannot be read.

    Example
    -------
    >>> import numpy, soundfile
    >>> path = getfixture("tmp_path") / "talk.wav"
    >>> soundfile.write(path, numpy.zeros((48000, 2)), 48000)
    >>> row = {"id": "talk/2", "audio": str(path), "start": 0.25, "duration": 0.5, "channel": 1}
    >>> with whole_files([row]) as (clip,):
    ...     print(Path(clip["audio"]).name, soundfile.info(clip["audio"]).frames, clip["start"])
    talk%2F2.wav 24000 None
    """
    reader = ClipReader()
    with TemporaryDirectory(prefix="clips") as folder:
        whole = []
        for row in rows:
            if not is_whole_file(row):
                samples, rate = reader.read_samples(row)
                path = Path(folder) / clip_name(row)
                wavfile.write(path, rate, samples)  # soundfile's would hold the time of writing
                row = {**row, **dict.fromkeys(PLACE), "audio": str(path)}
            whole.append(dict(row))
        yield whole


def is_whole_file(row: Mapping[str, Any]) -> bool:
    """Tell whether a row's clip is all that its file holds.

    Example
    -------
    >>> is_whole_file({"audio": "a.wav"}), is_whole_file({"audio": "a.wav", "start": 0.0})
    (True, False)
    """
    return all(row.get(column) is None for column in PLACE)


def clip_name(row: Mapping[str, Any]) -> str:
    """Return the name of the file that is written for a clip: its id, without folders."""
    return row["id"].replace("%", "%25").replace("/", "%2F") + ".wav"


def captions_by_kind(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the N clips' first global and last fine captions, as published.

    A kind that no clip has is left out: ParaSpeechCaps has global captions only.

    Raises
    ------
    ValueError
        If some clips lack a kind that others have, or there is no caption at all.

    Example
    -------
    >>> captions_by_kind([{"id": "a", "global_captions": ["G", "H"], "fine_captions": ["E", "F"]}])
    {'global': ['G'], 'fine': ['F']}
    """
    captions = {}
    for kind, place in EVALUATED.items():
        lists = [row[f"{kind}_captions"] for row in rows]
        if any(lists):
            absent = [row["id"] for row, texts in zip(rows, lists) if not texts]
            if absent:
                raise ValueError(
                    f"{len(absent)} of {len(rows)} clips lack a {kind} caption, such as"
                    f" {absent[0]!r}: leave them out of the test set"
                )
            captions[kind] = [texts[place] for texts in lists]
    if not captions:
        raise ValueError("No clip has a caption to be evaluated on")
    return captions
