"""Classes that are given by prompts, and a classifier of them for SpeechBrain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

Prompts = Sequence[str] | Mapping[str, str | Sequence[str]]


def prompt_groups(prompts: Mapping[str, str | Sequence[str]]) -> dict[str, list[str]]:
    """Return the prompts of each label as a list.

    Raises
    ------
    ValueError
        If there is no label, or a label has no prompt.
    TypeError
        If the prompts of a label are not str or a list.
    """
    if not prompts:
        raise ValueError("prompts is empty: give at least one label with a prompt")
    for label, group in prompts.items():
        if not isinstance(group, str | list | tuple):
            raise TypeError(f"The prompts of label {label!r} must be a str or a list of str")
        if not group:
            raise ValueError(f"Label {label!r} has no prompt")
    return {k: [group] if isinstance(group, str) else list(group) for k, group in prompts.items()}


def embed_classes(encode_text: Callable[[Sequence[str]], Tensor], prompts: Prompts) -> Tensor:
    """Embed classes; returns [N, D] of unit norm, one row for each class.

    Arguments
    ---------
    encode_text : callable
        Captions -> embeddings [N, D] of unit norm.
    prompts : list of str, or dict
        A prompt for each class; or label -> one or several prompts, whose embeddings are averaged.

    Example
    -------
    >>> embed_classes(lambda texts: torch.eye(2)[: len(texts)], {"a": ["x", "y"], "b": "x"})
    tensor([[0.7071, 0.7071],
            [1.0000, 0.0000]])
    """
    if not isinstance(prompts, Mapping):
        return encode_text(prompts)
    groups = prompt_groups(prompts).values()
    classes = torch.stack([encode_text(group).mean(dim=0) for group in groups])
    return torch.nn.functional.normalize(classes, dim=-1)


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
