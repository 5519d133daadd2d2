"""A CLSP of a few thousand weights, and sounds to feed it."""

from pathlib import Path

import numpy as np
import soundfile
import torch

from speechbrain_clsp.dataio.tokenizers import train_sentencepiece
from speechbrain_clsp.pretrained.folder import save_model_folder
from tests.utils.reference import tensor_for

CAPTIONS = [
    "A male speaker talks slowly in a low voice.",
    "A female speaker whispers quickly and softly.",
    "A child laughs loudly with a high-pitched voice.",
]
ROW = {
    "id": "a",
    "audio": "a.wav",
    "duration": 1.5,
    "gender": "female",
    "labels": {"loudness": "quiet"},
    "global_captions": ["G1", "G2"],
    "fine_captions": ["F1", "F2", "F3"],
}
DEFINITION = (Path(__file__).parents[1] / "data" / "clsp_small.yaml").read_text(encoding="utf-8")
# As clsp_mini has them: windows of 50 ms, several frame rates, moments, spectral variation, a
# convolution over text.
MINI = (
    DEFINITION.replace("[1, 2]", "[2, 4, 2]")
    .replace("[1, 1]", "[1, 2, 1]")
    .replace("[32, 48]", "[32, 48, 32]")
    .replace("[48, 64]", "[48, 64, 48]")
    .replace("[2, 2]", "[2, 2, 2]")
    .replace("[7, 7]", "[7, 7, 7]")
    .replace(
        "    n_mels: 40\n",
        "    n_mels: 40\n    window_seconds: 0.05\n    moments: 2\n    variation_gain: 0.3\n",
    )
    .replace("    max_tokens: 64\n", "    max_tokens: 64\n    kernel: 5\n")
)


def model_folder(folder: Path) -> Path:
    """Write a small model with random weights; returns its folder."""
    from hyperpyyaml import load_hyperpyyaml

    modules = load_hyperpyyaml(DEFINITION)["modules"]
    with torch.no_grad():  # livelier than an initial model, whose embeddings are nearly constant
        for module in modules.values():
            for key, parameter in module.named_parameters():
                parameter.copy_(tensor_for(key, parameter.shape))
    train_sentencepiece(CAPTIONS, folder / "tokenizer.model", vocab_size=60)
    save_model_folder(
        folder / "model", DEFINITION, modules, {"tokenizer.model": folder / "tokenizer.model"}
    )
    return folder / "model"


def tone(seconds: float = 1.0, rate: int = 16000, frequency: float = 150.0) -> np.ndarray:
    """Return [T] float32: a buzz with a formant-like envelope, which lossy codecs keep."""
    time = np.arange(int(seconds * rate)) / rate
    buzz = sum(np.sin(2 * np.pi * frequency * k * time) / k for k in range(1, 12))
    return (0.15 * buzz * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time))).astype(np.float32)


def write(path: Path, samples: np.ndarray, rate: int = 16000, **options) -> Path:
    """Write an audio file; returns its path."""
    soundfile.write(path, samples, rate, **options)
    return path
