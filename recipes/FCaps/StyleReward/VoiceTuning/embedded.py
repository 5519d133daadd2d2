"""The embedded voice: espeak-ng's speech for training, and what train_embedded.py made of it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from speechbrain.dataio.dataio import read_audio
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.lobes.models.FastSpeech2 import mel_spectrogram
from speechbrain.utils.data_pipeline import provides, takes
from voice import TunableVoice

from speechbrain_clsp.pretrained.folder import load_weights

WEIGHTS, PHONEMES = "embedded.safetensors", "phonemes.txt"
PADDING = "@@"  # the phoneme of index 0
MIN_ENERGY = 1e-4  # of digital silence


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
    encoder.load_or_create(path, [[PADDING, *known]], special_labels={"unk_label": "<unk>"})
    return encoder


def voice_dataset(
    folder: str | os.PathLike, split: str, encoder: CategoricalEncoder, features: Mapping[str, Any]
) -> DynamicItemDataset:
    """Return a split of ``voice_prepare.py``; features are arguments of ``mel_spectrogram``.

    Returns
    -------
    DynamicItemDataset
        With ``tokens``, ``frames`` [N]; ``audio`` [T]; log-``mels`` [F, n_mels]; ``pitch`` [F], Hz,
        and ``energy`` [F], the log norm of the mel spectrogram's frames.
    """
    dataset = DynamicItemDataset.from_json(
        Path(folder) / f"{split}.json", replacements={"data_root": str(folder)}
    )

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
        yield energy.clamp_min(MIN_ENERGY).log()

    for item in (text, sound):
        dataset.add_dynamic_item(item)
    dataset.set_output_keys(["id", "tokens", "frames", "audio", "mels", "pitch", "energy"])
    return dataset


def embedded_voice(
    voice_folder: str | os.PathLike,
    data_folder: str | os.PathLike,
    model: Mapping[str, Any],
    trained: Sequence[str],
) -> TunableVoice:
    """Open the output folder of train_embedded.py, with the sentences of voice_prepare.py.

    ``model`` is ``models/embedded.yaml``; ``trained`` is as for :class:`voice.TunableVoice`.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`speechbrain_clsp.pretrained.folder.load_weights`.
    """
    load_weights(Path(voice_folder) / WEIGHTS, {name: model[name] for name in ("voice", "vocoder")})
    encoder = phoneme_encoder(Path(voice_folder) / PHONEMES)
    sentences = {}
    for split in ("train", "valid", "test"):
        rows = json.loads((Path(data_folder) / f"{split}.json").read_text(encoding="utf-8"))
        sentences[split] = [
            {
                "id": name,
                "text": row["text"],
                "tokens": encoder.encode_sequence_torch(row["phones"]),
            }
            for name, row in rows.items()
        ]
    return TunableVoice(model["voice"], model["vocoder"], model["sample_rate"], sentences, trained)
