"""Changes of how clips sound that no caption is about, for training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchaudio.functional import resample

LOWEST, OCTAVES = 100.0, 6.0  # Hz; what a gain curve spans: up to 6.4 kHz
OCTAVES_PER_POINT = 0.75


class RandomEqualizer(nn.Module):
    """Filter each clip by a smooth random gain curve, as another voice or microphone would.

    The gain in dB is drawn from a normal distribution at points 3/4 of an octave apart, and linear
    in the logarithm of the frequency between them. Phases and levels stay. Made for SpeechBrain's
    Augmenter; draws from torch's global generator.

    Arguments
    ---------
    std : float
        Standard deviation of the gain, in dB.
    sample_rate : float
        Of the clips, in Hz.

    Raises
    ------
    ValueError
        If ``std`` is negative.

    Example
    -------
    >>> wavs = torch.randn(2, 16000)
    >>> filtered = RandomEqualizer(std=6.0)(wavs)
    >>> filtered.shape, bool(torch.allclose(filtered.norm(dim=1), wavs.norm(dim=1)))
    (torch.Size([2, 16000]), True)
    """

    def __init__(self, std: float = 4.0, sample_rate: float = 16000) -> None:
        super().__init__()
        if std < 0:
            raise ValueError(f"std must not be negative, not {std}")
        self.std = std
        self.sample_rate = sample_rate

    def forward(self, wavs: Tensor) -> Tensor:
        """Filter clips [B, T], each by a curve of its own; returns [B, T] of the same RMS."""
        n_points = int(OCTAVES / OCTAVES_PER_POINT) + 1
        points = self.std * torch.randn(len(wavs), n_points).to(wavs)
        spectrum = torch.fft.rfft(wavs)
        hertz = torch.linspace(0, self.sample_rate / 2, spectrum.shape[1]).to(wavs)
        place = (hertz.clamp(min=LOWEST) / LOWEST).log2() / OCTAVES_PER_POINT
        place = place.clamp(max=n_points - 1.001)
        left = place.long()
        right = place - left
        gain = points[:, left] * (1 - right) + points[:, left + 1] * right
        filtered = torch.fft.irfft(spectrum * 10 ** (gain / 20), wavs.shape[1])
        rms = wavs.square().mean(dim=1, keepdim=True).sqrt()
        return filtered * rms / filtered.square().mean(dim=1, keepdim=True).sqrt().clamp(min=1e-9)


class RandomSpeed(nn.Module):
    """Speed each clip up or slow it down by a random factor, which moves pitch and formants along.

    SpeechBrain's SpeedPerturb takes one speed for all of a batch; here few clips of few voices make
    many voices. Made for SpeechBrain's Augmenter; draws from torch's global generator.

    Arguments
    ---------
    change : float
        Largest change of the speed, as a fraction: 0.06 is a semitone.
    n_speeds : int
        How many different speeds there are, an odd number: one is the clip's own.

    Raises
    ------
    ValueError
        If ``change`` is not from 0 to 0.5, or ``n_speeds`` is no odd number.

    Example
    -------
    >>> wavs, lengths = RandomSpeed(0.2)(torch.randn(4, 16000), torch.tensor([1.0, 1.0, 0.5, 0.5]))
    >>> wavs.shape[0], lengths.max().item(), bool((lengths[2:] < 0.8).all())
    (4, 1.0, True)
    """

    def __init__(self, change: float, n_speeds: int = 7) -> None:
        super().__init__()
        if not 0 <= change <= 0.5:
            raise ValueError(f"change must be a fraction from 0 to 0.5, not {change}")
        if n_speeds < 1 or n_speeds % 2 == 0:
            raise ValueError(f"n_speeds must be an odd number, not {n_speeds}")
        steps = torch.linspace(-change, change, n_speeds).tolist()
        self.percents = sorted({round(100 * (1 + step)) for step in steps})

    def forward(self, wavs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Change speeds.

        Arguments
        ---------
        wavs : Tensor
            [B, T], zero padded.
        lengths : Tensor
            [B] relative to T.

        Returns
        -------
        (Tensor, Tensor)
            [B, T'] as long as the longest clip is now, and the lengths relative to T'.
        """
        n_samples = (lengths * wavs.shape[1]).round().long()
        drawn = torch.randint(len(self.percents), (len(wavs),)).tolist()
        clips = []
        for wav, size, place in zip(wavs, n_samples.tolist(), drawn):
            clips.append(resample(wav[:size], self.percents[place], 100))
        changed = torch.tensor([len(clip) for clip in clips], device=wavs.device)
        padded = nn.utils.rnn.pad_sequence(clips, batch_first=True)
        return padded, changed / padded.shape[1]
