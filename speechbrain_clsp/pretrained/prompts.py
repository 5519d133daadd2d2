"""Classes that are given by prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Prompts = Sequence[str] | Mapping[str, str | Sequence[str]]


def prompt_groups(prompts: Mapping[str, str | Sequence[str]]) -> dict[str, list[str]]:
    """Return the prompts of each label as a list.

    Raises
    ------
    ValueError
        If there is no label, or a label has no prompt.
    TypeError
        If the prompts of a label are not str or a list.

    Example
    -------
    >>> prompt_groups({"male": "a male speaker", "rest": ["a speaker", "speech"]})
    {'male': ['a male speaker'], 'rest': ['a speaker', 'speech']}
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
    """Embed classes.

    Arguments
    ---------
    encode_text : callable
        Captions -> embeddings [N, D] of unit norm.
    prompts : list of str, or dict
        A prompt for each class; or label -> one or several prompts, whose embeddings are averaged.

    Returns
    -------
    Tensor
        [N, D] of unit norm, one row for each class.

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
