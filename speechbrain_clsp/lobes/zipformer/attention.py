"""The attention of Zipformer2: weights, and the two modules that use them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from speechbrain_clsp.lobes.zipformer.blocks import use_blocks
from speechbrain_clsp.lobes.zipformer.linear import scaled_linear
from speechbrain_clsp.lobes.zipformer.regularization import DropPath, Regularization, doubling

MASKED_SCORE = -1000.0
SCORES_BLOCK = 2**18  # numbers in a block of heads' scores


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
    >>> weights, first = attention(torch.randn(1, 3, 8), torch.randn(5, 6), mask)
    >>> weights[0, :, :, 2].max().item()
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

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Map x [B, F, D], positions [2F-1, P] and mask [B, F] to weights of queries and keys.

        Returns
        -------
        weights : Tensor
            [B, H, F, F].
        first : Tensor
            [B, F, F], those of the first head.
        """
        batch, size, _ = x.shape
        query, key, position_query = self.in_proj(x).split(self.sizes, dim=-1)
        key = self.whiten_keys(self.balance_keys(key, mask), mask)
        position_query = self.position_drop(position_query)
        query, key, position_query = (
            part.view(batch, size, self.heads, -1).transpose(1, 2)
            for part in (query, key, position_query)
        )
        position_key = self.linear_pos(positions).view(2 * size - 1, self.heads, -1)
        position_key = nn.functional.pad(position_key, (0, 0, 0, 0, 0, 1)).transpose(0, 1)
        return attention_weights(query, key, position_query, position_key, mask)


def attention_weights(
    query: Tensor, key: Tensor, position_query: Tensor, position_key: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute softmax(query key' + position_query position_key[offset of key from query]').

    Arguments
    ---------
    query, key : Tensor
        [B, H, F, D].
    position_query : Tensor
        [B, H, F, P].
    position_key : Tensor
        [H, 2F, P], for the offsets -(F-1) ... F-1, and one more that is not read.
    mask : Tensor
        [B, F] bool, True on keys to leave out.

    Returns
    -------
    weights : Tensor
        [B, H, F, F].
    first : Tensor
        [B, F, F], those of the first head.

    Example
    -------
    >>> x, positions, mask = torch.randn(2, 4, 5, 8), torch.randn(4, 10, 8), torch.zeros(2, 5) > 0
    >>> weights, first = attention_weights(x, x, x, positions, mask)
    >>> weights.shape, first.shape
    (torch.Size([2, 4, 5, 5]), torch.Size([2, 5, 5]))
    """
    if use_blocks(query, key, position_query, position_key):
        inputs = (
            query.contiguous(),
            key.contiguous(),
            position_query.contiguous(),
            position_key.transpose(1, 2).contiguous(),
            mask,
        )
        if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
            return _AttentionWeights.apply(*inputs)
        weights = _weights_in_blocks(*inputs)
        return weights, weights[:, 0]
    by_offset = position_query @ position_key.transpose(1, 2)
    scores = query @ key.transpose(2, 3) + _offset_to_key(by_offset)
    weights = scores.masked_fill(mask[:, None, None], MASKED_SCORE).softmax(dim=-1)
    return weights, weights[:, 0]


def _offset_to_key(by_offset: Tensor) -> Tensor:
    """Pick, for query i and key j, the entry of offset j - i: [B, H, F, 2F] -> [B, H, F, F].

    The last column is never picked. Rows that are cut one entry shorter, from offset 0 of the first
    on, move one offset to the left with each step down.
    """
    batch, heads, size, _ = by_offset.shape
    flat = by_offset.flatten(2)[..., size - 1 : size - 1 + size * (2 * size - 1)]
    return flat.view(batch, heads, size, 2 * size - 1)[..., :size]


def _blocks_of_heads(n_heads: int, size: int) -> Iterator[slice]:
    """Yield slices of all heads of a batch, B * H in number."""
    step = max(1, SCORES_BLOCK // size**2)
    for start in range(0, n_heads, step):
        yield slice(start, min(start + step, n_heads))


def _weights_in_blocks(
    query: Tensor, key: Tensor, position_query: Tensor, position_key: Tensor, mask: Tensor
) -> Tensor:
    """Return [B, H, F, F]; arguments are contiguous, position_key [H, P, 2F]."""
    batch, heads, size, _ = query.shape
    weights = query.new_empty(batch, heads, size, size)
    heads_of_all = weights.flatten(0, 1)
    query, key, position_query = (x.flatten(0, 1) for x in (query, key, position_query))
    position_key = position_key.repeat(batch, 1, 1)
    # A sum is several times as fast as filling, and exp() of it is 0 all the same.
    masked = (MASKED_SCORE * mask.to(query.dtype)).repeat_interleave(heads, dim=0).unsqueeze(1)
    for part in _blocks_of_heads(len(query), size):
        scores = torch.bmm(query[part], key[part].mT, out=heads_of_all[part])
        by_offset = torch.bmm(position_query[part], position_key[part])
        scores.add_(_offset_to_key(by_offset.unsqueeze(0)).squeeze(0))
        scores.add_(masked[part])
        torch.softmax(scores, dim=-1, out=scores)
    return weights


class _AttentionWeights(torch.autograd.Function):
    """:func:`attention_weights` in blocks of heads, whose scores are never all there."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        position_query: Tensor,
        position_key: Tensor,
        mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return the weights, and a copy of the first head's; position_key is [H, P, 2F]."""
        weights = _weights_in_blocks(query, key, position_query, position_key, mask)
        ctx.save_for_backward(query, key, position_query, position_key, weights)
        return weights, weights[:, 0].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_first: Tensor) -> tuple:
        """Return the gradients with respect to queries and keys."""
        inputs = query, _, _, position_key, weights = ctx.saved_tensors
        batch, heads, size, _ = query.shape
        query, key, position_query = (x.flatten(0, 1) for x in inputs[:3])
        position_key = position_key.repeat(batch, 1, 1)
        grads = [torch.empty_like(x) for x in (query, key, position_query, position_key)]
        # The first head's gradient is added where that head is, not to zeros for all the others.
        grad_first = grad_first + grad[:, 0]
        grad, weights = grad.flatten(0, 1), weights.flatten(0, 1)
        by_offset = None
        for part in _blocks_of_heads(len(query), size):
            scores = _softmax_gradient(grad[part], weights[part])
            for i in range(part.start + -part.start % heads, part.stop, heads):
                scores[i - part.start] = _softmax_gradient(grad_first[i // heads], weights[i])
            torch.bmm(scores, key[part], out=grads[0][part])
            torch.bmm(scores.mT, query[part], out=grads[1][part])
            if by_offset is None:  # what lies beside the scores stays 0
                by_offset = scores.new_zeros(1, len(scores), size, 2 * size)
            by_offset = by_offset[:, : len(scores)]
            _offset_to_key(by_offset).copy_(scores)
            torch.bmm(by_offset[0], position_key[part].mT, out=grads[2][part])
            torch.bmm(position_query[part].mT, by_offset[0], out=grads[3][part])
        of_positions = grads[3].unflatten(0, (batch, heads)).sum(0)
        return *(x.unflatten(0, (batch, heads)) for x in grads[:3]), of_positions, None


def _softmax_gradient(grad: Tensor, weights: Tensor) -> Tensor:
    """Return the gradient with respect to scores."""
    return torch._softmax_backward_data(grad, weights, -1, grad.dtype)


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
