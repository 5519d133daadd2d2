"""Checks of what users give to a CLSP, with errors of one line."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from speechbrain_clsp.dataio.audio import MAXIMUM_AMPLITUDE

RELATIVE_SLACK = 1e-6  # float32 rounding of relative lengths


def check_batch(wavs: Tensor, wav_lens: Tensor) -> None:
    """Raise for shapes, samples and relative lengths that no recording has.

    Example
    -------
    >>> import torch
    >>> check_batch(torch.zeros(2, 16000), torch.tensor([1.0, 0.5]))
    >>> check_batch(torch.zeros(2, 16000), torch.tensor([16000, 8000]))
    Traceback (most recent call last):
    ValueError: wav_lens must be relative, in (0, 1]: divide lengths by wavs.shape[1]
    """
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
    """Return the captions as a list; raise for a str, other types, no caption and empty ones.

    Example
    -------
    >>> check_texts("A man whispers.")
    Traceback (most recent call last):
    ...
    TypeError: texts must be a list of captions, not a str: use ['A man whispers.']
    """
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
