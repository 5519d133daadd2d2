"""What the interface accepts; everything else is told in one clear line."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from speechbrain_clsp.dataio.audio import MAXIMUM_AMPLITUDE

RELATIVE_SLACK = 1e-6  # float32 rounding of relative lengths
Prompts = Sequence[str] | Mapping[str, str | Sequence[str]]


def check_source(source: str | os.PathLike, hparams_file: str) -> None:
    """Refuse what is neither a model folder nor, by its form, a Hub repository."""
    folder = Path(source)
    if folder.is_dir():
        if not (folder / hparams_file).is_file():
            raise FileNotFoundError(f"{folder} is no model folder: it has no {hparams_file}")
    elif folder.is_absolute() or len(folder.parts) != 2 or str(source).startswith("."):
        raise FileNotFoundError(
            f"No model folder {source}: train one with `make demo`, or name a folder or a"
            " Hub repository (user/name)"
        )


def check_batch(wavs: Tensor, wav_lens: Tensor) -> None:
    """Refuse shapes, samples and relative lengths that no recording has."""
    if wavs.dim() != 2 or not wavs.numel():
        raise ValueError(f"wavs must be [B, T] or [T] and not empty; it is {list(wavs.shape)}")
    usable = wavs.detach().abs().amax(dim=1) <= MAXIMUM_AMPLITUDE  # NaN compares false
    if not usable.all():
        bad = (~usable).nonzero().flatten().tolist()
        raise ValueError(
            f"Rows {bad} of wavs hold samples that are NaN, infinite or far beyond [-1, 1]"
            " (16-bit values must be divided by 32768)"
        )
    if wav_lens.shape != wavs.shape[:1]:
        raise ValueError(f"wav_lens must be [{len(wavs)}], not {list(wav_lens.shape)}")
    if not ((wav_lens > 0) & (wav_lens <= 1 + RELATIVE_SLACK)).all():
        raise ValueError("wav_lens must be relative, in (0, 1]: divide lengths by wavs.shape[1]")


def check_texts(texts: Sequence[str]) -> list[str]:
    """Return the captions as a list; refuse a str, other types, no caption and empty ones."""
    if isinstance(texts, str):
        raise TypeError(f"texts must be a list of captions, not a str: use [{texts!r}]")
    texts = list(texts)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("texts must be a list of str")
    if not texts:
        raise ValueError("texts is empty: give at least one caption")
    if not all(text.strip() for text in texts):
        raise ValueError(f"Caption {[bool(t.strip()) for t in texts].index(False)} is empty")
    return texts


def prompt_groups(prompts: Mapping[str, str | Sequence[str]]) -> list[list[str]]:
    """Return the prompts of each label as a list."""
    if not prompts:
        raise ValueError("prompts is empty: give at least one label with a prompt")
    for label, group in prompts.items():
        if not isinstance(group, str | list | tuple):
            raise TypeError(f"The prompts of label {label!r} must be a str or a list of str")
        if not group:
            raise ValueError(f"Label {label!r} has no prompt")
    return [[group] if isinstance(group, str) else list(group) for group in prompts.values()]
