"""From audio files to batches of windows of similar length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from speechbrain.utils.logger import get_logger
from torch import Tensor

from speechbrain_clsp.dataio.audio import (
    SAMPLE_RATE,
    AudioError,
    Source,
    name_of,
    read_windows,
    seconds_of,
)
from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.dataio.shards import ClipReader
from speechbrain_clsp.utils.checks import LISTED, join_some
from speechbrain_clsp.utils.threads import read_ahead

logger = get_logger(__name__)
BATCH_SECONDS = 60.0  # of rows of a manifest


class Window(NamedTuple):
    """A part of a file that is embedded at once."""

    file: int  # its number in the list of paths
    number: int  # of the window in the file, from 0
    content: Tensor | Exception  # [T] float32 at 16 kHz, or what is wrong with the file


Choose = Callable[[Callable[[], Iterator[list[Window]]]], Iterator[list[Window]]]


class BadFilesError(AudioError):
    """Several files that cannot be used; the message names the first ten.

    Attributes
    ----------
    errors : dict
        What is wrong with each, by its number in the list of files.
    entries : list of str
        The same as text, all of them.
    """

    def __init__(self, errors: Mapping[int, Exception]) -> None:
        self.errors = dict(sorted(errors.items()))
        self.entries = [str(error) for error in self.errors.values()]
        super().__init__(f"{len(errors)} bad files: {join_some(self.entries)}")

    def __reduce__(self) -> tuple:
        return BadFilesError, (self.errors,)


def report_bad_files(errors: Mapping[int, Exception], total: int, on_error: str) -> None:
    """Raise what is wrong with files, by number; only warn for ``skip``, if others are good."""
    if not errors:
        return
    if on_error == "skip" and len(errors) < total:
        reasons = join_some(errors[number] for number in sorted(errors))
        more = ", whose rows are NaN, too" if len(errors) > LISTED else ""
        logger.warning("%d of %d files skipped: %s%s", len(errors), total, reasons, more)
    elif len(errors) == 1:
        raise next(iter(errors.values()))
    else:
        raise BadFilesError(errors)


def plan_batches(seconds: Sequence[float], max_seconds: float) -> list[list[int]]:
    """Group clips by length, so that little of a batch is padding.

    Arguments
    ---------
    seconds : list of float
        Length of each clip, by its number.
    max_seconds : float
        Upper bound on a batch's padded length; a longer clip makes a batch of its own.

    Example
    -------
    >>> plan_batches([3.0, 1.0, 2.9, 1.1], max_seconds=6.0)
    [[1, 3], [2, 0]]
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(seconds)), key=seconds.__getitem__):
        # The newest clip is the longest, so it alone decides the padded size.
        if not batches or (len(batches[-1]) + 1) * seconds[index] > max_seconds:
            batches.append([])
        batches[-1].append(index)
    return batches


def read_batches(
    paths: Sequence[Source], max_seconds: float, longest: float, num_workers: int
) -> Iterator[list[Window]]:
    """Decode files in batches of windows of similar length, as :func:`plan_batches`.

    Files of more than ``longest`` seconds come as equal windows of at most that, in order.
    ``num_workers`` threads decode; 0: the one that takes the batches.
    """

    def windows_of(file: int) -> Iterator[Tensor]:
        return read_windows(paths[file], longest, name_of(paths[file], f"paths[{file}]"))

    groups = plan_batches([seconds_of(path) for path in paths], max_seconds)
    return batch_windows(groups, windows_of, max_seconds, num_workers)


def batch_windows(
    groups: Sequence[Sequence[int]],
    windows_of: Callable[[int], Iterator[Tensor]],
    max_seconds: float,
    num_workers: int = 0,
    choose: Choose | None = None,
) -> Iterator[list[Window]]:
    """Read groups of clips in batches of windows.

    Windows of a clip are read one after the other, so that memory is bounded by the batch, not by
    the clip. A clip that cannot be read gives an error in place of its next window, and no more.
    Batches do not depend on ``num_workers``; their order does.

    Arguments
    ---------
    groups : list of list of int
        Numbers of clips of similar length, as :func:`plan_batches` returns them.
    windows_of : callable
        Returns the windows [T] of a clip by its number; called in any thread.
    max_seconds : float
        Upper bound on a batch's padded length; a longer window makes a batch of its own.
    num_workers : int
        Threads that read ahead; 0: the one that takes the batches.
    choose : callable, optional
        Gets, for each group, a function that reads it in batches, and yields those to be used; it
        is called in any thread.

    Example
    -------
    >>> wavs = [torch.zeros(16000), torch.zeros(8000)]
    >>> batches = batch_windows([[1, 0]], lambda clip: iter([wavs[clip]]), max_seconds=1.5)
    >>> [[window.file for window in batch] for batch in batches]
    [[1], [0]]
    """
    if not num_workers:
        return _batches(groups, windows_of, max_seconds, choose)
    parts = [groups[first::num_workers] for first in range(num_workers)]
    return read_ahead([_batches(part, windows_of, max_seconds, choose) for part in parts])


def _batches(
    groups: Sequence[Sequence[int]],
    windows_of: Callable[[int], Iterator[Tensor]],
    max_seconds: float,
    choose: Choose | None,
) -> Iterator[list[Window]]:
    for group in groups:
        read = partial(_batches_of, group, windows_of, max_seconds)
        yield from read() if choose is None else choose(read)


def _batches_of(
    group: Sequence[int], windows_of: Callable[[int], Iterator[Tensor]], max_seconds: float
) -> Iterator[list[Window]]:
    max_samples = max_seconds * SAMPLE_RATE
    batch: list[Window] = []
    n_samples = 0  # of the longest window in the batch
    for window in (window for file in group for window in _windows(file, windows_of)):
        longest = max(n_samples, _size(window))
        if batch and (len(batch) + 1) * longest > max_samples:
            yield batch
            batch, longest = [], _size(window)
        batch.append(window)
        n_samples = longest
    yield batch


def _windows(file: int, windows_of: Callable[[int], Iterator[Tensor]]) -> Iterator[Window]:
    number = 0
    try:
        for wav in windows_of(file):
            yield Window(file, number, wav)
            number += 1
    except (OSError, TypeError, ValueError) as error:
        yield Window(file, number, error)


def spread_rows(manifest: Manifest, most: int) -> list[dict[str, Any]]:
    """Return at most so many rows of a manifest, spread over it."""
    count = min(most, len(manifest))
    return [manifest[number * len(manifest) // count] for number in range(count)]


def embed_rows(clsp: Any, rows: Sequence[Mapping[str, Any]]) -> dict[int, Tensor]:
    """Embed rows of a manifest, one model and one thread.

    Arguments
    ---------
    clsp : CLSP
        The model.
    rows : list of dict
        As a :class:`~speechbrain_clsp.dataio.manifest.Manifest` has them.

    Returns
    -------
    dict of Tensor
        [D] float32 on the CPU by the number of the row; clips that cannot be read are left out,
        with a warning.

    Raises
    ------
    FileNotFoundError, AudioError
        If none can be read.
    """
    reader = ClipReader()
    batches = batch_windows(
        plan_batches([row["duration"] for row in rows], BATCH_SECONDS),
        lambda number: reader.read_windows(rows[number], clsp.WINDOW_SECONDS),
        BATCH_SECONDS,
    )
    found, errors = clsp.embed_windows(batches, lambda number: rows[number]["id"])
    report_bad_files(errors, len(rows), "skip")
    return found


def pad(wavs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Join waveforms; returns [B, T], zero padded, and lengths [B] relative to T.

    Example
    -------
    >>> pad([torch.ones(4), torch.ones(2)])[1].tolist()
    [1.0, 0.5]
    """
    padded = torch.nn.utils.rnn.pad_sequence(list(wavs), batch_first=True)
    return padded, torch.tensor([len(wav) / padded.shape[1] for wav in wavs])


def _size(window: Window) -> int:
    return len(window.content) if isinstance(window.content, Tensor) else 0
