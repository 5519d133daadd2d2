"""Pooling over time that keeps where in an utterance something was, and how much it moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from speechbrain_clsp.nnet.masking import full_precision, masked_mean

_SMALL = 1e-6  # below the square of any deviation that matters; keeps gradients finite


class MomentPooling(nn.Module):
    """Masked mean over time, plus linear maps of the first moments over time.

    Moment k is the coefficient of the frames' expansion in Legendre polynomials of relative time,
    which runs from -1 to 1 over an utterance whatever its padding: for k = 1 how the end differs
    from the beginning, for k = 2 how the ends differ from the middle. A mean alone, as in the
    published model, cannot tell a clip from the same frames in another order.

    Arguments
    ---------
    dim : int
        Size D of a frame.
    moments : int
        Number of moments beside the mean. 0, as published, has no weights.
    gain : float
        Factor on the maps' initial weights. At 0, a model with weights from elsewhere computes
        what it did without moments, until the maps are trained.

    Example
    -------
    >>> pooling = MomentPooling(3, moments=2, gain=1.0)
    >>> frames, mask = torch.randn(2, 50, 3), torch.zeros(2, 50, dtype=torch.bool)
    >>> pooling(frames, mask).shape
    torch.Size([2, 3])
    >>> bool(torch.allclose(pooling(frames, mask), pooling(frames.flip(1), mask)))
    False
    """

    def __init__(self, dim: int, moments: int = 0, gain: float = 0.0) -> None:
        super().__init__()
        maps = [nn.Linear(dim, dim, bias=False) for _ in range(moments)]
        for layer in maps:
            nn.init.normal_(layer.weight, std=gain * dim**-0.5)
        self.maps = nn.ModuleList(maps)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Pool.

        Arguments
        ---------
        frames : Tensor
            [B, F, D].
        mask : Tensor
            [B, F] bool, True on padding.

        Returns
        -------
        Tensor
            [B, D] float32.
        """
        pooled = masked_mean(frames, mask)
        if not len(self.maps):
            return pooled
        frames = full_precision(frames)
        for layer, moment in zip(self.maps, _moments(frames, mask, len(self.maps))):
            pooled = pooled + layer(moment)
        return pooled


class SpectralVariation(nn.Module):
    """Linear map of how neighboring mel bins move against each other over an utterance.

    Of the difference of log energies of each two neighboring bins, the standard deviation over
    time, normalized over the bins, and the first moments, as of :class:`MomentPooling`. Harmonics
    that glide make deviations large where those of a monotone voice leave them small; where they
    end higher or lower than they began, the moments tell. What a microphone or a line adds to a bin
    cancels in both. Small encoders, which see mel bins through strided convolutions, hardly learn
    to hear this by themselves.

    Arguments
    ---------
    n_mels : int
        Number M of mel bins.
    dim : int
        Size D of the result.
    moments : int
        Number of moments beside the deviations.
    gain : float
        Factor on the initial weights. At 0 it adds nothing to a model with weights from elsewhere,
        until it is trained.

    Example
    -------
    >>> variation, mask = SpectralVariation(3, dim=4), torch.zeros(2, 50, dtype=torch.bool)
    >>> variation(torch.randn(2, 50, 3), mask).shape
    torch.Size([2, 4])
    """

    def __init__(self, n_mels: int, dim: int, moments: int = 0, gain: float = 0.0) -> None:
        super().__init__()
        self.moments = moments
        self.n_slopes = n_mels - 1
        self.map = nn.Linear(self.n_slopes * (1 + moments), dim, bias=False)
        nn.init.normal_(self.map.weight, std=gain * self.n_slopes**-0.5)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Map filter banks.

        Arguments
        ---------
        features : Tensor
            [B, F, M].
        mask : Tensor
            [B, F] bool, True on padding.

        Returns
        -------
        Tensor
            [B, D] float32.
        """
        features = full_precision(features)
        slopes = features[..., 1:] - features[..., :-1]
        mean = masked_mean(slopes, mask).unsqueeze(1)
        variance = masked_mean((slopes - mean).square(), mask)
        deviations = (variance + _SMALL).sqrt()
        moments = _moments(slopes, mask, self.moments)
        normalized = nn.functional.layer_norm(deviations, (self.n_slopes,))
        return self.map(torch.cat([normalized, *moments], dim=-1))


def _moments(frames: Tensor, mask: Tensor, moments: int) -> Iterator[Tensor]:
    """Yield moment 1, 2, ... over time of frames [B, F, D], each [B, D]."""
    for weights in legendre_weights(mask, moments):
        yield torch.einsum("bfd,bf->bd", frames, weights.to(frames.dtype))


def legendre_weights(mask: Tensor, moments: int) -> Iterator[Tensor]:
    """Yield the weights of the frames for moment 1, 2, ...

    Their sum over an utterance is 0, so that frames that do not change have no moments.

    Arguments
    ---------
    mask : Tensor
        [B, F] bool, True on padding, which lies at the end.
    moments : int
        How many to yield.

    Yields
    ------
    Tensor
        [B, F] float64, (2k + 1) P_k(t) / n over the n frames, 0 on padding.

    Example
    -------
    >>> mask = torch.tensor([[False, False, True]])
    >>> [weights.tolist() for weights in legendre_weights(mask, 1)]
    [[[-0.75, 0.75, 0.0]]]
    """
    valid = (~mask).double()
    n_frames = valid.sum(dim=1, keepdim=True)
    positions = torch.arange(mask.shape[1], device=mask.device, dtype=torch.double)
    time = (2 * positions + 1) / n_frames - 1
    previous, polynomial = torch.ones_like(time), time
    for k in range(1, moments + 1):
        weights = (2 * k + 1) * polynomial * valid / n_frames
        yield weights - valid * weights.sum(dim=1, keepdim=True) / n_frames
        # Bonnet's recursion
        following = ((2 * k + 1) * time * polynomial - k * previous) / (k + 1)
        previous, polynomial = polynomial, following


def untrained_additions(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Return zeros for the weights of what pooling adds, by ``<module name>.<state-dict key>``.

    They complete the weights of a model that was trained without moments or spectral variation.

    Example
    -------
    >>> list(untrained_additions({"pooling": MomentPooling(4, moments=1)}))
    ['pooling.maps.0.weight']
    """
    return {
        f"{name}.{place}.{key}".replace("..", "."): torch.zeros(value.shape)
        for name, module in modules.items()
        for place, part in module.named_modules()
        if isinstance(part, (MomentPooling, SpectralVariation))
        for key, value in part.state_dict().items()
    }
