"""A policy that chooses settings of a synthesizer from the embedding of a caption."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor, nn
from torch.distributions import Categorical


class ProsodyPolicy(nn.Module):
    """Independent choices, each a softmax over an MLP's outputs; uniform at the start.

    Arguments
    ---------
    size : int
        Size of captions' embeddings.
    choices : sequence of int
        How many values each setting has.
    hidden : int
        Size of the hidden layer.

    Example
    -------
    >>> policy = ProsodyPolicy(4, [3, 2])
    >>> actions, log_probs = sample(policy(torch.randn(5, 4)), 7)
    >>> actions.shape, log_probs.shape
    (torch.Size([5, 7, 2]), torch.Size([5, 7]))
    """

    def __init__(self, size: int, choices: Sequence[int], hidden: int = 128) -> None:
        super().__init__()
        self.choices = list(choices)
        self.layers = nn.Sequential(
            nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, sum(self.choices))
        )
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, captions: Tensor) -> list[Tensor]:
        """Return log-probabilities of every setting's values, [B, n] each."""
        # Embeddings have unit norm: their values are small.
        logits = self.layers(captions * captions.shape[-1] ** 0.5)
        return [part.log_softmax(dim=-1) for part in logits.split(self.choices, dim=-1)]


def sample(settings: Sequence[Tensor], count: int) -> tuple[Tensor, Tensor]:
    """Draw ``count`` actions per caption: [B, G, S] int64, and their log-probabilities [B, G]."""
    choices = [Categorical(logits=part) for part in settings]
    actions = [choice.sample((count,)) for choice in choices]
    log_probs = sum(choice.log_prob(action) for choice, action in zip(choices, actions))
    return torch.stack(actions, dim=-1).transpose(0, 1), log_probs.T


def likeliest(settings: Sequence[Tensor]) -> Tensor:
    """Return the likeliest action of each caption, [B, S] int64.

    Example
    -------
    >>> likeliest([torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.2, 0.3, 0.5]]).log()])
    tensor([[0, 2]])
    """
    return torch.stack([part.argmax(dim=-1) for part in settings], dim=-1)


def divergence_from_start(settings: Sequence[Tensor]) -> Tensor:
    """Return the Kullback-Leibler divergence from the uniform policy, [B], in nats.

    Example
    -------
    >>> divergence_from_start([torch.tensor([[0.5, 0.5], [0.9999999, 1e-7]]).log()])
    tensor([0.0000, 0.6931])
    """
    return sum(log(part.shape[-1]) - Categorical(logits=part).entropy() for part in settings)
