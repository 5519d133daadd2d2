"""The convolutional front end of Zipformer: filter banks at 100 Hz to frames at 50 Hz.

Authors
 * The speechbrain-clsp authors 2026
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from speechbrain_clsp.lobes.pooling import padding_mask
from speechbrain_clsp.lobes.zipformer_layer import BiasNorm
from speechbrain_clsp.nnet.activations import SwooshL, SwooshR

MINIMUM_FRAMES = 9  # what the three convolutions need for one frame of output


class ConvNeXt(nn.Module):
    """Residual 7 x 7 depthwise convolution with an inverted bottleneck.

    Arguments
    ---------
    channels : int
        Channels; three times as many inside.

    Example
    -------
    >>> import torch
    >>> ConvNeXt(4)(torch.randn(1, 4, 9, 31), torch.tensor([9])).shape
    torch.Size([1, 4, 9, 31])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise_conv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.pointwise_conv1 = nn.Conv2d(channels, 3 * channels, 1)
        self.activation = SwooshL()
        self.pointwise_conv2 = nn.Conv2d(3 * channels, channels, 1)

    def forward(self, x: Tensor, counts: Tensor) -> Tensor:
        """Map [B, C, F, N] with [B] valid frames to [B, C, F, N]."""
        # What lies behind an utterance's end must look like the zeros behind the longest one's.
        x = x.masked_fill(padding_mask(counts, x.shape[2])[:, None, :, None], 0.0)
        hidden = self.activation(_pointwise(self.pointwise_conv1, self.depthwise_conv(x)))
        return x + _pointwise(self.pointwise_conv2, hidden)


def _pointwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a 1 x 1 convolution as the matrix product that it is, which CPUs do much faster."""
    weight = conv.weight.flatten(1)
    return nn.functional.linear(x.permute(0, 2, 3, 1), weight, conv.bias).permute(0, 3, 1, 2)


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
        the encoder hears. Long trainings mend that, a short one wants 3.

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
    ) -> None:
        super().__init__()
        first, second, third = channels
        # Numbers as in the published state dict, whose gaps are training-time modules.
        self.conv = nn.Sequential(
            OrderedDict(
                [
                    ("0", nn.Conv2d(1, first, 3, padding=(0, 1))),
                    ("3", SwooshR()),
                    ("4", nn.Conv2d(first, second, 3, stride=2)),
                    ("6", SwooshR()),
                    ("7", nn.Conv2d(second, third, 3, stride=(1, 2))),
                    ("9", SwooshR()),
                ]
            )
        )
        self.convnext = ConvNeXt(third)
        self.out = nn.Linear(third * (((n_mels - 1) // 2 - 1) // 2), dim)
        self.out_norm = BiasNorm(dim)
        if gain is not None:
            self._initialise(gain)

    def _initialise(self, gain: float) -> None:
        convolutions = [layer for layer in self.conv if isinstance(layer, nn.Conv2d)]
        for layer in convolutions:
            nn.init.normal_(layer.weight, std=gain * layer.weight[0].numel() ** -0.5)
        depthwise = self.convnext.depthwise_conv
        nn.init.normal_(depthwise.weight, std=depthwise.weight[0].numel() ** -0.5)
        for layer in (*convolutions, depthwise, self.out):
            nn.init.zeros_(layer.bias)

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
        shortest = int(n_frames.min())
        if shortest < MINIMUM_FRAMES:
            raise ValueError(
                f"An utterance has {shortest} frames of 10 ms, at least {MINIMUM_FRAMES} are"
                " needed: leave out clips shorter than 0.1 s"
            )
        counts = (n_frames - 7) // 2
        # Channels last: on CPU the convolutions are several times faster in this layout.
        x = self.convnext(self.conv(features[..., None].permute(0, 3, 1, 2)), counts)
        return self.out_norm(self.out(x.transpose(1, 2).flatten(2))), counts
