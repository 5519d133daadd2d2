"""From audio files to batches of similar length.

Authors
 * The speechbrain-clsp authors 2026
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

import torch
from speechbrain.utils.logger import get_logger
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from speechbrain_clsp.dataio.audio import AudioError, read_audio, seconds_of

logger = get_logger(__name__)
Clip = tuple[int, Tensor | Exception]  # number in the list of paths, samples or what is wrong


class AudioFiles(Dataset):
    """Decodes files; an unreadable one gives its error instead of samples.

    Arguments
    ---------
    paths : list of str or path
        Audio files.
    """

    def __init__(self, paths: Sequence[str | os.PathLike]) -> None:
        self.paths = list(paths)

    def __getitem__(self, index: int) -> Clip:
        """Return the file's number, and its samples [T] at 16 kHz or an error."""
        try:
            return index, read_audio(self.paths[index])
        except (FileNotFoundError, AudioError) as error:
            return index, error


def plan_batches(seconds: Sequence[float], max_seconds: float) -> list[list[int]]:
    """Group clips by length, so that little of a batch is padding.

    Arguments
    ---------
    seconds : list of float
        Length of each clip.
    max_seconds : float
        Upper bound on a batch's padded length; a longer clip makes a batch of its own.

    Returns
    -------
    list of list of int
        Numbers of the clips, short ones first.

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
    paths: Sequence[str | os.PathLike], max_seconds: float, longest: float, num_workers: int
) -> Iterator[list[Clip]]:
    """Decode files in batches of similar length.

    Arguments
    ---------
    paths : list of str or path
        Audio files.
    max_seconds : float
        As for :func:`plan_batches`.
    longest : float
        Longer files are left out.
    num_workers : int
        Processes that decode; 0: this one.

    Yields
    ------
    list of (int, Tensor or Exception)
        Number of the file, and its samples [T] or what is wrong with it.
    """
    seconds = [seconds_of(path) for path in paths]
    plan = plan_batches([min(length, longest + 1) for length in seconds], max_seconds)
    plan = [[index for index in batch if seconds[index] <= longest] for batch in plan]
    yield from DataLoader(
        AudioFiles(paths),
        batch_sampler=[batch for batch in plan if batch],
        num_workers=num_workers,
        collate_fn=list,
        worker_init_fn=_use_one_thread,
    )


def pad(wavs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Join waveforms; returns [B, T], zero padded, and lengths [B] relative to T.

    Example
    -------
    >>> pad([torch.ones(4), torch.ones(2)])[1].tolist()
    [1.0, 0.5]
    """
    padded = torch.nn.utils.rnn.pad_sequence(list(wavs), batch_first=True)
    return padded, torch.tensor([len(wav) / padded.shape[1] for wav in wavs])


def report_bad(bad: Mapping[int, Exception], on_error: str, total: int) -> None:
    """Raise what is wrong with files, or warn of it if others are good."""
    reasons = [str(bad[number]) for number in sorted(bad)]
    if on_error == "skip" and len(bad) < total:
        logger.warning("%d of %d files skipped: %s", len(bad), total, "; ".join(reasons))
    elif len(bad) == 1:
        raise next(iter(bad.values()))
    else:
        raise AudioError(f"{len(bad)} bad files: {'; '.join(reasons)}")


def _use_one_thread(worker: int) -> None:
    torch.set_num_threads(1)
