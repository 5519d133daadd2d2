"""The speech tower: waveforms to unit vectors."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from speechbrain_clsp.lobes.features import KaldiFbank
from speechbrain_clsp.lobes.head import ProjectionHead
from speechbrain_clsp.lobes.pooling import MomentPooling, SpectralVariation
from speechbrain_clsp.lobes.zipformer.encoder import Zipformer2
from speechbrain_clsp.lobes.zipformer.frontend import Conv2dSubsampling
from speechbrain_clsp.nnet.masking import padding_mask, valid_lengths

# Arguments that weights rely on, without being among them.
FEATURE_ARGUMENTS = ("window_seconds", "feature_mean", "feature_std")


class SpeechTower(nn.Module):
    """Filter banks -> convolutions (50 Hz) -> Zipformer2 (25 Hz) -> pooling -> head.

    Arguments
    ---------
    encoder : Zipformer2
        The encoder. The front end is regularized as it is.
    joint_dim : int
        Size D of the shared space.
    n_mels : int
        Mel bins.
    frontend_channels : sequence of int
        Channels of the front end's three convolutions.
    head_dropout : float
        Dropout rate of the head, in training only.
    feature_mean, feature_std : float
        Filter banks are shifted and scaled by these constants, the same for all bins and clips, so
        that loudness stays audible. The published model takes them as they are.
    frontend_gain : float, optional
        See :class:`~speechbrain_clsp.lobes.zipformer.frontend.Conv2dSubsampling`.
    moments, moment_gain : int, float
        See :class:`~speechbrain_clsp.lobes.pooling.MomentPooling`. Published: no moments, so that
        the tower hears what there is in an utterance, but hardly in which order.
    variation_gain : float, optional
        Initial gain of a :class:`~speechbrain_clsp.lobes.pooling.SpectralVariation` of the filter
        banks, which is added to what is pooled; default, as published: without.
    window_seconds : float
        Of the filter banks [s], see :class:`~speechbrain_clsp.lobes.features.KaldiFbank`.
    frozen : bool
        Whether nothing of the tower is trained, and nothing in it is random in training: for one
        that another model has trained.

    Example
    -------
    >>> import torch
    >>> encoder = Zipformer2([1, 2], [1, 1], [32, 48], [48, 64], [2, 2], [7, 7])
    >>> tower = SpeechTower(encoder, joint_dim=16, frontend_channels=(2, 4, 8)).eval()
    >>> tower(torch.randn(2, 16000), torch.tensor([1.0, 0.7])).shape
    torch.Size([2, 16])
    """

    max_seconds = math.inf  # of a clip

    def __init__(
        self,
        encoder: Zipformer2,
        joint_dim: int = 512,
        n_mels: int = 128,
        frontend_channels: tuple[int, int, int] = (8, 32, 128),
        head_dropout: float = 0.1,
        feature_mean: float = 0.0,
        feature_std: float = 1.0,
        frontend_gain: float | None = None,
        moments: int = 0,
        moment_gain: float = 0.0,
        variation_gain: float | None = None,
        window_seconds: float = 0.025,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self.frozen = frozen
        self.feature_mean = feature_mean
        self.feature_std = feature_std
        self.window_seconds = window_seconds
        self.fbank = KaldiFbank(n_mels, window_seconds=window_seconds)
        self.encoder_embed = Conv2dSubsampling(
            n_mels, encoder.dims[0], frontend_channels, frontend_gain, encoder.regularization
        )
        self.encoder = encoder
        self.pooling = MomentPooling(encoder.output_dim, moments, moment_gain)
        self.variation = None
        if variation_gain is not None:
            self.variation = SpectralVariation(n_mels, encoder.output_dim, moments, variation_gain)
        self.head = ProjectionHead(encoder.output_dim, joint_dim, head_dropout)
        if frozen:
            self.requires_grad_(False)

    def train(self, mode: bool = True) -> SpeechTower:
        """Switch dropout and regularization; a frozen tower never has any."""
        return super().train(mode and not self.frozen)

    def forward(self, wavs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed speech.

        Arguments
        ---------
        wavs : Tensor
            [B, T] float32, 16 kHz, in [-1, 1], zero padded.
        lengths : Tensor, optional
            [B] relative to T; default: no padding.

        Returns
        -------
        Tensor
            [B, D] float32 of unit norm.
        """
        return self.embed(wavs, valid_lengths(lengths, wavs.shape[1], wavs.shape[0], wavs.device))

    def embed(self, wavs: Tensor, n_samples: Tensor) -> Tensor:
        """Do what :meth:`forward` does, for counts of valid samples, [B] int64."""
        features, n_frames = self.fbank.compute(wavs, n_samples)
        features = (features - self.feature_mean) / self.feature_std
        x = features.to(next(self.encoder_embed.parameters()).dtype)
        encoded, n_encoded = self.encoder(*self.encoder_embed(x, n_frames))
        pooled = self.pooling(encoded, padding_mask(n_encoded, encoded.shape[1]))
        if self.variation is not None:
            pooled = pooled + self.variation(features, padding_mask(n_frames, features.shape[1]))
        return self.head(pooled)

    def arguments(self) -> dict[str, Any]:
        """Return arguments that replace those of the definition when the tower is saved.

        A saved tower is not frozen: who trains it further decides anew.
        """
        return {"frozen": False} if self.frozen else {}

    def cast(self, dtype: torch.dtype) -> None:
        """Compute front end and encoder in another precision; features and head stay float32."""
        self.encoder_embed.to(dtype)
        self.encoder.to(dtype)
