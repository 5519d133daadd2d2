"""Attributes of speech that are told by zero-shot classification, and must have a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

from speechbrain_clsp.lobes.prompt_bank import embed_classes, prompt_groups
from speechbrain_clsp.utils.checks import quote
from speechbrain_clsp.utils.reading import read_json

Attributes = Mapping[str, Mapping[str, str | Sequence[str]]]


@lru_cache(maxsize=1)
def read_attributes() -> dict[str, dict[str, list[str]]]:
    """Return the prompts that come with the package, by attribute and value.

    Example
    -------
    >>> list(read_attributes()), list(read_attributes()["gender"])
    (['gender', 'age', 'emotion', 'rate', 'pitch', 'loudness'], ['female', 'male'])
    """
    return read_json(Path(__file__).with_suffix(".json"))


def check_requirements(require: Any, attributes: Attributes) -> dict[str, str]:
    """Return the values that attributes must have; {} for None.

    Raises
    ------
    ValueError
        If there are no prompts for an attribute or a value.

    Example
    -------
    >>> check_requirements({"gender": "woman"}, read_attributes())
    Traceback (most recent call last):
    ...
    ValueError: require: 'gender' must be one of ['female', 'male'], not 'woman'
    """
    if not isinstance(require or {}, Mapping):
        raise TypeError(f"require must be a dict {{attribute: value}}, not {quote(require)}")
    found = dict(require or {})
    for name, value in found.items():
        if name not in attributes:
            raise ValueError(f"require: {quote(name)} is none of {list(attributes)}")
        if value not in prompt_groups(attributes[name]):
            raise ValueError(
                f"require: {name!r} must be one of {list(attributes[name])}, not {quote(value)}"
            )
    return found


def tell_attributes(
    speech: Tensor,
    names: Sequence[str],
    encode_text: Callable[[Sequence[str]], Tensor],
    attributes: Attributes,
) -> dict[str, list[str]]:
    """Return the value of attributes whose prompts are nearest to each clip.

    Arguments
    ---------
    speech : Tensor
        [B, D] of unit norm.
    names : sequence of str
        Which attributes.
    encode_text : callable
        Captions -> embeddings [N, D] of unit norm.
    attributes : dict
        Prompts by attribute and value.

    Example
    -------
    >>> import torch
    >>> vectors = {"low": torch.tensor([1.0, 0.0]), "high": torch.tensor([0.0, 1.0])}
    >>> encode_text = lambda texts: torch.stack([vectors[text] for text in texts])
    >>> tell_attributes(torch.eye(2), ["pitch"], encode_text, {"pitch": {"l": "low", "h": "high"}})
    {'pitch': ['l', 'h']}
    """
    told = {}
    for name in names:
        values = list(attributes[name])
        classes = embed_classes(encode_text, attributes[name])
        nearest = (speech @ classes.to(speech).T).argmax(dim=1)
        told[name] = [values[index] for index in nearest.tolist()]
    return told
