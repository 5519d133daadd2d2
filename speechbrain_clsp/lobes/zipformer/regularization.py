"""The training-time regularization of Zipformer: drop path, dropout, feature masks, rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from speechbrain_clsp.lobes.zipformer.regularizers import Balancer, RangeLimiter, Whiten
from speechbrain_clsp.lobes.zipformer.schedule import Rate, Schedule, Scheduled


class DropPath(Scheduled):
    """Stochastic depth (arXiv 1603.09382): drops a branch for some utterances of a batch.

    The branch is computed and multiplied by 0, so that every parameter has a gradient and DDP
    never waits for one. Nothing is scaled up for it.

    Arguments
    ---------
    rate : float or schedule
        Probability per utterance.

    Example
    -------
    >>> DropPath(1.0).draw(torch.ones(2, 5, 8)).flatten().tolist()
    [False, False]
    >>> DropPath(0.5).eval()(torch.ones(2, 5, 8)).mean().item()
    1.0
    """

    def __init__(self, rate: Rate) -> None:
        super().__init__()
        self.rate = Schedule(rate)

    def draw(self, x: Tensor) -> Tensor | None:
        """Return which utterances of x [B, ...] to keep, [B, 1, ...] bool; None: all of them."""
        rate = self.rate(self.step)
        if not self.training or rate == 0:
            return None
        return torch.rand([len(x)] + [1] * (x.dim() - 1), device=x.device) >= rate

    def forward(self, x: Tensor) -> Tensor:
        """Return x [B, ...] with some utterances set to 0."""
        return drop_path(x, self.draw(x))


def drop_path(x: Tensor, kept: Tensor | None) -> Tensor:
    """Multiply by the mask that :meth:`DropPath.draw` returned.

    Example
    -------
    >>> drop_path(torch.ones(1, 1), None).item()
    1.0
    """
    return x if kept is None else x * kept


class SharedDropout(Scheduled):
    """Dropout of whole channels: all frames of an utterance share the mask.

    Arguments
    ---------
    rate : float or schedule
        Probability per utterance and channel.

    Example
    -------
    >>> x = SharedDropout(0.5)(torch.ones(4, 7, 8))
    >>> bool((x == x[:, :1]).all())
    True
    """

    def __init__(self, rate: Rate) -> None:
        super().__init__()
        self.rate = Schedule(rate)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, F, C] to [B, F, C]."""
        rate = self.rate(self.step)
        if not self.training or rate == 0:
            return x
        return x * nn.functional.dropout(torch.ones_like(x[:, :1]), rate)


class FeatureMask(nn.Module):
    """Masks the last channels of some utterances, so that the first ones carry the most.

    Of the channels above ``unmasked`` the lower half is set to 0 with probability ``rate``, the
    upper half wherever the lower one is and in as many utterances more. One draw holds for the
    whole encoder.

    Arguments
    ---------
    rate : float
        Probability per utterance.
    unmasked : int
        Channels that are always there.

    Example
    -------
    >>> FeatureMask(1.0, unmasked=2).draw(torch.ones(1, 5, 8), [4])[0].tolist()
    [[[1.0, 1.0, 0.0, 0.0]]]
    """

    def __init__(self, rate: float, unmasked: int) -> None:
        super().__init__()
        self.rate = rate
        self.unmasked = unmasked

    def draw(self, x: Tensor, dims: Sequence[int]) -> list[Tensor | None]:
        """Return one mask [B, 1, dim] per entry of dims, of x's device and type, or None."""
        if not self.training or self.rate == 0:
            return [None] * len(dims)
        first, second = torch.rand(2, len(x), 1, 1, device=x.device) >= self.rate
        masks: list[Tensor | None] = []
        for dim in dims:
            lower = min(self.unmasked, dim)
            middle = lower + (dim - lower) // 2
            mask = x.new_ones(len(x), 1, dim)
            mask[..., lower:middle] *= first
            mask[..., middle:] *= first & second
            masks.append(mask)
        return masks


@dataclass(frozen=True)
class Regularization:
    """Rates of all training-time regularization; the defaults are the published ones.

    A rate is a number, or a schedule [(step, value), ...] as in
    :class:`~speechbrain_clsp.lobes.zipformer.schedule.Schedule`.

    Arguments
    ---------
    dropout : float or schedule
        Of hidden channels of the feed-forward modules and of the front end's output.
    position_dropout : float
        Of the positional encoding.
    position_drop, attention_drop, convolution_drop, feedforward_drop : float or schedule
        Probability, per utterance, of doing without positions in the attention weights, all
        attention of a layer, a convolution module, the second or third feed-forward module.
    frontend_drop : float or schedule
        The same for the front end's ConvNeXt block.
    layer_drop : (float, float)
        Probability of skipping a layer before its warm-up and after it, the latter times the
        square root of its stack's downsampling. Layers warm up one after the other.
    warmup_steps : float
        Length of that, roughly.
    bypass_minimum : float or schedule
        Lower limit on the bypass scales (the upper is 1): at first no layer may be bypassed.
    limits : float
        Probability that range limiters on parameters act.
    feature_mask : float
        See :class:`FeatureMask`.
    unmasked_channels : int
        Channels that feature masks leave alone.
    balancing, whitening : float
        Factors on the probabilities at which Balancers and Whitens act.

    Example
    -------
    >>> Regularization(dropout=0.1).dropout
    0.1
    """

    dropout: Rate = ((0, 0.3), (20000, 0.1))
    position_dropout: float = 0.15
    position_drop: Rate = ((0, 0.5), (4000, 0.0))
    attention_drop: Rate = ((0, 0.2), (4000, 0.05), (16000, 0.0))
    convolution_drop: Rate = ((0, 0.2), (4000, 0.05), (16000, 0.0))
    feedforward_drop: Rate = ((0, 0.1), (4000, 0.01), (50000, 0.0))
    frontend_drop: Rate = ((0, 0.2), (20000, 0.015))
    layer_drop: tuple[float, float] = (0.5, 0.035)
    warmup_steps: float = 4000.0
    bypass_minimum: Rate = ((0, 0.9), (20000, 0.2))
    limits: float = 0.6
    feature_mask: float = 0.125
    unmasked_channels: int = 768
    balancing: float = 1.0
    whitening: float = 1.0

    def balancer(self, *, probability: Rate = ((0, 0.5), (8000, 0.125)), **bounds: Any) -> Balancer:
        """Make a Balancer; ``bounds`` are its other arguments.

        Example
        -------
        >>> Regularization(balancing=2.0).balancer(probability=0.05).probability()
        0.1
        """
        return Balancer(probability=_scaled(probability, self.balancing), **bounds)

    def whiten(self, limit: Rate, *, probability: Rate = 0.25, **settings: Any) -> Whiten:
        """Make a Whiten; ``settings`` are its other arguments.

        Example
        -------
        >>> Regularization(whitening=0.0).whiten(limit=2.0).probability()
        0.0
        """
        return Whiten(limit, probability=_scaled(probability, self.whitening), **settings)

    def limit(self, minimum: Rate, maximum: Rate) -> RangeLimiter:
        """Make a range limiter.

        Example
        -------
        >>> Regularization().limit(-1.5, 1.5).probability
        0.6
        """
        return RangeLimiter(minimum, maximum, self.limits)

    def layer_drop_rates(
        self, stack: int, n_stacks: int, n_layers: int, factor: int
    ) -> list[list[tuple[float, float]]]:
        """Return the skip rates of a stack's layers, as schedules.

        Arguments
        ---------
        stack, n_stacks : int
            Number of the stack from 0, and of all stacks.
        n_layers : int
            Layers of the stack.
        factor : int
            Its downsampling.

        Example
        -------
        >>> Regularization(warmup_steps=400).layer_drop_rates(0, n_stacks=1, n_layers=2, factor=4)
        [[(200.0, 0.5), (300.0, 0.07)], [(300.0, 0.5), (400.0, 0.07)]]
        """
        length = self.warmup_steps / (n_stacks + 1)
        first, last = self.layer_drop[0], min(1.0, self.layer_drop[1] * factor**0.5)
        starts = [length * (stack + 1 + i / n_layers) for i in range(n_layers)]
        return [[(start, first), (start + length / n_layers, last)] for start in starts]


UNREGULARIZED = Regularization(
    dropout=0.0,
    position_dropout=0.0,
    position_drop=0.0,
    attention_drop=0.0,
    convolution_drop=0.0,
    feedforward_drop=0.0,
    frontend_drop=0.0,
    layer_drop=(0.0, 0.0),
    limits=0.0,
    feature_mask=0.0,
    balancing=0.0,
    whitening=0.0,
)


def doubling(limit: float, factor: float = 2.0) -> Rate:
    """Return the published schedule of most whitening limits: ``factor`` times as much at the end.

    Example
    -------
    >>> doubling(5.0)
    ((0, 5.0), (20000, 10.0))
    """
    return (0, limit), (20000, factor * limit)


def _scaled(probability: Rate, factor: float) -> Rate:
    return [(step, factor * value) for step, value in Schedule(probability).points]
