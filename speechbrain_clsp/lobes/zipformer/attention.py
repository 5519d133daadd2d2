"""The attention of Zipformer2: weights, and the two modules that use them."""

from __future__ import annotations

from torch import Tensor, nn

from speechbrain_clsp.lobes.zipformer.linear import scaled_linear
from speechbrain_clsp.lobes.zipformer.regularization import DropPath, Regularization, doubling

MASKED_SCORE = -1000.0


class RelativeAttentionWeights(nn.Module):
    """Attention weights from queries, keys and relative positions; there is no 1/sqrt(d).

    Arguments
    ---------
    dim, heads, query_head_dim, position_head_dim, position_dim : int
        Channels, heads, and the sizes per head and of the positional encoding.
    branch_scale : float
        Initial size of the part that depends on positions.
    regularization : Regularization
        What to do in training.

    Example
    -------
    >>> import torch
    >>> attention = RelativeAttentionWeights(8, 2, 4, 2, 6, 1.0, Regularization())
    >>> mask = torch.tensor([[False, False, True]])
    >>> attention(torch.randn(1, 3, 8), torch.randn(5, 6), mask)[0, :, :, 2].max().item()
    0.0
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        query_head_dim: int,
        position_head_dim: int,
        position_dim: int,
        branch_scale: float,
        regularization: Regularization,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.sizes = [heads * query_head_dim, heads * query_head_dim, heads * position_head_dim]
        self.in_proj = scaled_linear(dim, sum(self.sizes), scale=query_head_dim**-0.25)
        self.linear_pos = scaled_linear(
            position_dim, heads * position_head_dim, scale=branch_scale, bias=False
        )
        self.position_drop = DropPath(regularization.position_drop)
        # Weights do not change if a constant is added to all keys: nothing else keeps it small.
        self.balance_keys = regularization.balancer(
            min_positive=0.4, max_positive=0.6, min_abs=0.0, max_abs=100.0, probability=0.025
        )
        self.whiten_keys = regularization.whiten(doubling(3.0), grad_scale=0.025, groups=heads)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """Map x [B, F, D], positions [2F-1, P] and mask [B, F] to weights [B, H, F, F]."""
        batch, size, _ = x.shape
        query, key, position_query = self.in_proj(x).split(self.sizes, dim=-1)
        key = self.whiten_keys(self.balance_keys(key, mask), mask)
        query, key, position_query = (
            part.view(batch, size, self.heads, -1).transpose(1, 2)
            for part in (query, key, position_query)
        )
        position_key = self.linear_pos(positions).view(2 * size - 1, self.heads, -1)
        position_key = nn.functional.pad(position_key, (0, 0, 0, 0, 0, 1))
        by_offset = position_query @ position_key.permute(1, 2, 0)  # [B, H, F, 2F]
        scores = query @ key.transpose(2, 3) + _offset_to_key(self.position_drop(by_offset))
        scores = scores.masked_fill(mask[:, None, None], MASKED_SCORE)
        return scores.softmax(dim=-1)


def _offset_to_key(by_offset: Tensor) -> Tensor:
    """Pick, for query i and key j, the entry of offset j - i: [B, H, F, 2F] -> [B, H, F, F].

    The last column is never picked. Rows that are cut one entry shorter, from offset 0 of the first
    on, move one offset to the left with each step down.
    """
    batch, heads, size, _ = by_offset.shape
    flat = by_offset.flatten(2)[..., size - 1 : size - 1 + size * (2 * size - 1)]
    return flat.view(batch, heads, size, 2 * size - 1)[..., :size]


class SelfAttention(nn.Module):
    """Weighted mean of values under given attention weights.

    Arguments
    ---------
    dim, heads, value_head_dim : int
        Channels, heads and values per head.
    branch_scale : float
        Initial size of the last layer.
    regularization : Regularization
        What to do in training.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        value_head_dim: int,
        branch_scale: float,
        regularization: Regularization,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj = nn.Linear(dim, heads * value_head_dim)
        self.out_proj = scaled_linear(heads * value_head_dim, dim, scale=branch_scale)
        self.whiten = regularization.whiten(doubling(7.5, 3.0))

    def forward(self, x: Tensor, weights: Tensor, mask: Tensor) -> Tensor:
        """Map x [B, F, D], weights [B, H, F, F] and mask [B, F] to [B, F, D]."""
        batch, size, _ = x.shape
        values = self.in_proj(x).view(batch, size, self.heads, -1).transpose(1, 2)
        return self.whiten(self.out_proj((weights @ values).transpose(1, 2).flatten(2)), mask)


class NonlinearAttention(nn.Module):
    """Gated attention over a hidden space of 3/4 of the channels, with one head's weights.

    Arguments
    ---------
    dim : int
        Channels.
    branch_scale : float
        Initial size of the last layer.
    regularization : Regularization
        What to do in training.
    """

    def __init__(self, dim: int, branch_scale: float, regularization: Regularization) -> None:
        super().__init__()
        hidden = 3 * dim // 4
        self.in_proj = nn.Linear(dim, 3 * hidden)
        self.out_proj = scaled_linear(hidden, dim, scale=branch_scale)
        self.balance_gate = regularization.balancer(
            min_positive=[(0, 0.25), (20000, 0.05)],
            max_positive=[(0, 0.75), (20000, 0.95)],
            min_abs=0.5,
            max_abs=5.0,
        )
        self.whiten_values = regularization.whiten(doubling(5.0))
        self.whiten = regularization.whiten(doubling(5.0, 3.0))

    def forward(self, x: Tensor, weights: Tensor, mask: Tensor) -> Tensor:
        """Map x [B, F, D], the first head's weights [B, F, F] and mask [B, F] to [B, F, D]."""
        gate, value, output_gate = self.in_proj(x).chunk(3, dim=-1)
        gate = self.balance_gate(gate, mask).tanh()
        value = self.whiten_values(value, mask)
        return self.whiten(self.out_proj(output_gate * (weights @ (value * gate))), mask)
