"""Balancer, Whiten and limits: modules that pass values through and change gradients.

They keep activations and parameters of a Zipformer in a healthy range without a term in the loss
(arXiv 2310.11230, sections 3.4 and 3.5; gradient rules as in icefall). None of them has parameters
or keeps a state: a training that is resumed goes on as it would have.

Whether one acts is drawn in every forward pass in training, also where no gradient is wanted, so
that a second pass from the same random state (GradCache) makes the same decisions.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from speechbrain_clsp.lobes.zipformer.schedule import Rate, Schedule, Scheduled

TINY = 1e-20


def _valid_frames(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return 1 for every valid position of x [..., C] and 0 on padding, as [..., 1] float32."""
    if mask is None:
        return torch.ones([1] * x.dim(), device=x.device)
    return (~mask).float().view(*mask.shape, *[1] * (x.dim() - mask.dim()))


def _channel_mean(x: Tensor, valid: Tensor) -> Tensor:
    """Average x [..., C] over all valid positions; returns [C]."""
    others = tuple(range(x.dim() - 1))
    total = valid.expand(*x.shape[:-1], 1).sum()
    return (x * valid).sum(dim=others) / total.clamp(min=1.0)


def _without_autocast(x: Tensor) -> torch.autocast:
    return torch.autocast(x.device.type, enabled=False)


class _Balanced(torch.autograd.Function):
    """Identity whose gradient also pulls each channel's statistics into their bounds.

    The pull is the gradient of a penalty: how far mean / deviation lies outside its bounds, plus
    the logarithm of how far the rms does. Written in z = (x - mean) / deviation it is A + B z with
    one A and one B per channel; its rms is scaled to ``grad_scale``, and each element's share to
    the size of the gradient that it joins.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mask: Tensor | None, bounds: tuple, grad_scale: float, dim: int
    ) -> Tensor:
        """Return x as it is."""
        ctx.save_for_backward(x, mask)
        ctx.settings = bounds, grad_scale, dim
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        """Return the gradient with respect to x, with the pull into the bounds."""
        x, mask = ctx.saved_tensors
        bounds, grad_scale, dim = ctx.settings
        with _without_autocast(x):
            x, wanted = x.movedim(dim, -1).float(), grad.movedim(dim, -1).float()
            pull = _balancing_pull(x, _valid_frames(x, mask), *bounds)
            changed = torch.addcmul(wanted, wanted.abs(), pull, value=grad_scale)
        return changed.to(grad.dtype).movedim(-1, dim), None, None, None, None


def _balancing_pull(
    x: Tensor, valid: Tensor, min_mean: float, max_mean: float, min_rms: float, max_rms: float
) -> Tensor:
    """Return the penalty's gradient for x [..., C], scaled to an rms of 1 per channel."""
    mean = _channel_mean(x, valid)
    variance = _channel_mean((x - mean).square(), valid).clamp(min=TINY)
    power = (variance + mean.square()).clamp(min=TINY)
    deviation, rms = variance.sqrt(), power.sqrt()
    ratio = mean / deviation
    off_center = (ratio > max_mean).float() - (ratio < min_mean).float()
    off_size = (rms > max_rms).float() - (rms < min_rms).float()
    constant = off_center + off_size * deviation * mean / power
    slope = off_size * variance / power - off_center * ratio
    size = (constant.square() + slope.square()).sqrt().clamp(min=TINY)
    return (constant + slope * (x - mean) / deviation) / size * valid


class Balancer(Scheduled):
    """Keeps each channel's share of positive values and its mean absolute value within bounds.

    The bounds are translated to mean / deviation and rms as if values were normally distributed.

    Arguments
    ---------
    min_positive, max_positive : float or schedule
        Bounds on the share of positive values, from 0 to 1.
    min_abs, max_abs : float or schedule
        Bounds on the mean absolute value.
    grad_scale : float
        Size of what is added to a gradient, relative to it.
    probability : float or schedule
        How often it acts at all.
    dim : int
        Axis of the channels.

    Example
    -------
    >>> _ = torch.manual_seed(0)
    >>> x = torch.rand(20, 4, requires_grad=True)  # always positive
    >>> Balancer(max_positive=0.6, grad_scale=0.1, probability=1.0)(x).sum().backward()
    >>> bool(x.grad.mean() > 1)  # descent would make it smaller
    True
    """

    def __init__(
        self,
        min_positive: Rate = 0.05,
        max_positive: Rate = 0.95,
        min_abs: Rate = 0.2,
        max_abs: Rate = 100.0,
        grad_scale: float = 0.04,
        probability: Rate = ((0, 0.5), (8000, 0.125)),
        dim: int = -1,
    ) -> None:
        super().__init__()
        self.positive = Schedule(min_positive), Schedule(max_positive)
        self.size = Schedule(min_abs), Schedule(max_abs)
        self.grad_scale = grad_scale
        self.probability = Schedule(probability)
        self.dim = dim

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return x; mask is True on frames that do not count.

        Its shape is that of x, channels moved to the end, without the last axes: [B, F] for x
        [B, F, C], or for [B, C, F, N] with ``dim`` 1.
        """
        if not self.training or not bernoulli(self.probability(self.step)) or not x.requires_grad:
            return x
        means = [_mean_of_share(share(self.step)) for share in self.positive]
        # For a normal distribution of mean 0, rms = sqrt(pi / 2) times the mean absolute value.
        sizes = [math.sqrt(math.pi / 2) * size(self.step) for size in self.size]
        return _Balanced.apply(x, mask, (*means, *sizes), self.grad_scale, self.dim)


def _mean_of_share(share: float) -> float:
    """Return mean / deviation at which about this share of values is positive.

    The published rule's rough inverse of the error function, finite at 0 and 1.
    """
    edge = 1e-10
    logit = math.log(share + edge / 2) - math.log(1.0 - share + edge / 2)
    return logit / (2.0 * math.sqrt(math.pi) * math.log(2.0))


def bernoulli(probability: float) -> bool:
    """Draw from torch's CPU generator; nothing is drawn where the probability is 0.

    Example
    -------
    >>> bernoulli(0.0), bernoulli(1.0)
    (False, True)
    """
    return probability > 0 and torch.rand(()).item() < probability


def _covariance(x: Tensor, groups: int, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return centered frames [G, N, C / G], their covariances, and the whitening metric.

    The metric is the mean squared eigenvalue of the covariances over the squared mean eigenvalue: 1
    for white data, else more. Correlations count within groups only.
    """
    valid = _valid_frames(x, mask)
    centered = (x - _channel_mean(x, valid)) * valid
    centered = centered.reshape(-1, groups, x.shape[-1] // groups).transpose(0, 1)
    covariance = centered.transpose(1, 2) @ centered / centered.shape[1]
    spread = covariance.diagonal(dim1=1, dim2=2).mean()
    metric = covariance.square().sum() / x.shape[-1] / (spread.square() + TINY)
    return centered, covariance, metric


class _Whitened(torch.autograd.Function):
    """Identity whose gradient also lowers the whitening metric, where that exceeds a limit.

    The metric's gradient is, up to a factor, x (C - q I) with covariance C and q the ratio of
    mean squared to mean eigenvalue; it is scaled to ``grad_scale`` times the incoming one's norm.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mask: Tensor | None, groups: int, limit: float, grad_scale: float
    ) -> Tensor:
        """Return x as it is."""
        ctx.save_for_backward(x, mask)
        ctx.settings = groups, limit, grad_scale
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        """Return the gradient with respect to x, with the pull towards a white covariance."""
        x, mask = ctx.saved_tensors
        groups, limit, grad_scale = ctx.settings
        with _without_autocast(x):
            centered, covariance, metric = _covariance(x.float(), groups, mask)
            if metric >= limit:
                diagonal = covariance.diagonal(dim1=1, dim2=2)
                diagonal.sub_(metric * diagonal.mean())
                pull = (centered @ covariance).transpose(0, 1).reshape(x.shape)
                scale = grad_scale * grad.float().norm() / (pull.norm() + TINY)
                grad = (grad.float() + scale * pull).to(grad.dtype)
        return grad, None, None, None, None


class Whiten(Scheduled):
    """Keeps the variance from gathering in few directions.

    The published module acts rarely (2.5 % of the time) after it found nothing to do, else in 25 %.
    That is a state, which GradCache and a resumed training would see differently; here it always
    acts with ``probability``, and is cheap when it finds nothing to do.

    Arguments
    ---------
    limit : float or schedule
        Whitening metric up to which gradients are unchanged, at least 1.
    grad_scale : float
        Size of what is added to a gradient, relative to it.
    groups : int
        Groups of channels (last axis) that are whitened by themselves, to the same variance.
    probability : float or schedule
        How often it acts at all.

    Example
    -------
    >>> x = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]], requires_grad=True)
    >>> Whiten(limit=1.2, grad_scale=0.5, probability=1.0)(x).backward(torch.ones(4, 2))
    >>> large, small = (x.grad - 1)[0, 0], (x.grad - 1)[2, 1]
    >>> bool(large > 0), bool(small < 0)  # descent shortens the long axis, lengthens the short one
    (True, True)
    """

    def __init__(
        self, limit: Rate, grad_scale: float = 0.01, groups: int = 1, probability: Rate = 0.25
    ) -> None:
        super().__init__()
        self.limit = Schedule(limit)
        self.grad_scale = grad_scale
        self.groups = groups
        self.probability = Schedule(probability)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return x [B, F, ..., C]; mask [B, F] is True on frames that do not count."""
        if not self.training or not bernoulli(self.probability(self.step)) or not x.requires_grad:
            return x
        return _Whitened.apply(x, mask, self.groups, self.limit(self.step), self.grad_scale)


class _Limited(torch.autograd.Function):
    """Identity whose gradient points back to the allowed range wherever a value has left it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, minimum: float, maximum: float) -> Tensor:
        """Return x as it is."""
        ctx.save_for_backward(x)
        ctx.bounds = minimum, maximum
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        """Return the gradient with respect to x, reversed where it leads further out."""
        (x,) = ctx.saved_tensors
        minimum, maximum = ctx.bounds
        away = ((grad > 0) & (x < minimum)) | ((grad < 0) & (x > maximum))
        return torch.where(away, -grad, grad), None, None


class RangeLimiter(Scheduled):
    """Keeps parameters in a range by reversing gradients that lead out of it.

    Arguments
    ---------
    minimum, maximum : float or schedule
        The range.
    probability : float
        How often it acts at all.

    Example
    -------
    >>> scale = nn.Parameter(torch.tensor([0.1, 0.5]))
    >>> RangeLimiter(0.2, 1.0, probability=1.0)(scale).sum().backward()
    >>> scale.grad.tolist()
    [-1.0, 1.0]
    """

    def __init__(self, minimum: Rate, maximum: Rate, probability: float = 0.6) -> None:
        super().__init__()
        self.minimum, self.maximum = Schedule(minimum), Schedule(maximum)
        self.probability = probability

    def forward(self, parameter: nn.Parameter) -> Tensor:
        """Return the parameter."""
        if not self.training or not bernoulli(self.probability) or not parameter.requires_grad:
            return parameter
        return _Limited.apply(parameter, self.minimum(self.step), self.maximum(self.step))
