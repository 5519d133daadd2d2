"""Sample rate conversion, differentiable with respect to the waveform."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

ZERO_CROSSINGS = 10  # of the filter, on each side
KAISER_BETA = 5.0
VALUES_AT_ONCE = 1 << 22  # of inputs gathered for the filters, 16 MiB
CACHED_FILTERS = 8  # pairs of rates; that of 400 kHz takes 64 MB, that of 44.1 kHz 0.1


class _Filters(NamedTuple):
    """The low-pass filter of each output phase, in groups that read about the same inputs.

    Output ``up * q + p`` is the sum over i of ``h[p * down - i * up] * x[q * down + i]``, h being
    the low-pass filter around 0.
    """

    taps: Tensor  # [groups, span, phases]; phases from `up` on are 0
    inputs: Tensor  # [groups, span] int64, what a tap multiplies, from the stride's first input
    before: int  # how many inputs before q * down a stride begins
    width: int  # number of inputs that a stride reads


def resample(wavs: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Resample waveforms by a polyphase filter, as ``scipy.signal.resample_poly``.

    The low-pass filter has a Kaiser window (beta 5) and ten zero crossings on each side: to 16 kHz,
    it is flat to 0.3 dB up to 7 kHz, and at -57 dB from 10 kHz on. Beyond their ends, waveforms are
    taken to be 0. Memory is bounded for any pair of rates.

    Arguments
    ---------
    wavs : Tensor
        [..., T] float.
    from_rate, to_rate : int
        Hz.

    Returns
    -------
    Tensor
        [..., ceil(T * to_rate / from_rate)] of the same type, with gradients if ``wavs`` asks for
        them; ``wavs`` itself if the rates are equal.

    Raises
    ------
    ValueError
        If a rate is not a positive integer.

    Example
    -------
    >>> resample(torch.zeros(2, 22050), 22050, 16000).shape
    torch.Size([2, 16000])
    """
    up, down = _ratio(from_rate, to_rate)
    if up == down:
        return wavs
    size = -(-wavs.shape[-1] * up // down)
    if not wavs.numel():
        return torch.nn.functional.pad(wavs, (0, size))[..., :size]
    n_strides = max(1, -(-size // up))
    filters = _filters(up, down)
    taps = filters.taps.to(wavs.device, wavs.dtype)
    rows = wavs.reshape(-1, wavs.shape[-1])
    behind = (n_strides - 1) * down + filters.width - filters.before - wavs.shape[-1]
    padded = torch.nn.functional.pad(rows, (filters.before, max(0, behind)))
    if len(taps) == 1:
        found = torch.nn.functional.conv1d(padded[:, None], taps[0].T[:, None], stride=down)
        found = found[..., :n_strides].transpose(1, 2).flatten(1)
    else:
        inputs = filters.inputs.to(wavs.device).flatten()
        strides = padded.unfold(1, filters.width, down)[:, :n_strides]
        per_block = max(1, VALUES_AT_ONCE // max(1, len(rows) * len(inputs)))
        blocks = strides.split(per_block, dim=1)
        found = torch.cat([_filtered(block, taps, inputs, up) for block in blocks], dim=1)
    return found[:, :size].reshape(*wavs.shape[:-1], size)


def resample_blocks(blocks: Iterable[Tensor], from_rate: int, to_rate: int) -> Iterator[Tensor]:
    """Resample a waveform that comes in blocks; joined, the results are those of the whole.

    Blocks are [T] float, of any lengths; the rest is as for :func:`resample`. Each block is
    filtered together with the end of the one before. Outputs that need inputs of the next block are
    held back, and no more than a second and a block is in memory.

    Example
    -------
    >>> blocks = resample_blocks(torch.zeros(5, 22050), 22050, 16000)
    >>> sum(len(block) for block in blocks)
    80000
    """
    up, down = _ratio(from_rate, to_rate)
    if up == down:
        yield from blocks
        return
    half = ZERO_CROSSINGS * max(up, down)
    held, origin, done = torch.empty(0), 0, 0  # inputs from number origin on; outputs given
    for block in blocks:
        held = torch.cat([held.to(block), block])
        # Output n reads inputs from (n down - half) / up to (n down + half) / up.
        complete = -((half - (origin + len(held)) * up) // down)
        if complete > done:
            yield _part(held, origin, done, complete, from_rate, to_rate)
            done = complete
            # A multiple of down, so that the outputs' phases stay.
            needed = max(0, (done * down - half) // up // down * down)
            held, origin = held[needed - origin :].clone(), needed
    total = -(-(origin + len(held)) * up // down)
    if total > done:
        yield _part(held, origin, done, total, from_rate, to_rate)


def _part(wav: Tensor, origin: int, first: int, stop: int, from_rate: int, to_rate: int) -> Tensor:
    """Return outputs first to stop of a recording, given its inputs from number origin on."""
    before = origin * to_rate // from_rate
    return resample(wav, from_rate, to_rate)[first - before : stop - before]


def _filtered(strides: Tensor, taps: Tensor, inputs: Tensor, up: int) -> Tensor:
    """Filter strides [B, Q, width] by groups of phases; returns [B, Q * up]."""
    n_groups, span, n_phases = taps.shape
    n_rows = len(strides)
    gathered = strides.index_select(2, inputs).reshape(-1, n_groups, span).transpose(0, 1)
    outputs = torch.bmm(gathered, taps).transpose(0, 1).reshape(-1, n_groups * n_phases)
    return outputs[:, :up].reshape(n_rows, -1)


@lru_cache(maxsize=CACHED_FILTERS)
def _filters(up: int, down: int) -> _Filters:
    from scipy.signal import firwin  # takes a fifth of a second to import

    half = ZERO_CROSSINGS * max(up, down)
    low_pass = firwin(2 * half + 1, 1 / max(up, down), window=("kaiser", KAISER_BETA)) * up
    n_phases = min(up, max(1, 2 * half // down))  # then a group reads twice what one phase does
    n_groups = -(-up // n_phases)
    first_phases = np.arange(n_groups) * n_phases
    starts = -((half - first_phases * down) // up)  # the first input that has a tap
    span = ((n_phases - 1) * down + 2 * half) // up + 2
    inputs = starts[:, None] + np.arange(span)
    taps = np.zeros((n_groups, span, n_phases), dtype=np.float32)
    for phase in range(n_phases):
        place = (first_phases + phase)[:, None] * down - inputs * up + half
        inside = (place >= 0) & (place <= 2 * half) & (first_phases + phase < up)[:, None]
        taps[..., phase] = np.where(inside, low_pass[np.clip(place, 0, 2 * half)], 0.0)
    before = -int(starts[0])
    inputs = inputs + before
    tensors = torch.from_numpy(taps), torch.from_numpy(inputs)
    return _Filters(*tensors, before, int(inputs.max()) + 1)


def _ratio(from_rate: int, to_rate: int) -> tuple[int, int]:
    if not (from_rate == int(from_rate) > 0 and to_rate == int(to_rate) > 0):
        raise ValueError(f"Rates must be positive integers, not {from_rate} and {to_rate}")
    divisor = math.gcd(int(from_rate), int(to_rate))
    return int(to_rate) // divisor, int(from_rate) // divisor
