"""Guards of a reward: checks of length, level and words, which a style score does not include.

A guard takes (wavs [B, T], wav_lens [B], captions, texts), 16 kHz, and returns B bool, a Tensor, an
array or a list, True where a clip passes. Any callable will do. Its ``name``, or that of the
function, appears in what :meth:`~speechbrain_clsp.inference.reward.StyleReward.explain` returns;
the second of that name is called ``name 2``.

A clip that cannot be embedded (NaN, too short) comes to a guard as silence, and does not pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from speechbrain.utils.edit_distance import accumulatable_wer_stats
from torch import Tensor

from speechbrain_clsp.dataio.audio import SAMPLE_RATE
from speechbrain_clsp.utils.checks import as_list, quote
from speechbrain_clsp.utils.words import words_of

FRAME = 400  # samples: 25 ms
SILENT = 40.0  # dB below the loudest frame


def _check_limits(low: float, high: float, names: str) -> None:
    """Raise ValueError if no clip could pass."""
    if not low <= high:
        raise ValueError(f"{names}: no clip lies between {low} and {high}")


@dataclass
class LengthGuard:
    """Passes clips of a length within limits: else saying more, or nothing, could win a reward.

    Arguments
    ---------
    shortest, longest : float
        Seconds.

    Raises
    ------
    ValueError
        If no clip could pass.

    Example
    -------
    >>> guard = LengthGuard(0.5, 1.5)
    >>> guard(torch.zeros(2, 32000), torch.tensor([0.5, 1.0]), ["", ""], None).tolist()
    [True, False]
    """

    name: ClassVar[str] = "length"
    shortest: float = 0.3
    longest: float = 30.0

    def __post_init__(self) -> None:
        _check_limits(self.shortest, self.longest, "shortest and longest")

    def __call__(
        self, wavs: Tensor, wav_lens: Tensor, captions: Sequence[str], texts: Sequence[str] | None
    ) -> Tensor:
        """Check; see the module."""
        seconds = wav_lens * wavs.shape[1] / SAMPLE_RATE
        return (seconds >= self.shortest) & (seconds <= self.longest)


@dataclass
class LevelGuard:
    """Passes clips that are loud enough, are not clipped, and are not mostly silence.

    Arguments
    ---------
    quietest, loudest : float
        Root mean square, dB re full scale.
    most_silence : float
        Fraction of frames of 25 ms that may lie 40 dB below the loudest one.
    highest_peak : float
        Highest amplitude; players clip what is above 1.

    Raises
    ------
    ValueError
        If no clip could pass.

    Example
    -------
    >>> wavs = torch.stack([torch.zeros(16000), 0.1 * torch.randn(16000), 3 * torch.ones(16000)])
    >>> LevelGuard()(wavs, torch.ones(3), [""] * 3, None).tolist()
    [False, True, False]
    """

    name: ClassVar[str] = "level"
    quietest: float = -60.0
    loudest: float = -3.0
    most_silence: float = 0.6
    highest_peak: float = 1.0

    def __post_init__(self) -> None:
        _check_limits(self.quietest, self.loudest, "quietest and loudest")
        _check_limits(0.0, self.most_silence, "most_silence, a fraction")
        _check_limits(0.0, self.highest_peak, "highest_peak, an amplitude")

    def __call__(
        self, wavs: Tensor, wav_lens: Tensor, captions: Sequence[str], texts: Sequence[str] | None
    ) -> Tensor:
        """Check; see the module."""
        passes = []
        for wav, fraction in zip(wavs.detach(), wav_lens.tolist()):
            wav = wav[: max(1, round(fraction * len(wav)))]
            level = _decibels(wav.square().mean())
            powers = wav[: len(wav) // FRAME * FRAME].reshape(-1, FRAME).square().mean(dim=1)
            frames = _decibels(powers) if len(powers) else level[None]
            silence = (frames < frames.max() - SILENT).float().mean()
            passes.append(
                (level >= self.quietest)
                & (level <= self.loudest)
                & (silence <= self.most_silence)
                & (wav.abs().max() <= self.highest_peak)
            )
        return torch.stack(passes)


@dataclass
class WordErrorGuard:
    """Passes clips that a recognizer understands: style must not cost the words.

    Arguments
    ---------
    recognizer : EncoderASR or callable
        A SpeechBrain recognizer with ``transcribe_batch``, or that method, or any (wavs [B, T],
        wav_lens [B]) -> list of B str.
    most : float
        Highest word error rate that passes; see :func:`word_error_rate`.

    Raises
    ------
    TypeError, ValueError
        If there are no texts, or the recognizer does not give one transcript per clip.

    Example
    -------
    >>> guard = WordErrorGuard(lambda wavs, wav_lens: ["COME IN", "so what"], most=0.3)
    >>> guard(torch.zeros(2, 9), torch.ones(2), [], ["Come in!", "Go home."]).tolist()
    [True, False]
    """

    name: ClassVar[str] = "words"
    recognizer: Any
    most: float = 0.3

    def __call__(
        self, wavs: Tensor, wav_lens: Tensor, captions: Sequence[str], texts: Sequence[str] | None
    ) -> Tensor:
        """Check; see the module."""
        if texts is None:
            raise ValueError("WordErrorGuard needs texts, what each clip should say")
        transcripts = self._transcribe(wavs.detach(), wav_lens)
        rates = [word_error_rate(found, text) for found, text in zip(transcripts, texts)]
        return torch.tensor(rates, device=wavs.device) <= self.most

    @torch.no_grad()
    def _transcribe(self, wavs: Tensor, wav_lens: Tensor) -> list[str]:
        """Return a transcript per clip, from whichever form a recognizer gives them in."""
        found = getattr(self.recognizer, "transcribe_batch", self.recognizer)(wavs, wav_lens)
        if isinstance(found, tuple) and found and not isinstance(found[0], str):
            found = found[0]  # SpeechBrain's: transcripts, tokens
        transcripts = [
            " ".join(map(str, each)) if isinstance(each, list | tuple) else each
            for each in as_list(found, "The recognizer's answer", "transcripts")
        ]
        if len(transcripts) != len(wavs):
            raise ValueError(
                f"The recognizer gave {len(transcripts)} transcripts for {len(wavs)} clips"
            )
        for number, each in enumerate(transcripts):
            if not isinstance(each, str):
                raise TypeError(f"The recognizer's transcript {number} is {quote(each)}, not a str")
        return transcripts


@dataclass
class AgreementGuard:
    """Passes clips that a second reward model rewards as well: one model alone can be fooled.

    Arguments
    ---------
    other : StyleReward
        Of another CLSP, best with a scaling that has a meaning, such as ``margin``.
    least : float
        Its reward, at least.

    Example
    -------
    >>> def other(wavs, captions, wav_lens):
    ...     return torch.tensor([0.2, -0.1])
    >>> AgreementGuard(other)(torch.zeros(2, 9), torch.ones(2), ["A.", "B."], None).tolist()
    [True, False]
    """

    name: ClassVar[str] = "agreement"
    other: Callable[..., Tensor]
    least: float = 0.0

    def __call__(
        self, wavs: Tensor, wav_lens: Tensor, captions: Sequence[str], texts: Sequence[str] | None
    ) -> Tensor:
        """Check; see the module."""
        with torch.no_grad():
            return self.other(wavs.detach(), captions, wav_lens) >= self.least


def word_error_rate(transcript: str, text: str) -> float:
    """Return the edit distance of words over the number of words of ``text``.

    Words are those of :func:`~speechbrain_clsp.utils.words.words_of`: case, punctuation and forms
    of apostrophes and accents do not count, and Chinese characters are words.

    Example
    -------
    >>> word_error_rate("the cat sat", "The cat sat down.")
    0.25
    """
    found, expected = words_of(transcript), words_of(text)
    if not expected:
        return float(bool(found))
    return accumulatable_wer_stats([expected], [found])["WER"] / 100


def name_guards(guards: Sequence[Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """Return guards by a name that each has alone.

    Example
    -------
    >>> list(name_guards([LengthGuard(0.5), LengthGuard(0.1), max]))
    ['length', 'length 2', 'max']
    """
    named: dict[str, Callable[..., Any]] = {}
    for guard in guards:
        name = getattr(guard, "name", None) or getattr(guard, "__name__", type(guard).__name__)
        unique, number = str(name), 1
        while unique in named:
            number += 1
            unique = f"{name} {number}"
        named[unique] = guard
    return named


def check_passes(passes: Any, name: str, wavs: Tensor) -> Tensor:
    """Return what a guard gave as [B] bool on the device of ``wavs`` [B, T].

    Raises
    ------
    TypeError, ValueError
        If it is not one bool per clip, or 1 or 0 in its place; the message names the guard.

    Example
    -------
    >>> check_passes([True, False], "length", torch.zeros(2, 9)).tolist()
    [True, False]
    """
    wrong = f"The guard {name!r} must return {len(wavs)} bool, one per clip, not {quote(passes)}"
    try:
        found = torch.as_tensor(passes) if isinstance(passes, Tensor) else torch.tensor(passes)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(wrong) from error
    if found.shape != (len(wavs),):
        raise ValueError(f"{wrong}, of shape {list(found.shape)}")
    if not ((found == 0) | (found == 1)).all():
        raise ValueError(wrong)
    return found.to(wavs.device, torch.bool)


def _decibels(power: Tensor) -> Tensor:
    return 10 * power.clamp_min(1e-12).log10()
