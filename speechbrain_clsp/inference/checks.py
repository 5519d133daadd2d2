"""Checks of what models get: paths, waveforms, lengths, numbers per clip and prompts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from speechbrain_clsp.dataio.audio import (
    MAXIMUM_AMPLITUDE,
    MINIMUM_SECONDS,
    SAMPLE_RATE,
    SMALLEST_INTEGER_PEAK,
    Source,
)
from speechbrain_clsp.lobes.prompt_bank import Prompts, prompt_groups
from speechbrain_clsp.utils.checks import as_list, check_texts, quote

RELATIVE_SLACK = 1e-6  # float32 rounding of relative lengths
MINIMUM_SAMPLES = round(MINIMUM_SECONDS * SAMPLE_RATE)


def check_paths(paths: Iterable[Source], entries: bool = True) -> list[Source]:
    """Return audio files as a list; raise for a single one and for none.

    Arguments
    ---------
    paths : iterable of str, path, bytes, binary file or dict
        As for :func:`~speechbrain_clsp.dataio.audio.read_audio`.
    entries : bool
        Whether to raise for an entry that is something else. Reading it raises, too.

    Example
    -------
    >>> check_paths(name + ".wav" for name in "ab")
    ['a.wav', 'b.wav']
    """
    paths = as_list(paths, "paths", "paths")
    if not paths:
        raise ValueError("paths is empty: give at least one audio file")
    for number, path in enumerate(paths):
        is_source = isinstance(path, str | os.PathLike | bytes | Mapping) or hasattr(path, "read")
        if entries and not (is_source or hasattr(path, "get_all_samples")):
            raise TypeError(
                f"paths[{number}] is {quote(path)}, a {type(path).__name__}: give the names of"
                " audio files"
            )
    return paths


def check_wavs(wavs: Any) -> Tensor:
    """Return waveforms as a floating-point Tensor [B, T] or [T].

    Raises
    ------
    TypeError
        If they are neither a Tensor nor an array.
    ValueError
        If values are integers or complex, or the shape is another one.

    Example
    -------
    >>> check_wavs(np.zeros((2, 16000))).shape
    torch.Size([2, 16000])
    """
    if isinstance(wavs, np.ndarray) and wavs.dtype.kind in "biufc":
        wavs = torch.from_numpy(np.array(wavs))  # a copy may be written to, and has no strides < 0
    if not isinstance(wavs, Tensor):
        raise TypeError(
            f"wavs must be a Tensor or an array of numbers, [B, T] or [T], not a"
            f" {type(wavs).__name__}; for audio files use the methods ..._file"
        )
    if wavs.layout != torch.strided:
        raise TypeError("wavs must be a dense Tensor, not a sparse one")
    if not wavs.is_floating_point():
        raise ValueError(
            f"wavs must hold floating-point samples in [-1, 1], not {wavs.dtype}: divide 16-bit"
            " values by 32768"
        )
    if wavs.dim() == 2 and wavs.shape[1] < MINIMUM_SAMPLES <= wavs.shape[0]:
        raise ValueError(
            f"wavs must be [B, T]; it is {list(wavs.shape)}: of [T, channels] give"
            " wavs.mean(1), [T]"
        )
    return wavs


def check_numbers(values: Any, name: str, count: int) -> Tensor:
    """Return a number per clip as a floating-point Tensor [count].

    Arguments
    ---------
    values : Tensor, array, list or column
        What a user gave.
    name : str
        What messages call it.
    count : int
        How many there must be.

    Example
    -------
    >>> check_numbers([1, 0.5], "wav_lens", 2)
    tensor([1.0000, 0.5000])
    """
    if not isinstance(values, Tensor):
        values = as_list(values, name, f"{count} numbers")
        try:
            values = torch.tensor([float(value) for value in values])
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"{name} must hold {count} numbers: {error}") from error
    if values.shape != (count,):
        raise ValueError(f"{name} must be [{count}], not {list(values.shape)}")
    if values.is_complex():
        raise TypeError(f"{name} must hold {count} real numbers, not {values.dtype}")
    return values if values.is_floating_point() else values.float()


def check_positive(value: Any, name: str) -> float:
    """Return a number above 0, perhaps infinite; raise by the name of an argument.

    Example
    -------
    >>> check_positive("60", "max_batch_seconds")
    60.0
    """
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be a number, not {quote(value)}") from error
    if not number > 0:
        raise ValueError(f"{name} must be positive, not {value}")
    return number


def check_wav_lens(wav_lens: Any, wavs: Tensor) -> Tensor:
    """Return relative lengths [B] on the device of ``wavs``; 1 for all if they are None.

    Lengths of 0 or NaN, as of clips without samples, pass: :func:`find_unusable` tells of them.

    Raises
    ------
    TypeError, ValueError
        If there is not one number per clip, or lengths are not relative.
    """
    if wav_lens is None:
        return torch.ones(len(wavs), device=wavs.device)
    wav_lens = check_numbers(wav_lens, "wav_lens", len(wavs)).to(wavs.device)
    if ((wav_lens < 0) | (wav_lens > 1 + RELATIVE_SLACK)).any():
        raise ValueError("wav_lens must be relative, in (0, 1]: divide lengths by wavs.shape[1]")
    return wav_lens


def find_unusable(wavs: Tensor, wav_lens: Tensor, rate: int = SAMPLE_RATE) -> list[str]:
    """Return for each clip why it cannot be embedded, "" if it can.

    Arguments
    ---------
    wavs : Tensor
        [B, T] float.
    wav_lens : Tensor
        [B] relative to T.
    rate : int
        Of ``wavs``, Hz.

    Example
    -------
    >>> wavs = torch.zeros(3, 16000)
    >>> wavs[0, 5] = torch.nan
    >>> find_unusable(wavs, torch.tensor([1.0, 1.0, 0.05]))[::2]
    ['has samples that are NaN or infinite', 'lasts 0.050 s, at least 0.1 s are needed']
    """
    wavs, n_samples = wavs.detach(), wavs.shape[1]
    peaks = wavs.abs().amax(dim=1) if n_samples else torch.zeros(len(wavs))
    return [
        _fault(wav, peak, fraction, rate)
        for wav, peak, fraction in zip(wavs, peaks.tolist(), wav_lens.tolist())
    ]


def _fault(wav: Tensor, peak: float, fraction: float, rate: int) -> str:
    if not np.isfinite(peak):
        return "has samples that are NaN or infinite"
    are_integers = peak >= SMALLEST_INTEGER_PEAK and torch.equal(wav, wav.round())
    if peak > MAXIMUM_AMPLITUDE or are_integers:
        return (
            f"has samples up to {peak:.4g}, far beyond [-1, 1] (16-bit values must be divided by"
            " 32768)"
        )
    if not fraction > 0:
        return f"has the relative length {fraction:g}: wav_lens must lie in (0, 1]"
    own = int(min(fraction, 1.0) * len(wav) + 0.5)
    if own < MINIMUM_SECONDS * rate:
        return f"lasts {own / rate:.3f} s, at least {MINIMUM_SECONDS} s are needed"
    return ""


def find_not_finite(embeddings: Tensor) -> list[int]:
    """Return which rows of embeddings [N, D] hold NaN or infinity.

    Example
    -------
    >>> find_not_finite(torch.tensor([[1.0, 0.0], [torch.nan, 0.0]]))
    [1]
    """
    return (~embeddings.isfinite().all(dim=1)).nonzero().flatten().tolist()


def check_prompts(prompts: Prompts) -> Prompts:
    """Return classes as a list of prompts, or as lists of prompts by label.

    Raises
    ------
    TypeError
        If prompts are not str.
    ValueError
        If there is no class, one has no prompt, or two have the same.

    Example
    -------
    >>> check_prompts({"m": "A man.", "f": ("A woman.", "A lady.")})
    {'m': ['A man.'], 'f': ['A woman.', 'A lady.']}
    """
    if not isinstance(prompts, Mapping):
        texts = check_texts(prompts, "prompts")
        known = [text.strip() for text in texts]
        for number, text in enumerate(known):
            if text in known[:number]:
                raise ValueError(
                    f"The prompt {quote(texts[number])} is given twice: classes must differ"
                )
        return texts
    groups: dict[str, list[str]] = {}
    for label, group in prompt_groups(prompts).items():
        group = check_texts(group, f"prompts[{label!r}]")
        for other, known in groups.items():
            if {text.strip() for text in known} == {text.strip() for text in group}:
                raise ValueError(f"The labels {other!r} and {label!r} have the same prompts")
        groups[label] = group
    return groups
