"""A metric of torchmetrics: how well speech fits its descriptions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from speechbrain_clsp.inference.clsp import CLSP


class CLSPScore(Metric):
    """The mean cosine of clips and their own captions, such as of synthesized speech and requests.

    Sum and number are kept, so that batches of any size and several processes give the mean over
    all clips. The model is part of the metric and moves with it.

    Arguments
    ---------
    clsp : CLSP, str or path
        The model, or what ``CLSP.from_pretrained`` opens.
    **options
        Those of torchmetrics' ``Metric``, such as ``dist_sync_on_step``.

    Example
    -------
    >>> metric = CLSPScore("results/mini/model")  # doctest: +SKIP
    >>> metric(torch.rand(2, 16000), ["A man whispers.", "A woman speaks."])  # doctest: +SKIP
    tensor(0.1204)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = -1.0
    plot_upper_bound = 1.0
    total: Tensor
    count: Tensor

    def __init__(self, clsp: CLSP | str, **options: Any) -> None:
        super().__init__(**options)
        self.clsp = clsp if isinstance(clsp, CLSP) else CLSP.from_pretrained(clsp)
        # Float64: a sum of millions of cosines in float32 loses digits.
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @torch.no_grad()
    def update(self, wavs: Tensor, texts: Sequence[str], wav_lens: Tensor | None = None) -> None:
        """Add clips with one caption each.

        Arguments
        ---------
        wavs : Tensor
            [B, T] or [T], 16 kHz mono, in [-1, 1], zero padded.
        texts : list of str
            B captions.
        wav_lens : Tensor, optional
            [B] relative to T; default: no padding.

        Raises
        ------
        TypeError, ValueError
            As ``CLSP.encode_batch`` and ``CLSP.encode_text``; and if there is not one caption for
            each clip.
        """
        speech, text = self.clsp.encode_batch(wavs, wav_lens), self.clsp.encode_text(texts)
        if len(speech) != len(text):
            raise ValueError(f"{len(speech)} clips need as many captions, not {len(text)}")
        self.total += (speech * text).sum(dim=1).double().sum()
        self.count += len(speech)

    def compute(self) -> Tensor:
        """Return the mean cosine in [-1, 1], a float32 scalar; NaN before the first update."""
        return (self.total / self.count).float()
