"""Cross entropy over rows of a similarity matrix, all at once or tile by tile."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Ids = tuple[Tensor, Tensor]


def row_cross_entropy(
    rows: Tensor,
    columns: Tensor,
    scale: Tensor,
    own: Tensor,
    tile: int | None = None,
    ids: Ids | None = None,
) -> Tensor:
    """Mean over rows of the cross entropy between softmax(scale * row @ columns.T) and its targets.

    Arguments
    ---------
    rows : Tensor
        [R, D].
    columns : Tensor
        [C, D].
    scale : Tensor
        [1] or 0-dim.
    own : Tensor
        [R, P] int64, each row's positive columns; the target is 1/P on each.
    tile : int, optional
        Rows per tile; no more than a [tile, C] part of the matrix is ever held. Gradients are
        worked out together with the loss, while the tile is there. Default: plain autograd.
    ids : (Tensor, Tensor), optional
        [R, Q] and [C, S] int64: a column that shares an id with a row, but is not its own, is left
        out of the row's softmax.

    Returns
    -------
    Tensor
        0-dim; 0 if there are no rows.

    Raises
    ------
    ValueError
        If ``tile`` is not positive.

    Example
    -------
    >>> rows, own = torch.eye(3), torch.arange(3)[:, None]
    >>> plain = row_cross_entropy(rows, rows, torch.tensor(5.0), own)
    >>> tiled = row_cross_entropy(rows, rows, torch.tensor(5.0), own, tile=2)
    >>> bool((plain - tiled).abs() < 1e-6)
    True
    """
    if tile is None:
        logits = scale * rows @ columns.T
        if ids is not None:
            logits = logits.masked_fill(_false_negatives(ids, own, slice(None)), -torch.inf)
        losses = -logits.log_softmax(dim=1).gather(1, own).mean(dim=1)
        return losses.sum() / max(len(rows), 1)
    if tile < 1:
        raise ValueError(f"tile must be a positive number of rows, not {tile}")
    return _TiledCrossEntropy.apply(rows, columns, scale, own, tile, ids) / max(len(rows), 1)


class _TiledCrossEntropy(torch.autograd.Function):
    """Sum of the rows' cross entropies, whose gradients are computed in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        columns: Tensor,
        scale: Tensor,
        own: Tensor,
        tile: int,
        ids: Ids | None,
    ) -> Tensor:
        """Return the sum; see :func:`row_cross_entropy` for the arguments."""
        wanted = any(ctx.needs_input_grad[:3])
        loss, scale_gradient = rows.new_zeros(()), rows.new_zeros(())
        if wanted:
            row_gradient, column_gradient = torch.empty_like(rows), torch.zeros_like(columns)
        for start in range(0, len(rows), tile):
            part = slice(start, start + tile)
            losses, error = _tile(rows[part], columns, scale, own[part], ids, part)
            loss += losses
            if wanted:
                torch.mm(error, columns, out=row_gradient[part])
                scale_gradient += torch.dot(row_gradient[part].flatten(), rows[part].flatten())
                column_gradient.addmm_(error.T, rows[part])
        if wanted:
            row_gradient *= scale
            column_gradient *= scale
            ctx.save_for_backward(row_gradient, column_gradient, scale_gradient.view_as(scale))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients with respect to rows, columns and scale."""
        rows, columns, scale = ctx.saved_tensors
        return rows * gradient, columns * gradient, scale * gradient, None, None, None


def _tile(
    rows: Tensor, columns: Tensor, scale: Tensor, own: Tensor, ids: Ids | None, part: slice
) -> tuple[Tensor, Tensor]:
    """Return the tile's summed loss and [tile, C], the loss's gradient with respect to logits."""
    logits = (rows * scale) @ columns.T
    if ids is not None:
        logits.masked_fill_(_false_negatives(ids, own, part), -torch.inf)
    logits -= logits.amax(dim=1, keepdim=True)
    positives = logits.gather(1, own).mean(dim=1)
    totals = logits.exp_().sum(dim=1, keepdim=True)
    loss = (totals.squeeze(1).log() - positives).sum()
    error = logits.div_(totals)  # the softmax, where the logits were
    error.scatter_add_(1, own, error.new_full(own.shape, -1.0 / own.shape[1]))
    return loss, error


def _false_negatives(ids: Ids, own: Tensor, part: slice) -> Tensor:
    """Return [rows of the part, C] bool: the column shares an id, and is not the row's own."""
    of_rows, of_columns = ids
    same = torch.zeros(len(own), len(of_columns), dtype=torch.bool, device=own.device)
    for row_id in of_rows[part].T:
        for column_id in of_columns.T:
            same |= row_id[:, None] == column_id
    return same.scatter_(1, own, False)
