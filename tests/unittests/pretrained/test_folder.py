"""Model folders that version c7d15bb wrote, before modules moved and names changed.

``tests/data/old_folder`` holds what that version wrote, and in ``expected.json`` the shapes of its
weights and the embeddings that it computed. Values of weights are those of ``tensor_for``.
"""

import inspect
import json
import re
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import ruamel.yaml
import torch
from safetensors.torch import load_file, save_file

from speechbrain_clsp import CLSP
from speechbrain_clsp.dataio.tokenizers import train_sentencepiece
from speechbrain_clsp.pretrained.conversion import convert_official
from speechbrain_clsp.pretrained.folder import translate_definition
from tests.utils.official_model import write_official, write_tokenizer
from tests.utils.reference import tensor_for
from tests.utils.small import CAPTIONS, tone

REGULARIZATION = """
    dropout: 0.1
    position_dropout: 0.1
    position_skip: 0.0
    attention_skip: 0.0
    convolution_skip: 0.0
    feedforward_skip: 0.0
    frontend_skip: 0.0
    layer_skip: [0.5, 0.1]
    warmup_steps: 100
    bypass_minimum: 0.2
    limits: 0.5
    feature_mask: 0.0
    unmasked_channels: 8
    balancing: 0.5
    whitening: 0.5
"""
OLD = Path(__file__).parents[2] / "data" / "old_folder"
EXPECTED = json.loads((OLD / "expected.json").read_text(encoding="utf-8"))
CPU = {"device": "cpu"}


@pytest.fixture
def folder(tmp_path):
    """Return the old folder with weights and tokenizer."""
    for name in ("hyperparams.yaml", "config.json", "README.md"):
        shutil.copy(OLD / name, tmp_path / name)
    weights = {key: tensor_for(key, shape) for key, shape in EXPECTED["shapes"].items()}
    save_file(weights, tmp_path / "model.safetensors")
    train_sentencepiece(CAPTIONS, tmp_path / "tokenizer.model", vocab_size=60)
    return tmp_path


@pytest.mark.parametrize("load", [CLSP.from_pretrained, CLSP.from_hparams])
def test_an_old_folder_gives_its_old_embeddings(folder, load):
    clsp = load(folder, run_opts=CPU)
    wavs = torch.from_numpy(np.stack([tone(0.6, frequency=f) for f in (100, 150, 220)]))
    found = {
        "speech": clsp.encode_batch(wavs, torch.tensor([1.0, 0.8, 0.7])),
        "text": clsp.encode_text(CAPTIONS),
        "logit_scale": clsp.mods.logit_scale()[0],
    }
    for name, value in found.items():
        tolerance = {"atol": 1e-6, "rtol": 1e-6}
        torch.testing.assert_close(value, torch.tensor(EXPECTED[name]), **tolerance)


def test_an_old_converted_folder_is_still_a_classifier(tmp_path):
    published = write_official(tmp_path / "published")
    write_tokenizer(published)
    prompts = {"male": ["a male speaker", "male"], "female": "a female speaker", "rest": "speaker"}
    convert_official(published, tmp_path / "new", prompts=prompts)
    new = CLSP.from_pretrained(tmp_path / "new", run_opts=CPU)
    shutil.copytree(tmp_path / "new", tmp_path / "old")
    shutil.copy(OLD / "converted.yaml", tmp_path / "old" / "hyperparams.yaml")
    weights = load_file(tmp_path / "new" / "model.safetensors")
    weights["temperature.logit_scale"] = weights.pop("logit_scale.logit_scale")
    save_file(weights, tmp_path / "old" / "model.safetensors")
    old = CLSP.from_pretrained(tmp_path / "old", run_opts=CPU)
    wavs = torch.from_numpy(np.stack([tone(0.6), tone(0.6, frequency=220)]))
    for found, expected in zip(old.classify_batch(wavs)[:3], new.classify_batch(wavs)[:3]):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["clsp_xlarge.yaml", "converted.yaml", "hyperparams.yaml"])
def test_all_names_of_old_definitions_have_their_classes(name):
    old = (OLD / name).read_text(encoding="utf-8")
    definition = translate_definition(
        old.replace(".Regularisation\n", f".Regularisation{REGULARIZATION}")
    )
    parts = ruamel.yaml.YAML().load(definition)
    classes = 0
    for part in parts.values():
        if match := re.fullmatch(r"!new:(speechbrain_clsp\.[\w.]+)\.(\w+)", str(_tag_of(part))):
            arguments = part if hasattr(part, "items") else {}
            kind = getattr(import_module(match[1]), match[2])
            inspect.signature(kind).bind_partial(**arguments)
            classes += 1
    assert classes >= 6


def _tag_of(part):
    return getattr(getattr(part, "tag", None), "value", None)
