"""Similarity with captions over the course of a recording."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from speechbrain_clsp.dataio.audio import SAMPLE_RATE


@dataclass(frozen=True)
class Timeline:
    """How well captions fit each moment of a recording.

    Arguments
    ---------
    times : Tensor
        [M] float32, the windows' centers in seconds.
    scores : Tensor
        [M, N] float32 cosines.
    texts : tuple of str
        The N captions.
    """

    times: Tensor
    scores: Tensor
    texts: tuple[str, ...]

    def plot(self, path: str | os.PathLike) -> None:
        """Draw the curves into an .html file.

        Raises
        ------
        ValueError
            If the name does not end in .html.
        """
        from speechbrain_clsp.evaluation.report import write_page
        from speechbrain_clsp.utils.html import line_chart

        if Path(path).suffix != ".html":
            raise ValueError(f"{path}: the name must end in .html")
        times = self.times.tolist()
        series = {
            text: list(zip(times, self.scores[:, number].tolist()))
            for number, text in enumerate(self.texts)
        }
        write_page(path, "Similarity over time", [line_chart("cosine over seconds", series)])


def window_starts(n_samples: int, window: float, hop: float) -> list[int]:
    """Return where windows begin: every ``hop`` seconds, and one that ends where the clip ends.

    Arguments
    ---------
    n_samples : int
        Length of the clip at 16 kHz.
    window, hop : float
        Seconds.

    Raises
    ------
    ValueError
        If ``window`` or ``hop`` is not positive.

    Example
    -------
    >>> window_starts(48000, window=2.0, hop=0.75)
    [0, 12000, 16000]
    """
    if window <= 0 or hop <= 0:
        raise ValueError(f"window and hop must be positive, not {window} and {hop}")
    last = max(0, n_samples - round(window * SAMPLE_RATE))
    starts = list(range(0, last + 1, max(1, round(hop * SAMPLE_RATE))))
    return starts if starts[-1] == last else [*starts, last]
