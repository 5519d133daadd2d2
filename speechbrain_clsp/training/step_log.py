"""A log of single training steps, and stack traces of processes that stall."""

from __future__ import annotations

import faulthandler
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from speechbrain.utils.distributed import if_main_process
from torch import Tensor
from torch.nn.functional import pdist

from speechbrain_clsp.dataio.audio import SAMPLE_RATE
from speechbrain_clsp.dataio.dataset import CaptionedSpeech
from speechbrain_clsp.utils.distributed import all_gather_scalars


class StepLog:
    """Writes a line of JSON every so many steps, and the stacks of a process that stalls.

    A line holds ``step``, ``epoch``, ``loss`` and ``chance`` (the contrastive loss at chance
    level), ``alignment`` and ``uniformity`` (arXiv 2005.10242: the mean squared distance
    of pairs, and the logarithm of the mean Gaussian potential, each lower is better),
    ``logit_scale``, ``lr``, the gradient's norm for each module, ``audio_seconds_per_second`` of
    all ranks since the last line, ``memory_gib`` (peak of the GPU) and ``duplicate_captions``, the
    part of the positive captions in this rank's batch that another clip has too.

    Arguments
    ---------
    path : str
        File to append to.
    every : int
        Steps between lines.
    stall_seconds : float, optional
        If no step ends for so long, every thread's stack is printed to the standard error, again
        and again, on each rank that stalls. Default: never.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> batch = SimpleNamespace(wavs=torch.ones(2, 16000), wav_lens=torch.ones(2), n_positives=1,
    ...                         caption_ids=torch.tensor([[1, 2]]))
    >>> log, loss = StepLog(getfixture("tmp_path") / "steps.jsonl", every=2), torch.tensor(0.5)
    >>> for step in (1, 2):
    ...     log.update(batch, torch.eye(2), torch.eye(2), step=step, loss=loss, logit_scale=loss)
    >>> json.loads(log.path.read_text())["alignment"]
    0.0
    """

    def __init__(self, path: str, every: int = 50, stall_seconds: float | None = None) -> None:
        self.path = Path(path)
        self.every = every
        self.stall_seconds = stall_seconds
        self.seconds = 0.0
        self.since: float | None = None

    def update(
        self,
        batch: CaptionedSpeech,
        speech: Tensor,
        text: Tensor,
        *,
        step: int,
        loss: Tensor,
        logit_scale: Tensor,
        **values: Any,
    ) -> None:
        """Count a step and write a line, if it is time.

        Arguments
        ---------
        batch : CaptionedSpeech
            This rank's batch.
        speech, text : Tensor
            [B, D], its embeddings and those of the clips' first texts.
        step : int
            Optimizer steps done so far.
        loss, logit_scale : Tensor
            0-dim or [1]; read only when a line is written.
        **values
            Written as they are, such as ``epoch``, ``chance``, ``clips``, ``lr`` and
            ``gradient_norms``.
        """
        if self.stall_seconds is not None:
            stderr = sys.__stderr__ or sys.stderr
            faulthandler.dump_traceback_later(self.stall_seconds, repeat=True, file=stderr)
        now = time.perf_counter()
        since = self.since = self.since or now
        self.seconds += float(batch.wav_lens.sum()) * batch.wavs.shape[1] / SAMPLE_RATE
        if step % self.every:
            return
        losses, seconds = all_gather_scalars([loss.item(), self.seconds], speech.device)
        on_gpu = speech.device.type == "cuda"
        line = {
            "step": step,
            "loss": sum(losses) / len(losses),
            **geometry(speech, text),
            "logit_scale": logit_scale.item(),
            **values,
            "audio_seconds_per_second": sum(seconds) / max(now - since, 1e-9),
            "memory_gib": torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None,
            "duplicate_captions": duplicate_rate(batch.caption_ids[: batch.n_positives]),
        }
        self.seconds = 0.0
        self.since = now
        if if_main_process():
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def pause(self) -> None:
        """Stop the clock until the next step, at an epoch's end."""
        faulthandler.cancel_dump_traceback_later()
        self.seconds = 0.0
        self.since = None


def chance_level_loss(n_clips: int, n_positives: int) -> float:
    """Return the contrastive loss at chance level, when all similarities are equal.

    Arguments
    ---------
    n_clips : int
        Clips in the joined batch.
    n_positives : int
        True texts per clip.

    Example
    -------
    >>> chance_level_loss(1024, 1) == math.log(1024)
    True
    """
    return (math.log(n_positives * n_clips) + math.log(n_clips)) / 2


def geometry(speech: Tensor, text: Tensor) -> dict[str, float]:
    """Return alignment and uniformity (Wang and Isola, arXiv 2005.10242, section 4.1).

    Arguments
    ---------
    speech, text : Tensor
        [B, D] of unit norm; row i of one belongs to row i of the other.

    Returns
    -------
    dict
        ``alignment`` in [0, 4], ``speech_uniformity`` and ``text_uniformity`` in [-8, 0]; the
        latter are NaN for a single clip.

    Example
    -------
    >>> metrics = geometry(torch.eye(2), torch.eye(2))
    >>> metrics["alignment"], round(metrics["text_uniformity"], 6)  # exp(-2 * 2) for the one pair
    (0.0, -4.0)
    """
    speech, text = speech.float(), text.float()
    metrics = {"alignment": (speech - text).square().sum(dim=1).mean().item()}
    for name, x in (("speech", speech), ("text", text)):
        potentials = pdist(x).square().mul(-2).exp()
        metrics[f"{name}_uniformity"] = potentials.mean().log().item()
    return metrics


def duplicate_rate(caption_ids: Tensor) -> float:
    """Return the part of the captions [K, B] that some other clip of the batch has too.

    Example
    -------
    >>> duplicate_rate(torch.tensor([[1, 1, 2, 3], [4, 4, 4, 5]]))
    0.625
    """
    n_clips = caption_ids.shape[1]
    # A clip that has one caption twice does not duplicate another's.
    pairs = torch.stack([caption_ids, torch.arange(n_clips).expand_as(caption_ids)], dim=-1)
    unique = pairs.flatten(0, 1).unique(dim=0)[:, 0]
    values, counts = unique.unique(return_counts=True)
    shared = values[counts > 1]
    return torch.isin(caption_ids, shared).float().mean().item()
