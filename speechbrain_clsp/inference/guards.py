"""What a rewarded clip must be like besides its style: checks that a reward model does not make.

A guard takes (wavs [B, T], wav_lens [B], captions, texts), 16 kHz, and returns [B] bool, True where
a clip passes. Any callable will do; its ``name``, if it has one, appears in what
:meth:`~speechbrain_clsp.inference.reward.StyleReward.explain` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

SAMPLE_RATE = 16000  # Hz
FRAME = 400  # samples: 25 ms
SILENT = 40.0  # dB below the loudest frame


class LengthGuard:
    """Passes clips of a sensible length: a reward must not be won by saying more, or nothing.

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

    name = "length"

    def __init__(self, shortest: float = 0.3, longest: float = 30.0) -> None:
        self.shortest, self.longest = shortest, longest

    def __call__(self, wavs: Tensor, wav_lens: Tensor, captions, texts) -> Tensor:
        """Check; see the module."""
        seconds = wav_lens * wavs.shape[1] / SAMPLE_RATE
        return (seconds >= self.shortest) & (seconds <= self.longest)


class LevelGuard:
    """Passes clips that can be heard, are not clipped, and are not mostly silence.

    Arguments
    ---------
    quietest, loudest : float
        Root mean square, dB re full scale.
    most_silence : float
        Share of frames of 25 ms that may lie 40 dB below the loudest one.
    highest_peak : float
        Amplitude; more is clipped by whatever plays it.

    Example
    -------
    >>> wavs = torch.stack([torch.zeros(16000), 0.1 * torch.randn(16000), 3 * torch.ones(16000)])
    >>> LevelGuard()(wavs, torch.ones(3), [""] * 3, None).tolist()
    [False, True, False]
    """

    name = "level"

    def __init__(
        self,
        quietest: float = -60.0,
        loudest: float = -3.0,
        most_silence: float = 0.6,
        highest_peak: float = 1.0,
    ) -> None:
        self.quietest, self.loudest = quietest, loudest
        self.most_silence, self.highest_peak = most_silence, highest_peak

    def __call__(self, wavs: Tensor, wav_lens: Tensor, captions, texts) -> Tensor:
        """Check; see the module."""
        passes = []
        for wav, share in zip(wavs.detach(), wav_lens.tolist()):
            wav = wav[: max(1, round(share * len(wav)))]
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


class WordErrorGuard:
    """Passes clips that a recognizer understands: style must not cost the words.

    Arguments
    ---------
    transcribe : callable
        (wavs [B, T], wav_lens [B]) -> list of str, such as ``transcribe_batch`` of a SpeechBrain
        recognizer (its first output).
    most : float
        Word error rate that is borne.

    Example
    -------
    >>> guard = WordErrorGuard(lambda wavs, wav_lens: ["COME IN", "so what"], most=0.3)
    >>> guard(torch.zeros(2, 9), torch.ones(2), [], ["Come in!", "Go home."]).tolist()
    [True, False]
    """

    name = "words"

    def __init__(
        self, transcribe: Callable[[Tensor, Tensor], Sequence[str]], most: float = 0.3
    ) -> None:
        self.transcribe, self.most = transcribe, most

    def __call__(
        self, wavs: Tensor, wav_lens: Tensor, captions, texts: Sequence[str] | None
    ) -> Tensor:
        """Check; see the module.

        Raises
        ------
        ValueError
            If ``texts`` is not given.
        """
        if texts is None:
            raise ValueError("WordErrorGuard needs texts, what each clip should say")
        with torch.no_grad():
            heard = self.transcribe(wavs.detach(), wav_lens)
        passes = [word_error_rate(said, text) <= self.most for said, text in zip(heard, texts)]
        return torch.tensor(passes, device=wavs.device)


class AgreementGuard:
    """Passes clips that a second reward model likes as well: one model alone can be fooled.

    Arguments
    ---------
    other : StyleReward
        Of another CLSP, best with a scaling that has a meaning, such as ``margin``.
    least : float
        Its reward, at least.
    """

    name = "agreement"

    def __init__(self, other: Callable[..., Tensor], least: float = 0.0) -> None:
        self.other, self.least = other, least

    def __call__(self, wavs: Tensor, wav_lens: Tensor, captions, texts) -> Tensor:
        """Check; see the module."""
        with torch.no_grad():
            return self.other(wavs.detach(), captions, wav_lens) >= self.least


def word_error_rate(heard: str, text: str) -> float:
    """Return the edit distance of words over their number, by SpeechBrain's alignment.

    Example
    -------
    >>> word_error_rate("the cat sat", "The cat sat down.")
    0.25
    """
    from speechbrain.utils.edit_distance import accumulatable_wer_stats

    said, wanted = (_words(line) for line in (heard, text))
    if not wanted:
        return float(bool(said))
    stats = accumulatable_wer_stats([wanted], [said])
    return stats["WER"] / 100


def _words(text: str) -> list[str]:
    return "".join(c if c.isalnum() or c == "'" else " " for c in text.lower()).split()


def _decibels(power: Tensor) -> Tensor:
    return 10 * power.clamp_min(1e-12).log10()
