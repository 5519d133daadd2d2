"""A FastSpeech2 voice to tune, the frozen one it starts from, and a frozen vocoder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from speechbrain.lobes.models.FastSpeech2 import FastSpeech2, upsample
from torch import Tensor, nn

from speechbrain_clsp.dataio.audio import SAMPLE_RATE
from speechbrain_clsp.dataio.resample import resample


class Spoken(NamedTuple):
    """What FastSpeech2 makes of phonemes; pitch and energy are in standard deviations."""

    mels: Tensor  # [B, F, n_mels], log-mel spectrogram
    rough_mels: Tensor  # before the post-net
    log_frames: Tensor  # [B, N], predicted ln(1 + frames) of every phoneme
    pitch: Tensor  # [B, N], predicted
    energy: Tensor
    given_pitch: Tensor | None  # [B, N], averages of what was given instead
    given_energy: Tensor | None


class Utterances(NamedTuple):
    """What a voice that is tuned spoke, and the frozen one for comparison."""

    wavs: Tensor  # [B, T] at 16 kHz, zero padded
    wav_lens: Tensor  # [B], relative to T
    spoken: Spoken
    start: Spoken  # the frozen voice's prosody; its spectrogram has one frame per phoneme
    same: Spoken  # what the frozen voice makes of the same pitch and energy


class Voice(nn.Module):
    """SpeechBrain's FastSpeech2 with the scales of its pitch (ln Hz) and energy (log units)."""

    def __init__(self, fastspeech2: FastSpeech2) -> None:
        super().__init__()
        self.fastspeech2 = fastspeech2
        for name in ("pitch", "energy"):
            self.register_buffer(f"{name}_mean", torch.zeros(()))
            self.register_buffer(f"{name}_deviation", torch.ones(()))

    def learn_scales(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Take means and standard deviations of pitch and energy from clips."""
        pitch, energy = zip(*((item["pitch"].log(), item["energy"]) for item in items))
        for name, values in (("pitch", torch.cat(pitch)), ("energy", torch.cat(energy))):
            getattr(self, f"{name}_mean").copy_(values.mean())
            getattr(self, f"{name}_deviation").copy_(values.std())

    def scaled(self, pitch: Tensor, energy: Tensor) -> tuple[Tensor, Tensor]:
        """Return pitch [B, F], Hz, and energy [B, F], log units, in standard deviations."""
        pitch = pitch.clamp_min(1.0).log()  # 0 is padding
        return (
            (pitch - self.pitch_mean) / self.pitch_deviation,
            (energy - self.energy_mean) / self.energy_deviation,
        )

    def hertz(self, pitch: Tensor) -> Tensor:
        """Return a pitch in Hz from standard deviations."""
        return (pitch * self.pitch_deviation + self.pitch_mean).exp()

    def forward(
        self,
        tokens: Tensor,
        frames: Tensor,
        pitch: Tensor | None = None,
        energy: Tensor | None = None,
    ) -> Spoken:
        """Speak.

        Arguments
        ---------
        tokens : Tensor
            [B, N] int64, 0 for padding.
        frames : Tensor
            [B, N], how long each phoneme is; 0 for padding.
        pitch, energy : Tensor, optional
            [B, F] in standard deviations, used in place of what is predicted.
        """
        found = self.fastspeech2(tokens, frames, pitch, energy)
        rough_mels, mels, log_frames = found[:3]
        pitch, given_pitch, energy, given_energy = (
            None if part is None else part.squeeze(-1) for part in found[3:7]
        )
        return Spoken(mels, rough_mels, log_frames, pitch, energy, given_pitch, given_energy)


class TunableVoice(nn.Module):
    """A voice in two copies, one to tune and one frozen, with its vocoder and sentences.

    Arguments
    ---------
    voice : Voice
        Where both start.
    vocoder : nn.Module
        From log-mel spectrograms [B, F, n_mels] and pitch [B, F] in Hz to waveforms [B, F * hop],
        with an attribute ``hop``.
    sample_rate : int
        Of the vocoder, Hz.
    sentences : dict
        ``id``, ``text`` and ``tokens`` [N] of each sentence of ``train``, ``valid`` and ``test``.
    trained : sequence of str
        Parts of the FastSpeech2 that are tuned.

    Raises
    ------
    ValueError
        If there is no such part.
    """

    def __init__(
        self,
        voice: Voice,
        vocoder: nn.Module,
        sample_rate: int,
        sentences: Mapping[str, Sequence[Mapping[str, Any]]],
        trained: Sequence[str],
    ) -> None:
        super().__init__()
        self.frozen = voice.requires_grad_(False)
        self.tuned = deepcopy(voice)
        self.vocoder = vocoder.requires_grad_(False)
        self.sample_rate = sample_rate
        self.sentences = sentences
        parts = dict(self.tuned.fastspeech2.named_children())
        if unknown := set(trained) - set(parts):
            raise ValueError(f"FastSpeech2 has no {sorted(unknown)}; its parts are {sorted(parts)}")
        for name in trained:
            parts[name].requires_grad_(True)
        self.eval()

    def speak(self, tokens: Tensor, voice: nn.Module) -> Utterances:
        """Speak with the frozen voice's durations, differentiably in the log-mel spectrogram.

        Arguments
        ---------
        tokens : Tensor
            [B, N] phonemes, 0 for padding.
        voice : nn.Module
            ``tuned`` or ``frozen``, or what DDP makes of it.
        """
        with torch.no_grad():
            start = self.frozen(tokens, (tokens != 0).long())
            frames = whole_frames(start.log_frames, tokens)
        spoken = voice(tokens, frames)
        pitch, energy = (per_frame(part, frames) for part in (spoken.pitch, spoken.energy))
        with torch.no_grad():
            same = self.frozen(tokens, frames, pitch, energy)
        # Not through the phase of the vocoder's source: see train.level_slope.
        wavs = self.vocoder(spoken.mels, self.frozen.hertz(pitch).detach())
        n_frames = frames.sum(dim=1)
        n_samples = n_frames[:, None] * self.vocoder.hop
        wavs = wavs * (torch.arange(wavs.shape[1], device=wavs.device) < n_samples)
        wavs = resample(wavs, self.sample_rate, SAMPLE_RATE)
        return Utterances(wavs, n_frames / n_frames.max(), spoken, start, same)


def per_frame(values: Tensor, frames: Tensor) -> Tensor:
    """Repeat values of phonemes [B, N] for as many frames as each has, [B, F].

    Example
    -------
    >>> per_frame(torch.tensor([[5.0, 7.0]]), torch.tensor([[2, 1]])).tolist()
    [[5.0, 5.0, 7.0]]
    """
    return upsample(values[..., None], frames)[0].squeeze(-1)


def whole_frames(log_frames: Tensor, tokens: Tensor) -> Tensor:
    """Return how many frames each phoneme gets [B, N] int64, from what FastSpeech2 predicts.

    Example
    -------
    >>> whole_frames(torch.tensor([[1.1, 0.1, 2.0]]), torch.tensor([[4, 7, 0]])).tolist()
    [[2, 1, 0]]
    """
    frames = torch.expm1(log_frames).round().clamp_min(1)
    return (frames * (tokens != 0)).long()
