"""What pretrained encoders of speech read, from padded waveforms, the same alone and in a batch.

Each of the modules here computes on a batch, and with gradients, what the feature extractor of
transformers computes in numpy for one clip.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from speechbrain_clsp.lobes.features import SAMPLE_RATE, KaldiFbank
from speechbrain_clsp.nnet.masking import full_precision, padding_mask

VARIANCE_FLOOR = 1e-7  # as in the feature extractors of transformers
KALDI_AMPLITUDE = 2.0**15  # of w2v-BERT's features, made for 16-bit integers
WHISPER_WINDOW = 400  # samples: 25 ms
WHISPER_SHIFT = 160  # samples: 10 ms
WHISPER_STRIDE = 2  # frames of 10 ms per frame of the encoder
WHISPER_RANGE = 8.0  # orders of magnitude below a clip's maximum


class SampleInputs(nn.Module):
    """Samples for encoders with a convolutional front end: wav2vec 2.0, HuBERT, WavLM.

    Arguments
    ---------
    config : object
        The encoder's configuration.
    do_normalize : bool
        Whether a clip's samples are brought to zero mean and unit variance.

    Example
    -------
    >>> from transformers import WavLMConfig
    >>> wavs, n_samples = torch.randn(2, 16000), torch.tensor([16000, 8000])
    >>> inputs, n_frames = SampleInputs(WavLMConfig(), True)(wavs, n_samples)
    >>> n_frames.tolist()
    [49, 24]
    """

    def __init__(self, config: Any, do_normalize: bool) -> None:
        super().__init__()
        self.config = config
        self.do_normalize = do_normalize

    def forward(self, wavs: Tensor, n_samples: Tensor) -> tuple[dict[str, Any], Tensor]:
        """Return arguments of the encoder, and how many frames each clip has.

        The encoder's front end must be a :class:`PaddedFrontEnd`.

        Arguments
        ---------
        wavs : Tensor
            [B, T] float.
        n_samples : Tensor
            [B] int64.

        Returns
        -------
        inputs : dict
            By name.
        n_frames : Tensor
            [B] int64.
        """
        mask = padding_mask(n_samples, wavs.shape[1])
        wavs = full_precision(wavs).masked_fill(mask, 0.0)
        if self.do_normalize:
            wavs = _standardize(wavs[..., None], mask, unbiased=False)[..., 0]
        inputs = {"input_values": (wavs, n_samples), "attention_mask": (~mask).long()}
        return inputs, count_frames(n_samples, self.config)


def count_frames(n_samples: Any, config: Any) -> Any:
    """Return how many frames of a convolutional front end lie within ``n_samples``, also a Tensor.

    Example
    -------
    >>> from transformers import WavLMConfig
    >>> count_frames(16000, WavLMConfig())
    49
    """
    for kernel, stride in zip(config.conv_kernel, config.conv_stride):
        n_samples = (n_samples - kernel) // stride + 1
    return n_samples


class PaddedFrontEnd(nn.Module):
    """The convolutions of a wav2vec 2.0, HuBERT or WavLM, right also for padded batches.

    The base models have a group norm, whose statistics run over time (``feat_extract_norm`` is
    ``group``): padding changes the frames of the whole clip, attention mask or not. Here the
    statistics are those of a clip's own frames. Names of weights stay as they are.

    Arguments
    ---------
    front_end : nn.Module
        The ``feature_extractor`` of transformers, whose place it takes.

    Example
    -------
    >>> from transformers import WavLMConfig, WavLMModel
    >>> small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    >>> encoder = WavLMModel(WavLMConfig(**small, feat_extract_norm="group"))
    >>> front_end = PaddedFrontEnd(encoder.feature_extractor)
    >>> front_end((torch.randn(2, 3200), torch.tensor([3200, 1600]))).shape
    torch.Size([2, 512, 9])
    """

    def __init__(self, front_end: Any) -> None:
        super().__init__()
        self.conv_layers = front_end.conv_layers

    def forward(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        """Return frames, [B, C, F], of (wavs [B, T], n_samples [B])."""
        wavs, n_frames = inputs
        frames = wavs[:, None].to(self.conv_layers[0].conv.weight.dtype)
        for layer in self.conv_layers:
            (kernel,), (stride,) = layer.conv.kernel_size, layer.conv.stride
            n_frames = (n_frames - kernel) // stride + 1
            norm = getattr(layer, "layer_norm", None)
            if isinstance(norm, nn.GroupNorm):
                frames = layer.activation(_normalize_channels(layer.conv(frames), n_frames, norm))
            else:
                frames = layer(frames)
        return frames


def _normalize_channels(frames: Tensor, n_frames: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Do what a group norm with one channel per group does, [B, C, F], without padding."""
    mask = padding_mask(n_frames, frames.shape[2])
    exact = _standardize(full_precision(frames).mT, mask, floor=norm.eps, unbiased=False)
    return (exact * norm.weight + norm.bias).mT.to(frames.dtype)


def _standardize(x: Tensor, mask: Tensor, unbiased: bool, floor: float = VARIANCE_FLOOR) -> Tensor:
    """Bring [B, F, D] to zero mean and unit variance over valid frames; padding becomes 0."""
    valid = (~mask)[..., None].to(x.dtype)
    n_frames = valid.sum(dim=1, keepdim=True)
    centered = (x - (x * valid).sum(dim=1, keepdim=True) / n_frames) * valid
    divisor = (n_frames - 1).clamp_min(1) if unbiased else n_frames
    variance = centered.square().sum(dim=1, keepdim=True) / divisor
    return centered * (variance + floor).rsqrt()


class StackedFbankInputs(nn.Module):
    """Filter banks for w2v-BERT 2.0: normalized per bin and clip, two frames of 10 ms in one.

    Arguments
    ---------
    n_mels : int
        Mel bins.

    Example
    -------
    >>> wavs, n_samples = torch.randn(2, 16000), torch.tensor([16000, 1600])
    >>> inputs, n_frames = StackedFbankInputs(80)(wavs, n_samples)
    >>> inputs["input_features"].shape, n_frames.tolist()
    (torch.Size([2, 49, 160]), [49, 4])
    """

    def __init__(self, n_mels: int) -> None:
        super().__init__()
        self.fbank = KaldiFbank(
            n_mels, high_frequency=0.0, snip_edges=True, amplitude=KALDI_AMPLITUDE
        )

    def forward(self, wavs: Tensor, n_samples: Tensor) -> tuple[dict[str, Any], Tensor]:
        """Return arguments of the encoder, and frames; else as :meth:`SampleInputs.forward`."""
        features, n_frames = self.fbank.compute(wavs, n_samples)
        mask = padding_mask(n_frames, features.shape[1])
        features = _standardize(features, mask, unbiased=True)
        size = features.shape[1] // 2
        stacked = features[:, : 2 * size].reshape(len(features), size, -1)
        n_frames = n_frames // 2  # the last of an odd number is left out
        mask = padding_mask(n_frames, size)
        return {"input_features": stacked, "attention_mask": (~mask).long()}, n_frames


class WhisperInputs(nn.Module):
    """Log-mel spectrograms for Whisper's encoder, which reads 30 s, whatever a clip's length.

    Levels are relative to a clip's own maximum.

    Arguments
    ---------
    n_mels : int
        Mel bins.
    max_frames : int
        Frames of the encoder, of 20 ms.

    Example
    -------
    >>> wavs, n_samples = torch.randn(2, 16000), torch.tensor([16000, 1600])
    >>> inputs, n_frames = WhisperInputs(80, 1500)(wavs, n_samples)
    >>> inputs["input_features"].shape, n_frames.tolist()
    (torch.Size([2, 80, 3000]), [50, 5])
    """

    banks: Tensor
    window: Tensor

    def __init__(self, n_mels: int, max_frames: int) -> None:
        super().__init__()
        self.max_samples = max_frames * WHISPER_STRIDE * WHISPER_SHIFT
        with torch.device("cpu"):  # also where parameters are made on the meta device
            n_bins, nyquist = WHISPER_WINDOW // 2 + 1, SAMPLE_RATE / 2
            banks = melscale_fbanks(n_bins, 0.0, nyquist, n_mels, SAMPLE_RATE, "slaney", "slaney")
            window = torch.hann_window(WHISPER_WINDOW)
        # Constants, not weights: kept out of the state dict.
        self.register_buffer("banks", banks.T.contiguous(), persistent=False)
        self.register_buffer("window", window, persistent=False)

    def forward(self, wavs: Tensor, n_samples: Tensor) -> tuple[dict[str, Any], Tensor]:
        """Return arguments of the encoder, and frames; else as :meth:`SampleInputs.forward`.

        Raises
        ------
        ValueError
            If a clip is too long.
        """
        if rows := (n_samples > self.max_samples).nonzero().flatten().tolist():
            raise ValueError(
                f"The clips in rows {rows} are longer than the {self.max_samples / SAMPLE_RATE:g} s"
                " that this Whisper reads: cut them into windows, as CLSP.encode_files does"
            )
        size = min(wavs.shape[1], self.max_samples)
        mask = padding_mask(n_samples, size)
        with torch.autocast(device_type=wavs.device.type, enabled=False):
            exact = full_precision(wavs[:, :size]).masked_fill(mask, 0.0)
            exact = nn.functional.pad(exact, (0, self.max_samples - size))
            window = self.window.to(exact.dtype)
            spectrum = torch.stft(
                exact, WHISPER_WINDOW, WHISPER_SHIFT, window=window, return_complex=True
            )[..., :-1]
            power = spectrum.real.square() + spectrum.imag.square()
            levels = (self.banks.to(exact.dtype) @ power).clamp_min(1e-10).log10()
            floor = levels.amax(dim=(1, 2), keepdim=True) - WHISPER_RANGE
            features = (torch.maximum(levels, floor) + 4.0) / 4.0
        shift = WHISPER_STRIDE * WHISPER_SHIFT
        return {"input_features": features}, (n_samples + shift - 1) // shift
