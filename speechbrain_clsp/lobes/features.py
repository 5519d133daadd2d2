"""Kaldi-compatible log-mel filter banks, batched and differentiable."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torchaudio.compliance.kaldi import get_mel_banks

from speechbrain_clsp.nnet.masking import full_precision, valid_lengths

SAMPLE_RATE = 16000  # Hz
SHIFT = 160  # samples: 10 ms
PREEMPHASIS = 0.97
POVEY_EXPONENT = 0.85  # the Povey window is a Hann window to this power
LOW_FREQUENCY = 20.0  # Hz
HIGH_FREQUENCY = -400.0  # Hz, counted down from Nyquist
LOG_FLOOR = 1.1920928955078125e-07  # float32 epsilon, as in Kaldi


class KaldiFbank(nn.Module):
    """Log-mel filter banks as Kaldi computes them, without dither or mean normalization.

    Povey windows every 10 ms with reflected edges (``snip_edges=False``), DC removal, pre-emphasis
    0.97, power spectrum, mel bins from 20 to 7,600 Hz. Equals ``fbank(dither=0, snip_edges=False,
    high_freq=-400, frame_length=1000 * window_seconds)`` of ``torchaudio.compliance.kaldi`` for
    every utterance of a batch, since edges are reflected at each utterance's own end.

    Arguments
    ---------
    n_mels : int
        Number of mel bins.
    high_frequency : float
        Where the last bin ends [Hz]; 0 or less is counted down from Nyquist.
    snip_edges : bool
        Whether there are frames only where a whole window lies within the utterance, so that
        nothing is reflected.
    amplitude : float
        Of full scale: 1 for samples as they come, 32768 for those of 16-bit integers.
    window_seconds : float
        Length of the windows [s]. The usual 25 ms hold two periods of a low voice, and do not
        resolve its harmonics.

    Example
    -------
    >>> features, n_frames = KaldiFbank()(torch.randn(2, 16000), torch.tensor([1.0, 0.5]))
    >>> features.shape, n_frames.tolist()
    (torch.Size([2, 100, 128]), [100, 50])
    """

    banks: Tensor
    window: Tensor
    spectra: Tensor  # of unit vectors, [window_size, fft_size + 2]

    def __init__(
        self,
        n_mels: int = 128,
        high_frequency: float = HIGH_FREQUENCY,
        snip_edges: bool = False,
        amplitude: float = 1.0,
        window_seconds: float = 0.025,
    ) -> None:
        super().__init__()
        self.n_mels = n_mels
        self.window_size = round(window_seconds * SAMPLE_RATE)
        self.fft_size = 2 ** math.ceil(math.log2(self.window_size))
        self.snip_edges = snip_edges
        self.amplitude = amplitude
        with torch.device("cpu"):  # also where parameters are made on the meta device
            banks, _ = get_mel_banks(
                n_mels,
                self.fft_size,
                SAMPLE_RATE,
                LOW_FREQUENCY,
                high_frequency,
                100.0,
                -500.0,
                1.0,
            )
            banks = nn.functional.pad(banks, (0, 1))  # the Nyquist bin belongs to no filter
            window = torch.hann_window(self.window_size, periodic=False).pow(POVEY_EXPONENT)
        # Constants, not weights: kept out of the state dict.
        self.register_buffer("banks", banks.T.contiguous(), persistent=False)
        self.register_buffer("window", window, persistent=False)
        with torch.device("cpu"):
            units = torch.eye(self.window_size, dtype=torch.float64)
            spectra = torch.view_as_real(self._spectrum(units))
        self.register_buffer("spectra", spectra.flatten(1).float(), persistent=False)

    def forward(self, wavs: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute the features.

        Arguments
        ---------
        wavs : Tensor
            [B, T] float, 16 kHz, in [-1, 1], zero padded.
        lengths : Tensor, optional
            [B] relative to T.

        Returns
        -------
        features : Tensor
            [B, F, n_mels] float32, F as of T samples, zero where there is no frame.
        n_frames : Tensor
            [B] int64: (n_samples + 80) // 160; of whole windows only,
            1 + (n_samples - window_size) // 160.
        """
        n_samples = valid_lengths(lengths, wavs.shape[1], wavs.shape[0], wavs.device)
        return self.compute(wavs, n_samples)

    def compute(self, wavs: Tensor, n_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Do what :meth:`forward` does, for counts of valid samples, [B] int64."""
        edge = SHIFT - self.window_size if self.snip_edges else SHIFT // 2
        n_frames = ((n_samples + edge) // SHIFT).clamp_min(0)
        # Logarithms of small powers need float32, whatever precision the towers run in.
        with torch.autocast(device_type=wavs.device.type, enabled=False):
            exact = full_precision(wavs) * self.amplitude
            if not self.snip_edges:
                exact = self._reflect(exact, n_samples, (wavs.shape[1] + edge) // SHIFT)
            is_exported = torch.onnx.is_in_onnx_export()
            power = self._power_by_product(exact) if is_exported else self._power(exact)
            features = (power @ self.banks.to(exact.dtype)).clamp_min(LOG_FLOOR).log()
        valid = torch.arange(features.shape[1], device=wavs.device) < n_frames[:, None]
        return features.masked_fill(~valid[..., None], 0.0), n_frames

    def _power(self, wavs: Tensor) -> Tensor:
        """Return the power spectrum of the windows of waveforms, [B, F, fft_size // 2 + 1]."""
        spectrum = self._spectrum(wavs.unfold(1, self.window_size, SHIFT))
        return spectrum.real.square() + spectrum.imag.square()

    def _spectrum(self, frames: Tensor) -> Tensor:
        frames = frames - frames.mean(dim=-1, keepdim=True)
        previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
        frames = (frames - PREEMPHASIS * previous) * self.window.to(frames.dtype)
        return torch.fft.rfft(frames, n=self.fft_size)

    def _power_by_product(self, wavs: Tensor) -> Tensor:
        """Do what :meth:`_power` does, by operations that graphs of other runtimes have.

        All that is done to a window is linear: the product with what it does to unit vectors.
        """
        window_size = self.window_size
        n_frames = (wavs.shape[1] - window_size) // SHIFT + 1
        blocks = -(-window_size // SHIFT)  # of which the last is used in part
        size = (n_frames + blocks - 1) * SHIFT
        wavs = nn.functional.pad(wavs, (0, blocks * SHIFT - window_size))[:, :size]
        steps = wavs.view(wavs.shape[0], n_frames + blocks - 1, SHIFT)
        frames = torch.cat([steps[:, k : k + n_frames] for k in range(blocks)], dim=2)
        spectrum = frames[..., :window_size] @ self.spectra.to(wavs.dtype)
        return spectrum.square().view(*frames.shape[:2], -1, 2).sum(dim=-1)

    def _reflect(self, wavs: Tensor, n_samples: Tensor, n_frames: int) -> Tensor:
        """Mirror each utterance at its own ends, so that frames are centered on their shifts."""
        before = (self.window_size - SHIFT) // 2
        size = (n_frames - 1) * SHIFT + self.window_size
        index = torch.arange(size, device=wavs.device) - before
        index = torch.where(index < 0, -index - 1, index).expand(wavs.shape[0], size)
        last = n_samples[:, None] - 1
        index = torch.where(index > last, 2 * last + 1 - index, index).clamp_min(0)
        return wavs.gather(1, index)
