"""One layer of Zipformer2: attention weights that are computed once and used three times.

Modules named ``balance*``, ``whiten*``, ``limit*`` and ``*skip`` act in training only; where they
sit and their bounds are the published ones. Padding has no part in their statistics.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speechbrain_clsp.lobes.zipformer.activations import SwooshL, SwooshR, feed_forward
from speechbrain_clsp.lobes.zipformer.attention import (
    NonlinearAttention,
    RelativeAttentionWeights,
    SelfAttention,
)
from speechbrain_clsp.lobes.zipformer.convolution import depthwise_conv
from speechbrain_clsp.lobes.zipformer.linear import scaled_linear
from speechbrain_clsp.lobes.zipformer.regularization import (
    UNREGULARIZED,
    DropPath,
    Regularization,
    SharedDropout,
    doubling,
    drop_path,
)
from speechbrain_clsp.lobes.zipformer.schedule import Rate
from speechbrain_clsp.nnet.masking import full_precision, zero_padding


class BiasNorm(nn.Module):
    """x * exp(log_scale) / rms(x - bias) over the channels: keeps some information on length.

    Arguments
    ---------
    dim : int
        Number of channels.
    regularization : Regularization
        What to do in training.

    Example
    -------
    >>> bool(BiasNorm(4)(torch.ones(1, 4)).isclose(torch.tensor(1.0).exp()).all())
    True
    """

    def __init__(self, dim: int, regularization: Regularization = UNREGULARIZED) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.ones(()))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.limit = regularization.limit(-1.5, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize [..., D]."""
        power = full_precision(x - self.bias).square().mean(dim=-1, keepdim=True)
        return x * (power.rsqrt() * self.limit(self.log_scale).exp()).to(x.dtype)


class Bypass(nn.Module):
    """Per-channel interpolation between a module's input and its output.

    Arguments
    ---------
    dim : int
        Number of channels.
    regularization : Regularization
        What to do in training.
    skip : float or schedule
        Probability, per utterance, of returning the input.

    Example
    -------
    >>> Bypass(2)(torch.zeros(1, 1, 2), torch.ones(1, 1, 2)).tolist()
    [[[0.5, 0.5]]]
    """

    def __init__(
        self, dim: int, regularization: Regularization = UNREGULARIZED, skip: Rate = 0.0
    ) -> None:
        super().__init__()
        self.bypass_scale = nn.Parameter(torch.full((dim,), 0.5))
        self.limit = regularization.limit(regularization.bypass_minimum, 1.0)
        self.skip = DropPath(skip)

    def forward(self, source: Tensor, output: Tensor) -> Tensor:
        """Return source + (output - source) * scale, all [B, F, D]."""
        scale = drop_path(self.limit(self.bypass_scale), self.skip.draw(source))
        return source + (output - source) * scale


class FeedForward(nn.Module):
    """Linear, SwooshL, linear.

    Arguments
    ---------
    dim, hidden : int
        Channels outside and inside.
    branch_scale : float
        Half the initial size of the last layer.
    regularization : Regularization
        What to do in training.
    """

    def __init__(
        self, dim: int, hidden: int, branch_scale: float, regularization: Regularization
    ) -> None:
        super().__init__()
        self.in_proj = nn.Linear(dim, hidden)
        self.activation = SwooshL()
        self.dropout = SharedDropout(regularization.dropout)
        self.out_proj = scaled_linear(hidden, dim, scale=2 * branch_scale)
        self.balance_hidden = regularization.balancer(
            min_positive=0.3, max_positive=1.0, min_abs=0.75, max_abs=5.0
        )
        self.whiten = regularization.whiten(doubling(7.5))
        self.is_regularized = regularization != UNREGULARIZED

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map x [B, F, D] with mask [B, F] to [B, F, D]."""
        if self.is_regularized and self.training:
            hidden = self.balance_hidden(self.in_proj(x), mask)
            x = self.out_proj(self.dropout(self.activation(hidden)))
        else:
            x = feed_forward(x, self.in_proj, self.out_proj, self.activation)
        return self.whiten(x, mask)


class ConvolutionModule(nn.Module):
    """Gated depthwise convolution over time.

    Arguments
    ---------
    dim : int
        Channels.
    kernel : int
        Odd size of the convolution, in frames.
    branch_scale : float
        Initial size of the last layer.
    regularization : Regularization
        What to do in training.
    """

    def __init__(
        self, dim: int, kernel: int, branch_scale: float, regularization: Regularization
    ) -> None:
        super().__init__()
        self.in_proj = nn.Linear(dim, 2 * dim)
        self.depthwise_conv = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.activation = SwooshR()
        self.out_proj = scaled_linear(dim, dim, scale=branch_scale)
        self.balance_gate = regularization.balancer(
            min_positive=[(0, 0.05), (8000, 0.025)],
            max_positive=1.0,
            min_abs=1.5,
            max_abs=[(0, 5.0), (8000, 10.0)],
        )
        self.balance_convolved = regularization.balancer(
            min_positive=[(0, 0.1), (8000, 0.05)],
            max_positive=1.0,
            min_abs=[(0, 0.2), (20000, 0.5)],
            max_abs=10.0,
        )
        self.whiten = regularization.whiten(doubling(7.5))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map x [B, F, D] with mask [B, F] to [B, F, D]."""
        value, gate = self.in_proj(x).chunk(2, dim=-1)
        gate = self.balance_gate(gate, mask).sigmoid()
        x = zero_padding(value * gate, mask).unsqueeze(1)
        conv = self.depthwise_conv
        x = depthwise_conv(x, conv.weight.unsqueeze(2), conv.bias).squeeze(1)
        x = self.whiten(self.balance_convolved(x, mask), mask)
        return self.out_proj(self.activation(x))


class ZipformerLayer(nn.Module):
    """One layer: all modules read attention weights that were computed from the layer's input.

    Arguments
    ---------
    dim : int
        Channels.
    heads : int
        Attention heads.
    feedforward : int
        Width of the second feed-forward module; the first has 3/4 of it, the third 5/4.
    kernel : int
        Odd size of the depthwise convolutions, in frames.
    query_head_dim, value_head_dim, position_head_dim, position_dim : int
        Sizes per head, and of the positional encoding.
    branch_scale : float
        Initial size of the layers that end a branch, relative to the usual; see
        :func:`scaled_linear`. The feed-forward modules get twice as much.
    regularization : Regularization
        What to do in training.
    layer_drop : float or schedule
        Probability, per utterance, of returning the input, in training only.

    Example
    -------
    >>> layer = ZipformerLayer(dim=32, heads=2, feedforward=48, kernel=7)
    >>> mask = torch.zeros(1, 5, dtype=torch.bool)
    >>> layer(torch.randn(1, 5, 32), torch.randn(9, 48), mask).shape
    torch.Size([1, 5, 32])
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        feedforward: int,
        kernel: int,
        query_head_dim: int = 32,
        value_head_dim: int = 12,
        position_head_dim: int = 4,
        position_dim: int = 48,
        branch_scale: float = 0.05,
        regularization: Regularization = UNREGULARIZED,
        layer_drop: Rate = 0.0,
    ) -> None:
        super().__init__()
        shared = branch_scale, regularization
        self.self_attn_weights = RelativeAttentionWeights(
            dim, heads, query_head_dim, position_head_dim, position_dim, *shared
        )
        self.self_attn1 = SelfAttention(dim, heads, value_head_dim, *shared)
        self.self_attn2 = SelfAttention(dim, heads, value_head_dim, *shared)
        self.nonlin_attention = NonlinearAttention(dim, *shared)
        self.feed_forward1 = FeedForward(dim, feedforward * 3 // 4, *shared)
        self.feed_forward2 = FeedForward(dim, feedforward, *shared)
        self.feed_forward3 = FeedForward(dim, feedforward * 5 // 4, *shared)
        self.conv_module1 = ConvolutionModule(dim, kernel, *shared)
        self.conv_module2 = ConvolutionModule(dim, kernel, *shared)
        self.norm = BiasNorm(dim, regularization)
        self.bypass_mid = Bypass(dim, regularization)
        self.bypass = Bypass(dim, regularization, layer_drop)
        self._add_regularizers(regularization)

    def _add_regularizers(self, regularization: Regularization) -> None:
        self.attention_drop = DropPath(regularization.attention_drop)
        self.convolution_drop = DropPath(regularization.convolution_drop)
        self.feedforward_drop = DropPath(regularization.feedforward_drop)
        # Those of single branches prevent a rare problem, so they may act rarely.
        branch = {"min_positive": 0.3, "max_positive": 0.7, "probability": 0.05}
        self.balance_nonlin_attention = regularization.balancer(
            min_abs=[(0, 0.004), (4000, 0.02)], **branch
        )
        self.balance_feed_forward2 = regularization.balancer(
            min_abs=[(0, 0.0), (4000, 0.1)], max_abs=2.0, **branch
        )
        self.balance_feed_forward3 = regularization.balancer(
            min_abs=[(0, 0.0), (4000, 0.2)], max_abs=4.0, **branch
        )
        whole = {"min_positive": 0.45, "max_positive": 0.55, "max_abs": 4.0}
        self.balance_sum = regularization.balancer(min_abs=0.2, **whole)
        self.balance_output = regularization.balancer(min_abs=0.1, **whole)
        self.whiten = regularization.whiten(doubling(4.0, 3.0))

    def forward(self, source: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """Map source [B, F, D], positions [2F-1, P] and mask [B, F] to [B, F, D]."""
        weights, first = self.self_attn_weights(source, positions, mask)
        attending = self.attention_drop.draw(source)  # one decision for all attention
        x = source + self.feed_forward1(source, mask)
        branch = self.nonlin_attention(x, first, mask)
        x = x + drop_path(self.balance_nonlin_attention(branch, mask), attending)
        x = x + drop_path(self.self_attn1(x, weights, mask), attending)
        x = x + self.convolution_drop(self.conv_module1(x, mask))
        branch = self.balance_feed_forward2(self.feed_forward2(x, mask), mask)
        x = x + self.feedforward_drop(branch)
        x = self.bypass_mid(source, x)
        x = x + drop_path(self.self_attn2(x, weights, mask), attending)
        x = x + self.convolution_drop(self.conv_module2(x, mask))
        branch = self.balance_feed_forward3(self.feed_forward3(x, mask), mask)
        x = x + self.feedforward_drop(branch)
        x = self.bypass(source, self.norm(self.balance_sum(x, mask)))
        return self.whiten(self.balance_output(x, mask), mask)
