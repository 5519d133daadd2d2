"""Guards of a reward: checks of length, level and words, which a style score does not include.

A guard takes (wavs [B, T], wav_lens [B], captions, texts), 16 kHz, and returns [B] bool, True where
a clip passes. Any callable will do; its ``name``, if it has one, appears in what
:meth:`~speechbrain_clsp.inference.reward.StyleReward.explain` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from speechbrain.utils.edit_distance import accumulatable_wer_stats
from torch import Tensor

from speechbrain_clsp.dataio.audio import SAMPLE_RATE

FRAME = 400  # samples: 25 ms
SILENT = 40.0  # dB below the loudest frame


@dataclass
class LengthGuard:
    """Passes clips of a length within limits: else saying more, or nothing, could win a reward.

    Arguments
    ---------
    shortest, longest : float
        Seconds.

    Example
    -------
    >>> guard = LengthGuard(0.5, 1.5)
    >>> guard(torch.zeros(2, 32000), torch.tensor([0.5, 1.0]), ["", ""], None).tolist()
    [True, False]
    """

    name: ClassVar[str] = "length"
    shortest: float = 0.3
    longest: float = 30.0

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
        A SpeechBrain recognizer with ``transcribe_batch``, or (wavs [B, T], wav_lens [B]) -> list
        of B str.
    most : float
        Highest word error rate that passes.

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
    def _transcribe(self, wavs: Tensor, wav_lens: Tensor) -> Sequence[str]:
        if hasattr(self.recognizer, "transcribe_batch"):
            transcripts, _ = self.recognizer.transcribe_batch(wavs, wav_lens)  # and tokens
            return transcripts
        return self.recognizer(wavs, wav_lens)


@dataclass
class AgreementGuard:
    """Passes clips that a second reward model rewards as well: one model alone can be fooled.

    Arguments
    ---------
    other : StyleReward
        Of another CLSP, best with a scaling that has a meaning, such as ``margin``.
    least : float
        Its reward, at least.
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

    Case and punctuation do not count.

    Example
    -------
    >>> word_error_rate("the cat sat", "The cat sat down.")
    0.25
    """
    found, expected = _words(transcript), _words(text)
    if not expected:
        return float(bool(found))
    return accumulatable_wer_stats([expected], [found])["WER"] / 100


def _words(text: str) -> list[str]:
    return "".join(c if c.isalnum() or c == "'" else " " for c in text.lower()).split()


def _decibels(power: Tensor) -> Tensor:
    return 10 * power.clamp_min(1e-12).log10()
