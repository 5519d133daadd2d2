"""A HiFi-GAN generator that is told the pitch: small enough to be trained on a CPU in minutes.

From a spectrogram of wide bands alone a generator must also find out the phase of every harmonic.
With harmonics at the wanted pitch as a second input (as in neural source-filter models, Wang et
al., arXiv 1810.11946) spectral losses are enough, without discriminators.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from speechbrain.lobes.models.HifiGAN import LRELU_SLOPE, HifiganGenerator, L1SpecLoss
from torch import Tensor, nn

NOISE_SECONDS = 30  # after which the noise of the source repeats
# Window in samples, whose hop is a quarter of it, and number of bands. Narrow bands resolve
# harmonics; where they are blurred, their logarithms are too low. A few wide bands keep the level.
RESOLUTIONS = ((256, 8), (512, 40), (1024, 128))


class SourceFilterGenerator(HifiganGenerator):
    """SpeechBrain's HiFi-GAN generator with a source at every resolution.

    Arguments
    ---------
    n_mels : int
        Bands of the spectrogram.
    sample_rate : int
        Hz.
    channels : int
        Of the first layer; halved by every upsampling.
    factors : sequence of int
        Upsampling of each layer; their product is the hop of the spectrogram.
    n_harmonics : int
        Of the source; those above half the sampling rate are left out.

    Example
    -------
    >>> generator = SourceFilterGenerator(40, channels=16, factors=(8, 4))
    >>> generator(torch.randn(2, 10, 40), torch.full((2, 10), 150.0)).shape
    torch.Size([2, 320])
    """

    def __init__(
        self,
        n_mels: int,
        sample_rate: int = 16000,
        channels: int = 128,
        factors: Sequence[int] = (8, 8, 4),
        n_harmonics: int = 16,
    ) -> None:
        super().__init__(
            in_channels=n_mels,
            out_channels=1,
            resblock_type="2",
            resblock_dilation_sizes=[[1, 2], [2, 6], [3, 12]],
            resblock_kernel_sizes=[3, 5, 7],
            upsample_kernel_sizes=[2 * factor for factor in factors],
            upsample_initial_channel=channels,
            upsample_factors=list(factors),
        )
        self.sample_rate = sample_rate
        self.n_harmonics = n_harmonics
        self.hop = stride = prod(factors)
        self.source_convs = nn.ModuleList()
        for n, factor in enumerate(factors):
            stride //= factor
            width = 2 * stride if stride > 1 else 1
            padding = (width - stride) // 2
            conv = nn.Conv1d(2, channels // 2 ** (n + 1), width, stride, padding=padding)
            self.source_convs.append(conv)
        # The same at every call: a reward of the waveform must not be random.
        noise = torch.randn(NOISE_SECONDS * sample_rate, generator=torch.Generator().manual_seed(0))
        self.register_buffer("noise", noise, persistent=False)

    def forward(self, mels: Tensor, pitch: Tensor) -> Tensor:
        """Make a waveform.

        Arguments
        ---------
        mels : Tensor
            [B, F, n_mels], log-mel spectrogram.
        pitch : Tensor
            [B, F] Hz, also where there is no voice.

        Returns
        -------
        Tensor
            [B, F * hop] in [-1, 1].
        """
        source = self.source(pitch)
        x = self.conv_pre(mels.transpose(1, 2))
        for n, upsample in enumerate(self.ups):
            x = upsample(F.leaky_relu(x, LRELU_SLOPE)) + self.source_convs[n](source)
            blocks = self.resblocks[n * self.num_kernels : (n + 1) * self.num_kernels]
            x = torch.stack([block(x) for block in blocks]).mean(dim=0)
        return torch.tanh(self.conv_post(F.leaky_relu(x))).squeeze(1)

    def source(self, pitch: Tensor) -> Tensor:
        """Return harmonics of a pitch [B, F] in Hz, and noise: [B, 2, F * hop].

        Example
        -------
        >>> generator = SourceFilterGenerator(40, channels=16)
        >>> tone = generator.source(torch.full((1, 100), 200.0))[0, 0]
        >>> bool((tone[880:960] - tone[800:880]).abs().max() < 1e-2)  # periodic
        True
        """
        hertz = F.interpolate(pitch[:, None], scale_factor=self.hop, mode="linear")
        # In float64 and whole turns: a phase of thousands of radians loses digits.
        turns = (hertz.double() / self.sample_rate).cumsum(dim=-1)
        phase = 2 * torch.pi * (turns - turns.detach().floor()).to(hertz.dtype)
        order = torch.arange(1, self.n_harmonics + 1, device=pitch.device)[:, None]
        audible = order * hertz.detach() < self.sample_rate / 2
        tone = (torch.sin(order * phase) * audible).sum(dim=1, keepdim=True) / self.n_harmonics**0.5
        samples = torch.arange(hertz.shape[-1], device=pitch.device) % len(self.noise)
        return torch.cat([tone, self.noise[samples].expand_as(tone)], dim=1)


class SpectralLoss(nn.Module):
    """Mean absolute log-mel difference at several resolutions, by SpeechBrain's ``L1SpecLoss``.

    Arguments
    ---------
    sample_rate : int
        Hz.

    Example
    -------
    >>> wavs = torch.randn(2, 4096)
    >>> float(SpectralLoss()(wavs, wavs))
    0.0
    """

    def __init__(self, sample_rate: int = 16000) -> None:
        super().__init__()
        self.losses = [
            L1SpecLoss(
                sample_rate=sample_rate,
                hop_length=window // 4,
                win_length=window,
                n_fft=window,
                n_mel_channels=bands,
                mel_fmax=sample_rate / 2,
            )
            for window, bands in RESOLUTIONS
        ]

    def forward(self, made: Tensor, wavs: Tensor) -> Tensor:
        """Return the mean difference of [B, T] and [B, T]."""
        return sum(loss(made, wavs) for loss in self.losses) / len(self.losses)
