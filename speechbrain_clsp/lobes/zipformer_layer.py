"""One layer of Zipformer2: attention weights that are computed once and used three times.

Authors
 * The speechbrain-clsp authors 2026
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speechbrain_clsp.nnet.activations import SwooshL, SwooshR

MASKED_SCORE = -1000.0


def scaled_linear(inputs: int, outputs: int, scale: float = 1.0, bias: bool = True) -> nn.Linear:
    """Make a linear layer whose initial weights are ``scale`` times the usual ones.

    Residual branches that begin small let a deep encoder start near the identity.

    Example
    -------
    >>> scaled_linear(4, 2, scale=0.0).weight.abs().max().item()
    0.0
    """
    linear = nn.Linear(inputs, outputs, bias=bias)
    with torch.no_grad():
        linear.weight.mul_(scale)
        if bias:
            nn.init.uniform_(linear.bias, -0.1 * scale, 0.1 * scale)
    return linear


class BiasNorm(nn.Module):
    """x * exp(log_scale) / rms(x - bias) over the channels: keeps some information on length.

    Arguments
    ---------
    dim : int
        Number of channels.

    Example
    -------
    >>> bool(BiasNorm(4)(torch.ones(1, 4)).isclose(torch.tensor(1.0).exp()).all())
    True
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.ones(()))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [..., D]."""
        power = (x - self.bias).float().square().mean(dim=-1, keepdim=True)
        return x * (power.rsqrt() * self.log_scale.exp()).to(x.dtype)


class Bypass(nn.Module):
    """Per-channel interpolation between a module's input and its output.

    Arguments
    ---------
    dim : int
        Number of channels.

    Example
    -------
    >>> Bypass(2)(torch.zeros(1, 1, 2), torch.ones(1, 1, 2)).tolist()
    [[[0.5, 0.5]]]
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.bypass_scale = nn.Parameter(torch.full((dim,), 0.5))

    def forward(self, source: Tensor, output: Tensor) -> Tensor:
        """Return source + (output - source) * scale, all [B, F, D]."""
        return source + (output - source) * self.bypass_scale


class RelativeAttentionWeights(nn.Module):
    """Attention weights from queries, keys and relative positions; there is no 1/sqrt(d).

    Arguments
    ---------
    dim, heads, query_head_dim, position_head_dim, position_dim : int
        Channels, heads, and the sizes per head and of the positional encoding.
    branch_scale : float
        Initial size of the part that depends on positions.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        query_head_dim: int,
        position_head_dim: int,
        position_dim: int,
        branch_scale: float,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.sizes = [heads * query_head_dim, heads * query_head_dim, heads * position_head_dim]
        self.in_proj = scaled_linear(dim, sum(self.sizes), scale=query_head_dim**-0.25)
        self.linear_pos = scaled_linear(
            position_dim, heads * position_head_dim, scale=branch_scale, bias=False
        )

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """Map x [B, F, D], positions [2F-1, P] and mask [B, F] to weights [B, H, F, F]."""
        batch, size, _ = x.shape
        query, key, position_query = (
            part.view(batch, size, self.heads, -1).transpose(1, 2)
            for part in self.in_proj(x).split(self.sizes, dim=-1)
        )
        position_key = self.linear_pos(positions).view(2 * size - 1, self.heads, -1)
        by_offset = position_query @ position_key.permute(1, 2, 0)  # [B, H, F, 2F-1]
        scores = query @ key.transpose(2, 3) + _offset_to_key(by_offset)
        scores = scores.masked_fill(mask[:, None, None], MASKED_SCORE)
        return scores.softmax(dim=-1)


def _offset_to_key(by_offset: Tensor) -> Tensor:
    """Pick, for query i and key j, the entry of offset j - i: [B, H, F, 2F-1] -> [B, H, F, F]."""
    batch, heads, size, width = by_offset.shape
    by_offset = by_offset.contiguous()
    # A step down one row is a step of one offset to the left.
    strides = (heads * size * width, size * width, width - 1, 1)
    return by_offset.as_strided(
        (batch, heads, size, size), strides, by_offset.storage_offset() + size - 1
    )


class SelfAttention(nn.Module):
    """Weighted mean of values under given attention weights.

    Arguments
    ---------
    dim, heads, value_head_dim : int
        Channels, heads and values per head.
    branch_scale : float
        Initial size of the last layer.
    """

    def __init__(self, dim: int, heads: int, value_head_dim: int, branch_scale: float) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj = nn.Linear(dim, heads * value_head_dim)
        self.out_proj = scaled_linear(heads * value_head_dim, dim, scale=branch_scale)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Map x [B, F, D] and weights [B, H, F, F] to [B, F, D]."""
        batch, size, _ = x.shape
        values = self.in_proj(x).view(batch, size, self.heads, -1).transpose(1, 2)
        return self.out_proj((weights @ values).transpose(1, 2).flatten(2))


class NonlinearAttention(nn.Module):
    """Gated attention over a hidden space of 3/4 of the channels, with one head's weights.

    Arguments
    ---------
    dim : int
        Channels.
    branch_scale : float
        Initial size of the last layer.
    """

    def __init__(self, dim: int, branch_scale: float) -> None:
        super().__init__()
        hidden = 3 * dim // 4
        self.in_proj = nn.Linear(dim, 3 * hidden)
        self.out_proj = scaled_linear(hidden, dim, scale=branch_scale)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Map x [B, F, D] and the first head's weights [B, F, F] to [B, F, D]."""
        gate, value, output_gate = self.in_proj(x).chunk(3, dim=-1)
        return self.out_proj(output_gate * (weights @ (value * gate.tanh())))


class FeedForward(nn.Module):
    """Linear, SwooshL, linear.

    Arguments
    ---------
    dim, hidden : int
        Channels outside and inside.
    dropout : float
        Rate on the hidden units, in training only.
    branch_scale : float
        Half the initial size of the last layer.
    """

    def __init__(self, dim: int, hidden: int, dropout: float, branch_scale: float) -> None:
        super().__init__()
        self.in_proj = nn.Linear(dim, hidden)
        self.activation = SwooshL()
        self.dropout = nn.Dropout(dropout)
        self.out_proj = scaled_linear(hidden, dim, scale=2 * branch_scale)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, F, D] to [B, F, D]."""
        return self.out_proj(self.dropout(self.activation(self.in_proj(x))))


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
    """

    def __init__(self, dim: int, kernel: int, branch_scale: float) -> None:
        super().__init__()
        self.in_proj = nn.Linear(dim, 2 * dim)
        self.depthwise_conv = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.activation = SwooshR()
        self.out_proj = scaled_linear(dim, dim, scale=branch_scale)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map x [B, F, D] with mask [B, F] to [B, F, D]."""
        value, gate = self.in_proj(x).chunk(2, dim=-1)
        x = (value * gate.sigmoid()).masked_fill(mask[..., None], 0.0)
        return self.out_proj(self.activation(self._convolve(x)))

    def _convolve(self, x: Tensor) -> Tensor:
        """Convolve over time; in two dimensions, which reads [B, F, D] as it lies in memory."""
        conv = self.depthwise_conv
        image = x.transpose(1, 2).unsqueeze(2)  # [B, D, 1, F] in channels-last layout
        image = nn.functional.conv2d(
            image,
            conv.weight.unsqueeze(2),
            conv.bias,
            padding=(0, conv.padding[0]),
            groups=x.shape[2],
        )
        return image.squeeze(2).transpose(1, 2)


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
    dropout : float
        Rate inside the feed-forward modules, in training only.
    branch_scale : float
        Initial size of the layers that end a branch, relative to the usual; see
        :func:`scaled_linear`. The feed-forward modules get twice as much.

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
        dropout: float = 0.0,
        branch_scale: float = 0.05,
    ) -> None:
        super().__init__()
        self.self_attn_weights = RelativeAttentionWeights(
            dim, heads, query_head_dim, position_head_dim, position_dim, branch_scale
        )
        self.self_attn1 = SelfAttention(dim, heads, value_head_dim, branch_scale)
        self.self_attn2 = SelfAttention(dim, heads, value_head_dim, branch_scale)
        self.nonlin_attention = NonlinearAttention(dim, branch_scale)
        self.feed_forward1 = FeedForward(dim, feedforward * 3 // 4, dropout, branch_scale)
        self.feed_forward2 = FeedForward(dim, feedforward, dropout, branch_scale)
        self.feed_forward3 = FeedForward(dim, feedforward * 5 // 4, dropout, branch_scale)
        self.conv_module1 = ConvolutionModule(dim, kernel, branch_scale)
        self.conv_module2 = ConvolutionModule(dim, kernel, branch_scale)
        self.norm = BiasNorm(dim)
        self.bypass_mid = Bypass(dim)
        self.bypass = Bypass(dim)

    def forward(self, source: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """Map source [B, F, D], positions [2F-1, P] and mask [B, F] to [B, F, D]."""
        weights = self.self_attn_weights(source, positions, mask)
        x = source + self.feed_forward1(source)
        x = x + self.nonlin_attention(x, weights[:, 0])
        x = x + self.self_attn1(x, weights)
        x = x + self.conv_module1(x, mask)
        x = x + self.feed_forward2(x)
        x = self.bypass_mid(source, x)
        x = x + self.self_attn2(x, weights)
        x = x + self.conv_module2(x, mask)
        x = x + self.feed_forward3(x)
        return self.bypass(source, self.norm(x))
