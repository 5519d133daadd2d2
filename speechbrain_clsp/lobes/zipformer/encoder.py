"""Zipformer2 (arXiv 2310.11230): an encoder whose stacks run at different frame rates.

Tensors are batch-first, [B, F, D]; masks are [B, F] bool, True on padding. Attribute names give
the state-dict keys of the published checkpoints. Padding never reaches a valid frame, so that an
utterance is encoded alike alone and in any batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from speechbrain_clsp.lobes.zipformer.layer import Bypass, ZipformerLayer
from speechbrain_clsp.lobes.zipformer.regularization import (
    UNREGULARIZED,
    FeatureMask,
    Regularization,
    drop_path,
)
from speechbrain_clsp.lobes.zipformer.schedule import Rate
from speechbrain_clsp.nnet.masking import padding_mask


class RelativePositions(nn.Module):
    """Compressed relative positional encoding, in which near offsets are resolved finely.

    Arguments
    ---------
    dim : int
        Size of the encoding, even.

    Example
    -------
    >>> RelativePositions(48)(5, torch.device("cpu")).shape
    torch.Size([9, 48])
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, size: int, device: torch.device) -> Tensor:
        """Return [2 * size - 1, dim] float32, for the offsets -(size - 1) ... size - 1."""
        offset = torch.arange(-(size - 1), size, device=device, dtype=torch.float32)
        knee = math.sqrt(self.dim)
        compressed = knee * offset.sign() * ((offset.abs() + knee).log() - math.log(knee))
        angle = (compressed / (self.dim / (2.0 * math.pi))).atan()
        phase = angle[:, None] * torch.arange(1, self.dim // 2 + 1, device=device)
        encoding = torch.stack([phase.cos(), phase.sin()], dim=-1).flatten(1)
        encoding[:, -1] = 1.0  # a bias
        return encoding


class Downsample(nn.Module):
    """Weighted mean over groups of ``factor`` frames, with learnt weights.

    Arguments
    ---------
    factor : int
        Frames per group. The last group is filled up by repeating the last valid frame.

    Example
    -------
    >>> Downsample(2)(torch.randn(1, 5, 8), torch.tensor([5])).shape
    torch.Size([1, 3, 8])
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.bias = nn.Parameter(torch.zeros(factor))

    def n_groups(self, n_frames: Any) -> Any:
        """Return into how many groups frames fall, also of a Tensor."""
        # Not -(-n // factor): ONNX rounds negative numbers the other way.
        return (n_frames + self.factor - 1) // self.factor

    def forward(self, x: Tensor, counts: Tensor) -> Tensor:
        """Map [B, F, D] with [B] valid frames to [B, ceil(F / factor), D]."""
        batch, size, dim = x.shape
        groups = self.n_groups(size)
        index = torch.arange(groups * self.factor, device=x.device)
        # Each utterance repeats its own last frame, wherever the batch ends.
        index = torch.minimum(index, counts[:, None] - 1)
        rows = index + size * torch.arange(batch, device=x.device)[:, None]
        x = x.flatten(0, 1).index_select(0, rows.flatten())
        weights = self.bias.softmax(0).to(x.dtype)
        return torch.einsum("bgfd,f->bgd", x.view(batch, groups, self.factor, dim), weights)


class ZipformerStack(nn.Module):
    """A pile of layers that share one frame rate and one positional encoding.

    Arguments
    ---------
    n_layers : int
        Number of layers.
    position_dim : int
        Size of the positional encoding.
    regularization : Regularization
        What to do in training.
    layer_drop_rates : sequence of float or schedule, optional
        Probability of skipping a layer, for each of them.
    checkpoint_layers : bool
        See :class:`Zipformer2`.
    **layer : dict
        Arguments of :class:`~speechbrain_clsp.lobes.zipformer.layer.ZipformerLayer`.

    Example
    -------
    >>> stack = ZipformerStack(1, 48, dim=32, heads=2, feedforward=48, kernel=7)
    >>> stack(torch.randn(2, 9, 32), torch.tensor([9, 4])).shape
    torch.Size([2, 9, 32])
    """

    def __init__(
        self,
        n_layers: int,
        position_dim: int,
        regularization: Regularization = UNREGULARIZED,
        layer_drop_rates: Sequence[Rate] | None = None,
        checkpoint_layers: bool = False,
        **layer: Any,
    ) -> None:
        super().__init__()
        self.checkpoint_layers = checkpoint_layers
        layer.update(position_dim=position_dim, regularization=regularization)
        self.positions = RelativePositions(position_dim)
        self.position_dropout = nn.Dropout(regularization.position_dropout)
        self.layers = nn.ModuleList(
            ZipformerLayer(layer_drop=skip, **layer)
            for skip in layer_drop_rates or [0.0] * n_layers
        )

    def forward(self, x: Tensor, counts: Tensor, feature_mask: Tensor | None = None) -> Tensor:
        """Map [B, F, D] with [B] valid frames, and features [B, 1, D] to keep, to [B, F, D]."""
        mask = padding_mask(counts, x.shape[1])
        positions = self.positions(x.shape[1], x.device).to(x.dtype)
        positions = self.position_dropout(positions)
        x = drop_path(x, feature_mask)
        for layer in self.layers:
            x = drop_path(self._run(layer, x, positions, mask), feature_mask)
        return x

    def _run(self, layer: nn.Module, *inputs: Tensor) -> Tensor:
        """Call a layer, whose activations are computed again in the backward pass if so chosen."""
        if self.checkpoint_layers and self.training and torch.is_grad_enabled():
            # Random numbers are replayed: both passes drop, skip and balance the same.
            return checkpoint(layer, *inputs, use_reentrant=False, preserve_rng_state=True)
        return layer(*inputs)


class DownsampledStack(nn.Module):
    """A stack that runs at a lower frame rate, bypassed at the full one.

    Arguments
    ---------
    stack : ZipformerStack
        The layers.
    dim : int
        Their number of channels.
    factor : int
        Frames per frame of the stack.
    regularization : Regularization
        What to do in training.

    Example
    -------
    >>> stack = ZipformerStack(1, 48, dim=32, heads=2, feedforward=48, kernel=7)
    >>> DownsampledStack(stack, 32, 2)(torch.randn(2, 9, 32), torch.tensor([9, 4])).shape
    torch.Size([2, 9, 32])
    """

    def __init__(
        self,
        stack: ZipformerStack,
        dim: int,
        factor: int,
        regularization: Regularization = UNREGULARIZED,
    ) -> None:
        super().__init__()
        self.factor = factor
        self.downsample = Downsample(factor)
        self.encoder = stack
        self.out_combiner = Bypass(dim, regularization)

    def forward(self, x: Tensor, counts: Tensor, feature_mask: Tensor | None = None) -> Tensor:
        """Map [B, F, D] with [B] valid frames, and features [B, 1, D] to keep, to [B, F, D]."""
        slow_counts = self.downsample.n_groups(counts)
        slow = self.encoder(self.downsample(x, counts), slow_counts, feature_mask)
        return self.out_combiner(x, slow.repeat_interleave(self.factor, dim=1)[:, : x.shape[1]])


class Zipformer2(nn.Module):
    """The encoder: stacks at several frame rates, then a last downsampling.

    Arguments
    ---------
    downsampling : sequence of int
        Frames per frame, one entry per stack.
    n_layers : sequence of int
        Layers per stack.
    dims : sequence of int
        Channels per stack.
    feedforward : sequence of int
        Width of the feed-forward modules per stack.
    heads : sequence of int
        Attention heads per stack.
    kernels : sequence of int
        Odd sizes of the depthwise convolutions per stack.
    query_head_dim, value_head_dim, position_head_dim : int
        Sizes per attention head.
    position_dim : int
        Size of the positional encoding.
    output_downsampling : int
        Factor of the last downsampling.
    branch_scale : float
        Initial size of the layers' branches. The published 0.05 suits long trainings: ScaledAdam
        changes sizes by a fraction of a percent per step, so a short one wants larger branches.
    regularization : Regularization, optional
        What to do in training, here and in the front end of a
        :class:`~speechbrain_clsp.lobes.speech_tower.SpeechTower`. By default nothing: the devices
        of long trainings on much data would keep a small model from learning.
    checkpoint_layers : bool
        In training, keep only the layers' inputs and compute each layer again in the backward
        pass: the same gradients in less memory, for about a third more time.

    Example
    -------
    >>> encoder = Zipformer2([1, 2], [1, 1], [32, 48], [48, 64], [2, 2], [7, 7])
    >>> x, counts = encoder(torch.randn(2, 9, 32), torch.tensor([9, 4]))
    >>> x.shape, counts.tolist()
    (torch.Size([2, 5, 48]), [5, 2])
    """

    def __init__(
        self,
        downsampling: Sequence[int],
        n_layers: Sequence[int],
        dims: Sequence[int],
        feedforward: Sequence[int],
        heads: Sequence[int],
        kernels: Sequence[int],
        query_head_dim: int = 32,
        value_head_dim: int = 12,
        position_head_dim: int = 4,
        position_dim: int = 48,
        output_downsampling: int = 2,
        branch_scale: float = 0.05,
        regularization: Regularization | None = None,
        checkpoint_layers: bool = False,
    ) -> None:
        super().__init__()
        per_stack = dict(
            n_layers=n_layers, dims=dims, feedforward=feedforward, heads=heads, kernels=kernels
        )
        wrong = [name for name, values in per_stack.items() if len(values) != len(downsampling)]
        if wrong:
            raise ValueError(f"{wrong} must have one entry per stack, {len(downsampling)} in all")
        self.dims = list(dims)
        self.output_dim = max(dims)
        self.regularization = rules = regularization or UNREGULARIZED
        self.feature_mask = FeatureMask(rules.feature_mask, rules.unmasked_channels)
        self.encoders = nn.ModuleList()
        for i, factor in enumerate(downsampling):
            layers = ZipformerStack(
                n_layers[i],
                position_dim,
                dim=dims[i],
                heads=heads[i],
                feedforward=feedforward[i],
                kernel=kernels[i],
                query_head_dim=query_head_dim,
                value_head_dim=value_head_dim,
                position_head_dim=position_head_dim,
                branch_scale=branch_scale,
                regularization=rules,
                layer_drop_rates=rules.layer_drop_rates(i, len(downsampling), n_layers[i], factor),
                checkpoint_layers=checkpoint_layers,
            )
            self.encoders.append(
                DownsampledStack(layers, dims[i], factor, rules) if factor > 1 else layers
            )
        self.downsample_output = Downsample(output_downsampling)

    def forward(self, x: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Encode.

        Arguments
        ---------
        x : Tensor
            [B, F, dims[0]], the 50 Hz frames of the front end.
        counts : Tensor
            [B] int64, valid frames.

        Returns
        -------
        encoded : Tensor
            [B, ceil(F / output_downsampling), max(dims)].
        counts : Tensor
            [B] int64, its valid frames.
        """
        outputs = []
        feature_masks = self.feature_mask.draw(x, self.dims)
        for stack, dim, feature_mask in zip(self.encoders, self.dims, feature_masks):
            x = stack(_fit_channels(x, dim), counts, feature_mask)
            outputs.append(x)
        x = self.downsample_output(self._widest(outputs), counts)
        return x, self.downsample_output.n_groups(counts)

    def _widest(self, outputs: list[Tensor]) -> Tensor:
        """Extend the last output by the further channels of wider stacks, latest first."""
        pieces = [outputs[-1]]
        width = self.dims[-1]
        for output, dim in zip(reversed(outputs), reversed(self.dims)):
            if dim > width:
                pieces.append(output[..., width:dim])
                width = dim
        return torch.cat(pieces, dim=-1)


def _fit_channels(x: Tensor, dim: int) -> Tensor:
    """Cut or zero-pad the channels to ``dim``."""
    if x.shape[-1] >= dim:
        return x[..., :dim]
    return nn.functional.pad(x, (0, dim - x.shape[-1]))
