"""The values of the published implementation, and the weights they were computed with."""

import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from speechbrain_clsp.lobes.speech_tower import SpeechTower
from speechbrain_clsp.lobes.zipformer.encoder import Zipformer2

FOLDER = Path(__file__).parents[1] / "data" / "reference"


def stored(name: str) -> dict[str, torch.Tensor]:
    """Return the tensors of one reference file."""
    return load_file(FOLDER / f"{name}.safetensors")


def tensor_for(key: str, shape: torch.Size) -> torch.Tensor:
    """Return the weight that belongs to an official state-dict key: a function of key and shape."""
    noise = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(tuple(shape))
    noise = noise.astype(np.float32)
    if key.endswith("bypass_scale"):
        noise = 0.2 + 0.7 / (1.0 + np.exp(-noise))
    elif key.endswith("log_scale"):
        noise = 0.3 * np.tanh(noise)
    elif key.endswith("logit_scale"):
        noise = np.full(shape, np.log(1 / 0.07))
    elif len(shape) >= 2:
        noise = noise / np.sqrt(int(np.prod(shape[1:])))
    elif key.endswith("LayerNorm.weight"):
        noise = 1.0 + 0.1 * noise
    else:
        noise = 0.1 * noise
    return torch.from_numpy(np.asarray(noise, dtype=np.float32).reshape(tuple(shape)))


def official_key(key: str) -> str:
    """Translate a key of our speech tower into the published name."""
    return key.replace("head.projection.", "audio_projection.").replace(
        "head.transform.", "audio_transform.sequential."
    )


def tiny_speech_tower() -> SpeechTower:
    """Return the small model of the reference, filled with its weights."""
    encoder = Zipformer2(
        downsampling=[1, 2, 4, 2],
        n_layers=[1, 1, 2, 1],
        dims=[64, 96, 128, 96],
        feedforward=[128, 192, 256, 192],
        heads=[4, 4, 4, 4],
        kernels=[31, 15, 15, 15],
    )
    tower = SpeechTower(encoder).eval()
    with torch.no_grad():
        for key, value in tower.state_dict().items():
            value.copy_(tensor_for(official_key(key), value.shape))
    return tower
