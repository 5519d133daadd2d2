"""A classifier whose classes are prompts, for SpeechBrain's EncoderClassifier."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PromptBank(nn.Module):
    """Log posteriors of classes that are given by text embeddings.

    Arguments
    ---------
    n_classes : int
        Number N of classes.
    joint_dim : int
        Size D of the embeddings.

    Example
    -------
    >>> bank = PromptBank(2, 3)
    >>> bank.fill(torch.eye(3)[:2], torch.tensor(10.0))
    >>> bank(torch.eye(3)[1:2]).argmax(dim=-1).item()
    1
    """

    def __init__(self, n_classes: int, joint_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_classes, joint_dim), requires_grad=False)

    @torch.no_grad()
    def fill(self, prompts: Tensor, logit_scale: Tensor) -> None:
        """Take over class vectors [N, D] of unit norm, and the model's factor on cosines."""
        self.weight.copy_(logit_scale * prompts)

    def forward(self, speech: Tensor) -> Tensor:
        """Map embeddings [..., D] to log posteriors [..., N]."""
        return (speech @ self.weight.T).log_softmax(dim=-1)


class Unnormalized(nn.Module):
    """Passes waveforms on as they are: the tower has its own front end.

    Example
    -------
    >>> Unnormalized()(torch.ones(1, 2), torch.ones(1)).tolist()
    [[1.0, 1.0]]
    """

    def forward(self, wavs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the waveforms [B, T]."""
        return wavs
