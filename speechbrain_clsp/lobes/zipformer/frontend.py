"""The convolutional front end of Zipformer: filter banks at 100 Hz to frames at 50 Hz."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from speechbrain_clsp.lobes.zipformer.activations import SwooshL, SwooshR, feed_forward, pointwise
from speechbrain_clsp.lobes.zipformer.convolution import depthwise_conv
from speechbrain_clsp.lobes.zipformer.layer import BiasNorm
from speechbrain_clsp.lobes.zipformer.regularization import (
    UNREGULARIZED,
    DropPath,
    Regularization,
    SharedDropout,
    doubling,
)
from speechbrain_clsp.lobes.zipformer.regularizers import Balancer
from speechbrain_clsp.nnet.masking import padding_mask, zero_padding

MINIMUM_FRAMES = 9  # what the three convolutions need for one frame of output


class ConvNeXt(nn.Module):
    """Residual 7 x 7 depthwise convolution with an inverted bottleneck.

    Arguments
    ---------
    channels : int
        Channels; three times as many inside.
    regularization : Regularization
        What to do in training.

    Example
    -------
    >>> import torch
    >>> ConvNeXt(4)(torch.randn(1, 4, 9, 31), torch.tensor([9])).shape
    torch.Size([1, 4, 9, 31])
    """

    def __init__(self, channels: int, regularization: Regularization = UNREGULARIZED) -> None:
        super().__init__()
        self.depthwise_conv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.pointwise_conv1 = nn.Conv2d(channels, 3 * channels, 1)
        self.activation = SwooshL()
        self.pointwise_conv2 = nn.Conv2d(3 * channels, channels, 1)
        self.skip = DropPath(regularization.frontend_drop)
        self.balance_hidden = regularization.balancer(
            min_positive=0.3, max_positive=1.0, min_abs=0.75, max_abs=5.0
        )
        self.balance_output = regularization.balancer(
            min_positive=0.4, max_positive=0.6, min_abs=1.0, max_abs=6.0
        )
        self.whiten = regularization.whiten(5.0)
        self.is_regularized = regularization != UNREGULARIZED

    def forward(self, x: Tensor, counts: Tensor) -> Tensor:
        """Map [B, C, F, N] with [B] valid frames to [B, C, F, N]."""
        # Channels last throughout: the 1 x 1 convolutions are matrix products, and CPUs do those
        # and the depthwise convolution much faster. What lies behind an utterance's end must look
        # like the zeros behind the longest one's.
        mask = padding_mask(counts, x.shape[2])
        x = zero_padding(x.permute(0, 2, 3, 1), mask)
        hidden = depthwise_conv(x, self.depthwise_conv.weight, self.depthwise_conv.bias)
        layers = self.pointwise_conv1, self.pointwise_conv2
        if self.is_regularized and self.training:
            hidden = self.balance_hidden(pointwise(layers[0], hidden), mask)
            hidden = pointwise(layers[1], self.activation(hidden))
        else:
            hidden = feed_forward(hidden, *layers, self.activation)
        x = x + self.skip(hidden)
        return self.whiten(self.balance_output(x, mask), mask).permute(0, 3, 1, 2)


def _check_frames(n_frames: Tensor) -> None:
    shortest = int(n_frames.min())
    if shortest < MINIMUM_FRAMES:
        raise ValueError(
            f"An utterance has {shortest} frames of 10 ms, at least {MINIMUM_FRAMES} are needed:"
            " leave out clips shorter than 0.1 s"
        )


class Conv2dSubsampling(nn.Module):
    """Three convolutions, a ConvNeXt block and a linear layer.

    Arguments
    ---------
    n_mels : int
        Mel bins of the input.
    dim : int
        Channels of the output.
    channels : sequence of int
        Channels of the three convolutions.
    gain : float, optional
        Standard deviation of the convolutions' initial outputs, for white input of unit variance;
        biases then start at 0. By default they start as PyTorch's do: the flat part of SwooshR
        shrinks the signal about tenfold per layer, until biases make up all but a percent of what
        the encoder hears. Long trainings make up for that; a short one needs 3.
    regularization : Regularization, optional
        What to do in training; by default nothing.

    Example
    -------
    >>> import torch
    >>> frontend = Conv2dSubsampling(128, 64)
    >>> x, counts = frontend(torch.randn(2, 203, 128), torch.tensor([203, 150]))
    >>> x.shape, counts.tolist()
    (torch.Size([2, 98, 64]), [98, 71])
    """

    def __init__(
        self,
        n_mels: int,
        dim: int,
        channels: Sequence[int] = (8, 32, 128),
        gain: float | None = None,
        regularization: Regularization | None = None,
    ) -> None:
        super().__init__()
        rules = regularization or UNREGULARIZED
        first, second, third = channels
        # Numbers as in the published state dict. At 1 it scales a gradient down for fp16's sake.
        self.conv = nn.Sequential(
            OrderedDict(
                [
                    ("0", nn.Conv2d(1, first, 3, padding=(0, 1))),
                    ("2", rules.balancer(max_abs=1.0, dim=1)),
                    ("3", SwooshR()),
                    ("4", nn.Conv2d(first, second, 3, stride=2)),
                    ("5", rules.balancer(max_abs=4.0, dim=1)),
                    ("6", SwooshR()),
                    ("7", nn.Conv2d(second, third, 3, stride=(1, 2))),
                    ("8", rules.balancer(max_abs=4.0, dim=1)),
                    ("9", SwooshR()),
                ]
            )
        )
        self.convnext = ConvNeXt(third, rules)
        self.out = nn.Linear(third * (((n_mels - 1) // 2 - 1) // 2), dim)
        self.whiten = rules.whiten(doubling(4.0), grad_scale=0.02)
        self.out_norm = BiasNorm(dim, rules)
        self.dropout = SharedDropout(rules.dropout)
        if gain is not None:
            self._initialize(gain)

    def _initialize(self, gain: float) -> None:
        convolutions = [layer for layer in self.conv if isinstance(layer, nn.Conv2d)]
        for layer in convolutions:
            nn.init.normal_(layer.weight, std=gain * layer.weight[0].numel() ** -0.5)
        depthwise = self.convnext.depthwise_conv
        nn.init.normal_(depthwise.weight, std=depthwise.weight[0].numel() ** -0.5)
        for module in (*convolutions, depthwise, self.out):
            nn.init.constant_(module.get_parameter("bias"), 0.0)

    def forward(self, features: Tensor, n_frames: Tensor) -> tuple[Tensor, Tensor]:
        """Subsample.

        Arguments
        ---------
        features : Tensor
            [B, F, n_mels].
        n_frames : Tensor
            [B] int64, valid frames, each at least 9.

        Returns
        -------
        x : Tensor
            [B, (F - 7) // 2, dim].
        counts : Tensor
            [B] int64: (n_frames - 7) // 2.

        Raises
        ------
        ValueError
            If an utterance is shorter than 9 frames.
        """
        if not torch.onnx.is_in_onnx_export():  # an exported graph cannot raise
            _check_frames(n_frames)
        counts = (n_frames - 7) // 2
        # Channels last: on CPU the convolutions are several times faster in this layout.
        x = self._convolve(features[..., None].permute(0, 3, 1, 2), n_frames)
        x = self._project(self.convnext(x, counts))
        return self.dropout(self.out_norm(self.whiten(x, padding_mask(counts, x.shape[1])))), counts

    def _project(self, x: Tensor) -> Tensor:
        """Map [B, C, F, N] to [B, F, dim]: the layer's weights are reordered, not the frames."""
        if type(self.out) is not nn.Linear or torch.onnx.is_in_onnx_export():
            return self.out(x.transpose(1, 2).flatten(2))
        weight = self.out.weight.view(-1, x.shape[1], x.shape[3]).mT.flatten(1)
        return nn.functional.linear(x.permute(0, 2, 3, 1).flatten(2), weight, self.out.bias)

    def _convolve(self, x: Tensor, n_frames: Tensor) -> Tensor:
        for layer in self.conv:
            if isinstance(layer, Balancer):
                x = layer(x, padding_mask(n_frames, x.shape[2]) if layer.training else None)
                continue
            if isinstance(layer, SwooshL):
                x = layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # in the order of memory
                continue
            x = layer(x)
            if isinstance(layer, nn.Conv2d):
                n_frames = (n_frames - layer.kernel_size[0]) // layer.stride[0] + 1
        return x
