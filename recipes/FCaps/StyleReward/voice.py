"""A voice: FastSpeech2 with the scales of its pitch and energy, and its training clips."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from speechbrain.dataio.dataio import read_audio
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.lobes.models.FastSpeech2 import FastSpeech2, mel_spectrogram, upsample
from speechbrain.utils.data_pipeline import provides, takes
from torch import Tensor, nn

from speechbrain_clsp.pretrained.folder import load_weights

PADDING = "@@"  # the phoneme of index 0
UNKNOWN = "<unk>"
LEAST_ENERGY = 1e-4  # of digital silence


class Spoken(NamedTuple):
    """What FastSpeech2 makes of phonemes.

    Arguments
    ---------
    mels : Tensor
        [B, F, n_mels], log filter banks.
    rough_mels : Tensor
        [B, F, n_mels], before the post-net.
    log_frames : Tensor
        [B, N] predicted ln(1 + frames) of every phoneme.
    pitch, energy : Tensor
        [B, N] predicted, in standard deviations.
    given_pitch, given_energy : Tensor or None
        [B, N] averages of what was given instead.
    """

    mels: Tensor
    rough_mels: Tensor
    log_frames: Tensor
    pitch: Tensor
    energy: Tensor
    given_pitch: Tensor | None
    given_energy: Tensor | None


class Voice(nn.Module):
    """FastSpeech2 that knows what its pitch and energy are in Hz and log units.

    Arguments
    ---------
    fastspeech2 : FastSpeech2
        SpeechBrain's.
    """

    def __init__(self, fastspeech2: FastSpeech2) -> None:
        super().__init__()
        self.fastspeech2 = fastspeech2
        for name in ("pitch_mean", "energy_mean"):
            self.register_buffer(name, torch.zeros(()))
        for name in ("pitch_deviation", "energy_deviation"):
            self.register_buffer(name, torch.ones(()))

    def learn_scales(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Take means and deviations of pitch and energy from clips."""
        pitch, energy = zip(*((item["pitch"].log(), item["energy"]) for item in items))
        for name, values in (("pitch", torch.cat(pitch)), ("energy", torch.cat(energy))):
            getattr(self, f"{name}_mean").copy_(values.mean())
            getattr(self, f"{name}_deviation").copy_(values.std())

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
        pitch : Tensor, optional
            [B, F] in standard deviations, to be used in place of what is predicted.
        energy : Tensor, optional
            The same.

        Returns
        -------
        Spoken
            Filter banks and prosody.
        """
        found = self.fastspeech2(tokens, frames, pitch, energy)
        rough_mels, mels, log_frames = found[:3]
        prosody = [None if part is None else part.squeeze(-1) for part in found[3:7]]
        own_pitch, given_pitch, own_energy, given_energy = prosody
        return Spoken(
            mels, rough_mels, log_frames, own_pitch, own_energy, given_pitch, given_energy
        )

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
    frames = torch.expm1(log_frames.detach()).round().clamp_min(1)
    return (frames * (tokens != 0)).long()


def phoneme_encoder(
    path: str | os.PathLike, manifest: str | os.PathLike | None = None
) -> CategoricalEncoder:
    """Return the numbers of phonemes: read from a file, or taken from a manifest and written."""
    encoder = CategoricalEncoder()
    encoder.expect_len(None)
    if manifest is None:
        encoder.load(path)
        return encoder
    rows = json.loads(Path(manifest).read_text(encoding="utf-8")).values()
    known = sorted({phone for row in rows for phone in row["phones"]})
    encoder.load_or_create(path, [[PADDING, *known]], special_labels={"unk_label": UNKNOWN})
    return encoder


def load_frozen(path: str | os.PathLike, modules: Mapping[str, nn.Module]) -> None:
    """Load weights into modules, which are then neither trained nor random.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`speechbrain_clsp.pretrained.folder.load_weights`.
    """
    load_weights(path, modules)
    for module in modules.values():
        module.eval().requires_grad_(False)


def voice_dataset(
    manifest: str | os.PathLike,
    data_folder: str | os.PathLike,
    encoder: CategoricalEncoder,
    features: Mapping[str, Any],
) -> DynamicItemDataset:
    """Return a dataset of a manifest by ``voice_prepare.py``.

    Arguments
    ---------
    manifest : str or path
        JSON file.
    data_folder : str or path
        What ``{data_root}`` stands for.
    encoder : CategoricalEncoder
        Of phonemes.
    features : dict
        Arguments of SpeechBrain's ``mel_spectrogram``.

    Returns
    -------
    DynamicItemDataset
        With ``text``; ``tokens``, ``frames`` [N]; ``audio`` [T]; ``mels`` [F, n_mels]; ``pitch``
        [F] in Hz and ``energy`` [F], the log norm of the bands.
    """
    dataset = DynamicItemDataset.from_json(manifest, replacements={"data_root": str(data_folder)})

    @takes("phones", "phone_frames")
    @provides("tokens", "frames")
    def text(phones: list[str], phone_frames: list[int]):
        yield encoder.encode_sequence_torch(phones)
        yield torch.tensor(phone_frames)

    @takes("wav", "f0")
    @provides("audio", "mels", "pitch", "energy")
    def sound(path: str, f0: list[float]):
        audio = read_audio(path)
        yield audio
        mels, energy = mel_spectrogram(audio=audio, **features)
        if mels.shape[1] != len(f0):
            raise ValueError(
                f"{path} has {mels.shape[1]} frames, its manifest the pitch of {len(f0)}: prepare"
                " it again with the hop of the recipe"
            )
        yield mels.T
        yield torch.tensor(f0)
        yield energy.clamp_min(LEAST_ENERGY).log()

    for item in (text, sound):
        dataset.add_dynamic_item(item)
    dataset.set_output_keys(["id", "text", "tokens", "frames", "audio", "mels", "pitch", "energy"])
    return dataset


class SyntheticVoice:
    """What ``train_fastspeech2.py`` and ``train_vocoder.py`` made, and sentences to be spoken.

    Arguments
    ---------
    voice, vocoder : str or path
        Folders with ``voice.safetensors`` and ``phonemes.txt``, and with ``vocoder.safetensors``.
    data_folder : str or path
        As ``voice_prepare.py`` fills it.
    tuned, frozen : dict
        ``models/voice.yaml``, twice.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`load_frozen`; and if no folders are given.
    """

    def __init__(
        self,
        voice: str | os.PathLike | None,
        vocoder: str | os.PathLike | None,
        data_folder: str | os.PathLike | None,
        tuned: Mapping[str, Any],
        frozen: Mapping[str, Any],
    ) -> None:
        if None in (voice, vocoder, data_folder):
            raise ValueError(
                "Say where the voice is: --data_folder as prepared, --voice= the results of"
                " train_fastspeech2.py, --vocoder= those of train_vocoder.py"
            )
        self.voice, self.frozen, self.vocoder = tuned["voice"], frozen["voice"], frozen["vocoder"]
        self.sample_rate = frozen["sample_rate"]
        for one in (self.voice, self.frozen):
            load_frozen(Path(voice) / "voice.safetensors", {"voice": one})
        load_frozen(Path(vocoder) / "vocoder.safetensors", {"vocoder": self.vocoder})
        encoder = phoneme_encoder(Path(voice) / "phonemes.txt")
        folder = Path(data_folder)
        self.sentences = {
            split: voice_dataset(folder / f"{split}.json", folder, encoder, frozen["features"])
            for split in ("train", "valid", "test")
        }
