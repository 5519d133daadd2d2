"""The small model of the reference in the published form."""

import json
from pathlib import Path
from string import ascii_lowercase

import torch
from safetensors.torch import save_file

from tests.utils.reference import FOLDER, tensor_for

CONFIG = {"model_type": "clsp", "text_config": {"hidden_size": 48, "num_attention_heads": 4}}


def official_weights(keys_file: str = "clsp_tiny_keys.json") -> dict[str, torch.Tensor]:
    """Return the weights that the reference was computed with, under the published keys."""
    shapes = json.loads((FOLDER / keys_file).read_text(encoding="utf-8"))
    return {key: tensor_for(key, shape).contiguous() for key, shape in shapes.items()}


def write_official(folder: Path, prefix: str = "model.", config: dict | None = None) -> Path:
    """Write model.safetensors and config.json; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {prefix + key: value for key, value in official_weights().items()}
    save_file(weights, folder / "model.safetensors")
    text = json.dumps(CONFIG if config is None else config)
    (folder / "config.json").write_text(text, encoding="utf-8")
    return folder


def write_tokenizer(folder: Path) -> None:
    """Write RoBERTa's pair of files for single letters: the small model has 120 token ids only."""
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "\u0120", ".", ",", *ascii_lowercase]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
