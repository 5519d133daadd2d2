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
from speechbrain.utils.fetching import FetchConfig, LocalStrategy

from speechbrain_clsp import CLSP
from speechbrain_clsp.dataio.tokenizers import train_sentencepiece
from speechbrain_clsp.pretrained.conversion import convert_official
from speechbrain_clsp.pretrained.folder import translate_definition
from tests.utils.official_model import write_official, write_tokenizer
from tests.utils.reference import tensor_for
from tests.utils.small import CAPTIONS, model_folder, tone

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


@pytest.fixture(scope="module")
def two_models(tmp_path_factory):
    """Return folders of two models with other weights and definitions, and their embeddings."""
    first = model_folder(tmp_path_factory.mktemp("first"))
    second = first.parent / "second"
    shutil.copytree(first, second)
    weights = load_file(first / "model.safetensors")
    weights["text_tower.embedding.weight"] = weights["text_tower.embedding.weight"].flip(0)
    save_file(weights, second / "model.safetensors")
    with open(second / "hyperparams.yaml", "a", encoding="utf-8") as file:
        file.write("prompts: [a, b]\n")
    embeddings = [CLSP.from_hparams(f, run_opts=CPU).encode_text(CAPTIONS) for f in (first, second)]
    assert not torch.allclose(*embeddings)
    return (first, second), embeddings


@pytest.mark.parametrize("strategy", list(LocalStrategy))
def test_one_savedir_never_gives_another_model(two_models, tmp_path, strategy):
    """If this fails, the second of two models with one savedir is the first."""
    folders, embeddings = two_models
    options = {"savedir": tmp_path / "save", "local_strategy": strategy, "run_opts": CPU}
    for folder, expected in zip(folders * 2, embeddings * 2):
        try:
            clsp = CLSP.from_hparams(folder, **options)
        except FileExistsError as error:
            assert "COPY" in strategy.name and folder == folders[1]
            for part in (str(tmp_path / "save"), str(folder), "savedir of its own"):
                assert part in str(error)
        else:
            torch.testing.assert_close(clsp.encode_text(CAPTIONS), expected, atol=1e-5, rtol=0)
    if strategy == LocalStrategy.SYMLINK:
        (tmp_path / "save" / "model.safetensors").unlink(missing_ok=True)
        (tmp_path / "save" / "model.safetensors").symlink_to(tmp_path / "gone")
        clsp = CLSP.from_hparams(folders[0], **options)
        torch.testing.assert_close(clsp.encode_text(CAPTIONS), embeddings[0], atol=1e-5, rtol=0)


def test_a_savedir_that_is_to_be_overwritten_is(two_models, tmp_path):
    folders, embeddings = two_models
    options = {"savedir": tmp_path, "local_strategy": LocalStrategy.COPY, "run_opts": CPU}
    CLSP.from_hparams(folders[0], **options)
    clsp = CLSP.from_hparams(folders[1], fetch_config=FetchConfig(overwrite=True), **options)
    torch.testing.assert_close(clsp.encode_text(CAPTIONS), embeddings[1], atol=1e-5, rtol=0)


def changed(folder, tmp_path, change):
    """Return a copy of a model folder whose weights are changed."""
    copy = tmp_path / "changed"
    shutil.copytree(folder, copy)
    weights = load_file(copy / "model.safetensors")
    save_file(change(weights), copy / "model.safetensors")
    return copy


SCALE = "logit_scale.logit_scale"
KEY = "text_tower.embedding.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w[KEY].fill_(torch.nan), f"{KEY} has values that are NaN or infinite"),
        (lambda w: w[KEY][3:4].fill_(-torch.inf), f"{KEY} has values that are NaN or infinite"),
        (lambda w: w.update({KEY: w[KEY].half() * 1e6}), f"{KEY} has values that are NaN"),
        (lambda w: w.update({KEY: w[KEY].to(torch.complex64)}), f"{KEY} has type torch.complex64"),
        (lambda w: w.update({KEY: w[KEY].to(torch.int8)}), f"{KEY} has type torch.int8"),
        (lambda w: w.pop(SCALE), f"missing {SCALE}"),
        (
            lambda w: w.update({"logit_scale.logit_scale": torch.tensor(1.0)}),
            r"shape \[\], not \[1",
        ),
        (lambda w: w.clear() or w.update(x=torch.ones(1)), r"missing.*and \d+ more$"),
    ],
)
def test_weights_that_cannot_be_meant_are_refused_by_name(two_models, tmp_path, change, message):
    """If this fails, a failed training's weights give labels, or an error that names no tensor."""
    copy = changed(two_models[0][0], tmp_path, lambda weights: (change(weights), weights)[1])
    with pytest.raises(ValueError, match=message) as caught:
        CLSP.from_pretrained(copy, run_opts=CPU)
    assert str(copy / "model.safetensors") in str(caught.value)
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize(
    "rename",
    [
        lambda key: f"module.{key}",
        lambda key: key.replace(".", ".module.", 1),
        lambda key: f"_orig_mod.module.{key}",
    ],
)
def test_prefixes_of_wrappers_are_dropped(two_models, tmp_path, rename):
    """If this fails, weights that were saved from DistributedDataParallel do not load."""
    (folder, _), (expected, _) = two_models
    copy = changed(folder, tmp_path, lambda w: {rename(key): value for key, value in w.items()})
    clsp = CLSP.from_pretrained(copy, run_opts=CPU)
    torch.testing.assert_close(clsp.encode_text(CAPTIONS), expected, atol=1e-5, rtol=0)


def test_the_folder_of_a_training_is_not_run(two_models, tmp_path, monkeypatch):
    """If this fails, opening results/mini runs a part of the recipe."""
    recipe = f"x: !apply:builtins.open [{str(tmp_path / 'trapped')!r}, w]\n"
    results = tmp_path / "results" / "mini"
    results.mkdir(parents=True)
    (results / "hyperparams.yaml").write_text(recipe)
    monkeypatch.chdir(tmp_path)
    for load in (CLSP.from_pretrained, CLSP.from_hparams):
        with pytest.raises(FileNotFoundError, match=r"results/mini is not.*no model.safetensors"):
            load("results/mini")
    shutil.copytree(two_models[0][0], results / "model")
    for load in (CLSP.from_pretrained, CLSP.from_hparams):
        for source in ("results/mini", str(results), "results"):
            with pytest.raises(FileNotFoundError, match="results/mini/model is: give that"):
                load(source)
        with pytest.raises(FileNotFoundError, match="is a file: give .* folder, .*mini/mod"):
            load("results/mini/model/model.safetensors")
    assert not (tmp_path / "trapped").exists()


def test_the_home_folder_is_expanded(two_models, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (folder, _), (expected, _) = two_models
    shutil.copytree(folder, tmp_path / "model")
    for load in (CLSP.from_pretrained, CLSP.from_hparams):
        torch.testing.assert_close(load("~/model", run_opts=CPU).encode_text(CAPTIONS), expected)
    CLSP.from_hparams("~/model", savedir="~/save", run_opts=CPU)
    assert (tmp_path / "save" / "model.safetensors").is_symlink()
    with pytest.raises(FileNotFoundError, match="~/nowhere is not a folder"):
        CLSP.from_pretrained("~/nowhere")
    with pytest.raises(FileNotFoundError, match="~nobody/model is not a folder"):
        CLSP.from_pretrained("~nobody/model")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.model"])
def test_pointers_of_git_lfs_are_named(two_models, tmp_path, name):
    shutil.copytree(two_models[0][0], tmp_path / "cloned")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (tmp_path / "cloned" / name).write_text(pointer)
    with pytest.raises(ValueError, match=f"cloned/{name} is .*Git LFS pointer: run `git lfs pull`"):
        CLSP.from_pretrained(tmp_path / "cloned", run_opts=CPU)
