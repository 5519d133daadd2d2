"""Similarity with captions over the course of a recording."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from speechbrain_clsp.dataio.audio import MINIMUM_SECONDS, SAMPLE_RATE
from speechbrain_clsp.utils.html import line_chart, write_page

SHORTEST_HOP = 0.001  # seconds; shorter ones make an embedding of nearly every sample


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

    Example
    -------
    >>> curve = Timeline(torch.tensor([1.0, 1.5]), torch.zeros(2, 1), ("A calm voice.",))
    >>> curve.plot(getfixture("tmp_path") / "curve.html")
    """

    times: Tensor
    scores: Tensor
    texts: tuple[str, ...]

    def plot(self, path: str | os.PathLike) -> None:
        """Draw the curves into a file, whose name must end in .html."""
        if Path(path).suffix != ".html":
            raise ValueError(f"{path}: the name must end in .html")
        times = self.times.tolist()
        series = {
            text: list(zip(times, self.scores[:, number].tolist()))
            for number, text in enumerate(self.texts)
        }
        write_page(path, "Similarity over time", [line_chart("cosine over seconds", series)])


def compare_windows(
    windows: Iterable[tuple[int, Tensor]],
    embed: Callable[[Tensor], Tensor],
    text: Tensor,
    texts: Sequence[str],
    per_batch: int,
) -> Timeline:
    """Compare captions with windows of a recording.

    Arguments
    ---------
    windows : iterable of (int, Tensor)
        As :func:`sliding_windows` yields them.
    embed : callable
        Takes windows [B, T] and returns embeddings [B, D].
    text : Tensor
        [N, D], embeddings of the captions.
    texts : sequence of str
        The N captions.
    per_batch : int
        Windows that are embedded at once.

    Example
    -------
    >>> windows = sliding_windows([torch.ones(32000)], window=1.0, hop=0.5)
    >>> embed = lambda wavs: torch.ones(len(wavs), 2) / 2**0.5
    >>> compare_windows(windows, embed, torch.eye(2), ["A man.", "A woman."], 2).times.tolist()
    [0.5, 1.0, 1.5]
    """
    windows = iter(windows)
    centers, scores = [], []
    while batch := list(islice(windows, per_batch)):
        centers += [(start + len(part) / 2) / SAMPLE_RATE for start, part in batch]
        wavs = torch.stack([part for _, part in batch])
        scores.append((embed(wavs) @ text.T).cpu())
    return Timeline(torch.tensor(centers), torch.cat(scores), tuple(texts))


def sliding_windows(
    blocks: Iterable[Tensor], window: float, hop: float
) -> Iterator[tuple[int, Tensor]]:
    """Cut a recording that comes in blocks into windows: one every hop, and one at its end.

    Blocks are [T] at 16 kHz, of which no more than one and a window is held. Yields the first
    sample's number and [S] for each window of so many seconds; a shorter recording is one window.

    Example
    -------
    >>> blocks = torch.zeros(3, 16000)
    >>> [start for start, _ in sliding_windows(blocks, window=2.0, hop=0.75)]
    [0, 12000, 16000]
    """
    if not (MINIMUM_SECONDS <= window < math.inf and SHORTEST_HOP <= hop < math.inf):
        raise ValueError(
            f"window must be at least {MINIMUM_SECONDS} s and hop {SHORTEST_HOP} s, both finite;"
            f" not {window} and {hop}"
        )
    size, step = (max(1, round(seconds * SAMPLE_RATE)) for seconds in (window, hop))
    held, origin, start, newest = torch.empty(0), 0, 0, -1  # held begins at sample origin
    for block in blocks:
        held = torch.cat([held, block])
        while start + size <= origin + len(held):
            yield start, held[start - origin : start - origin + size]
            newest, start = start, start + step
        # The last window may begin before the next one of the grid.
        needed = max(origin, min(start, origin + len(held) - size))
        held, origin = held[needed - origin :], needed
    last = max(0, origin + len(held) - size)
    if last != newest:
        yield last, held[last - origin :]
