"""Text towers around encoders of transformers, against transformers itself."""

import copy
import re
import shutil
from textwrap import indent

import pytest
import torch
import torch.nn.functional as F
from hyperpyyaml import load_hyperpyyaml, resolve_references
from safetensors.torch import load_file, save_file
from speechbrain.nnet.adapters import LoRA
from transformers import AutoModel, PreTrainedTokenizerFast

from speechbrain_clsp import CLSP
from speechbrain_clsp.dataio.tokenizers import FastTokenizerCaptions
from speechbrain_clsp.lobes.pretrained_text import PretrainedTextTower
from speechbrain_clsp.pretrained.conversion import export_official
from speechbrain_clsp.pretrained.folder import extract_definition, save_model_folder
from speechbrain_clsp.pretrained.hub import (
    load_pretrained_text_encoder,
    publish,
    read_encoder_config,
)
from speechbrain_clsp.training.initialization import from_pretrained_encoders
from tests.utils.reference import tensor_for
from tests.utils.small import CAPTIONS, DEFINITION
from tests.utils.text_encoders import FAMILIES, encoder_config, write_encoder

TEXTS = [CAPTIONS[0], "A child laughs"]
AS_LONG = "A speaker whispers"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return the folder of a small encoder of each family."""
    made = {family: tmp_path_factory.mktemp(family) for family in FAMILIES}
    for family, folder in made.items():
        write_encoder(folder, family)
    return made


def tower_from(folder, **options) -> PretrainedTextTower:
    """Return a tower around the encoder of a folder, in eval mode."""
    tower = PretrainedTextTower(read_encoder_config(folder), joint_dim=16, **options)
    load_pretrained_text_encoder(tower, folder)
    return tower.eval()


def of_transformers(folder, pooling: str) -> torch.Tensor:
    """Return what transformers itself makes of the texts, one by one: [2, hidden size]."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    encoder = AutoModel.from_pretrained(folder).eval()
    rows = []
    for text in TEXTS:
        tokens = tokenizer([text], return_tensors="pt", truncation=False, padding=False)
        with torch.no_grad():
            outputs = encoder(tokens["input_ids"])
        states = outputs.last_hidden_state[0]
        pooled = {"mean": states.mean(dim=0), "first": states[0]}
        rows.append(outputs.pooler_output[0] if pooling == "pooler" else pooled[pooling])
    return torch.stack(rows)


@pytest.mark.parametrize("pooling", ["mean", "first", "pooler"])
@pytest.mark.parametrize("family", FAMILIES)
def test_pooled_states_are_those_of_transformers(folders, family, pooling):
    if pooling == "pooler" and family in ("electra", "modernbert"):
        with pytest.raises(ValueError, match=f"{family} encoder has no pooler"):
            tower_from(folders[family], pooling=pooling)
        return
    tower = tower_from(folders[family], pooling=pooling)
    pooled = tower.pooled(*FastTokenizerCaptions(folders[family])(TEXTS))
    torch.testing.assert_close(pooled, of_transformers(folders[family], pooling), atol=1e-5, rtol=0)


@pytest.mark.parametrize("pooling", ["mean", "tokens"])
@pytest.mark.parametrize("family", FAMILIES)
def test_padding_and_what_is_in_it_change_nothing(folders, family, pooling):
    tower = tower_from(folders[family], pooling=pooling, dim=16)
    tokenizer = FastTokenizerCaptions(folders[family])
    tokens, padding_mask = tokenizer(TEXTS)
    other = tokens.masked_fill(padding_mask, 9)
    with torch.no_grad():
        together, alone = tower(tokens, padding_mask), tower(*tokenizer(TEXTS[1:]))
        torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=0)
        torch.testing.assert_close(together, tower(other, padding_mask), atol=1e-5, rtol=0)


def test_the_longest_caption_fits_and_a_longer_one_is_refused(folders):
    for family, longest in (("bert", 100), ("roberta", 98), ("mpnet", 98), ("modernbert", 100)):
        tower = tower_from(folders[family])
        tokens = torch.full((1, longest), 9)
        assert tower(tokens, tokens == 0).isfinite().all()
        tokens = torch.full((1, longest + 1), 9)
        with pytest.raises(ValueError, match=f"at most {longest} fit"):
            tower(tokens, tokens == 0)


def changed_by_training(tower: PretrainedTextTower, tokenizer) -> set[str]:
    """Return the names of the tower's weights that a few steps of training change."""
    before = copy.deepcopy(tower.state_dict())
    trained = [p for p in tower.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1.0)
    tower.train()
    for _ in range(2):  # up-projections of adapters start at zero
        optimizer.zero_grad()
        target = torch.eye(16)[:2]
        (tower(*tokenizer(TEXTS)) - target).square().sum().backward()
        assert all(p.grad is not None for p in trained)  # as DDP demands
        optimizer.step()
    return {key for key, value in tower.state_dict().items() if not torch.equal(value, before[key])}


@pytest.mark.parametrize("family", FAMILIES)
def test_only_what_should_be_trained_is_trained(folders, family):
    tokenizer = FastTokenizerCaptions(folders[family])

    def changed(**options) -> set[str]:
        tower = tower_from(folders[family], **options)
        names = changed_by_training(tower, tokenizer)
        assert any(name.startswith("head.") for name in names)
        return {name.removeprefix("encoder.") for name in names if name.startswith("encoder.")}

    assert changed() == set() == changed(cache_gb=1.0)
    layers = "layers" if family == "modernbert" else "encoder.layer"
    last = changed(tuning=1)
    assert last and all(name.startswith(f"{layers}.2.") for name in last)
    two = changed(tuning=2)
    assert {name.removeprefix(f"{layers}.")[0] for name in two} == {"1", "2"}
    assert any("embeddings" in name for name in changed(tuning="all"))
    adapters = changed(tuning="lora", lora_rank=2)
    assert adapters and all(".adapter_" in name for name in adapters)
    for wrong in (0, 4, "some"):
        with pytest.raises(ValueError, match="tuning must be"):
            tower_from(folders[family], tuning=wrong)


@pytest.mark.parametrize("tuning", ["all", "lora", 1])
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_gradients_are_the_same_with_layers_computed_again(folders, family, tuning):
    plain = tower_from(folders[family], tuning=tuning, head_dropout=0.0).train()
    again = tower_from(folders[family], tuning=tuning, head_dropout=0.0, checkpoint_layers=True)
    again.load_state_dict(plain.state_dict())
    inputs = FastTokenizerCaptions(folders[family])(TEXTS)
    for tower in (plain, again.train()):
        torch.manual_seed(1)  # of dropout
        (tower(*inputs) * torch.eye(16)[:2]).sum().backward()
    for (name, one), other in zip(plain.named_parameters(), again.parameters()):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None:
            torch.testing.assert_close(other.grad, one.grad, atol=1e-6, rtol=1e-5)
    with pytest.raises(ValueError, match="Layers of a mpnet cannot be computed again"):
        tower_from(folders["mpnet"], checkpoint_layers=True)


def test_adapters_change_nothing_until_they_are_trained(folders):
    """If this fails, LoRA is in the wrong layers, or takes the place of pretrained weights."""
    plain, adapted = tower_from(folders["bert"]), tower_from(folders["bert"], tuning="lora")
    n_linear = sum(isinstance(module, torch.nn.Linear) for module in plain.encoder.modules())
    assert sum(isinstance(module, LoRA) for module in adapted.encoder.modules()) == n_linear
    inputs = FastTokenizerCaptions(folders["bert"])(TEXTS)
    assert torch.equal(plain.pooled(*inputs), adapted.pooled(*inputs))


@pytest.mark.parametrize("pooling", ["first", "tokens"])
def test_a_caption_is_encoded_once(folders, pooling):
    """If this fails, a cache gives another caption's states, or training repeats itself."""
    options = {"pooling": pooling, "dim": 16, "dropout": 0.0, "head_dropout": 0.0}
    tower = tower_from(folders["mpnet"], cache_gb=1.0, **options).train()
    calls = []
    tower.encoder.register_forward_hook(lambda module, inputs, outputs: calls.append(1))
    tokenizer = FastTokenizerCaptions(folders["mpnet"])
    first = tower(*tokenizer([*TEXTS, AS_LONG, TEXTS[0]]))
    assert len(tower.cache) == 3 and len(calls) == 2  # those of one length together
    tokens, padding_mask = tokenizer([AS_LONG, TEXTS[1]])
    second = tower(F.pad(tokens, (0, 2)), F.pad(padding_mask, (0, 2), value=True))
    assert len(calls) == 2
    torch.testing.assert_close(second, first[[2, 1]], atol=1e-5, rtol=0)
    tower.eval()
    exact = tower(*tokenizer([AS_LONG, TEXTS[1]]))
    assert len(calls) == 3
    torch.testing.assert_close(exact, second, atol=2e-3, rtol=0)  # float16 in training


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("read_layer", [0, 1, -1])
def test_tokens_are_read_as_a_layer_of_transformers_has_them(folders, family, read_layer):
    tower = tower_from(folders[family], pooling="tokens", dim=16, read_layer=read_layer)
    inputs = []
    tower.projection.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    tokens, padding_mask = FastTokenizerCaptions(folders[family])(TEXTS)
    tower(tokens, padding_mask)
    encoder = AutoModel.from_pretrained(folders[family]).eval()
    for row, states in enumerate(inputs[0]):
        own = ~padding_mask[row]
        with torch.no_grad():
            outputs = encoder(tokens[row, own][None], output_hidden_states=True)
        is_last = read_layer == -1
        layer = outputs.last_hidden_state if is_last else outputs.hidden_states[read_layer]
        expected = layer[0]
        torch.testing.assert_close(states[own], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("read_layer", [4, -5])
def test_a_layer_that_there_is_not_cannot_be_read(folders, read_layer):
    with pytest.raises(ValueError, match="read_layer must be from -4 to 3, as the encoder has 3"):
        tower_from(folders["bert"], pooling="tokens", read_layer=read_layer)


def test_of_some_captions_the_head_gets_the_plain_mean_alone_in_training(folders):
    tower = tower_from(folders["bert"], pooling="tokens", dim=16, reader_dropout=0.5)
    inputs = FastTokenizerCaptions(folders["bert"])(TEXTS * 50)
    of_encoder = of_transformers(folders["bert"], "mean").repeat(50, 1)
    for training in (True, False):
        read, mean = tower.train(training).pooled(*inputs).tensor_split([16], dim=1)
        torch.testing.assert_close(mean, of_encoder, atol=1e-5, rtol=0)
        fraction = (read == 0).all(dim=1).float().mean()
        assert 0.3 < fraction < 0.7 if training else fraction == 0


def test_a_cache_does_not_outlive_the_encoders_weights(folders):
    tower = tower_from(folders["bert"], pooling="tokens", dim=16, cache_gb=1.0).train()
    inputs = FastTokenizerCaptions(folders["bert"])(TEXTS)
    tower(*inputs)
    assert len(tower.cache) == 2 and len(copy.deepcopy(tower).cache) == 0
    tower.load_state_dict(tower.state_dict())
    assert len(tower.cache) == 0
    tower(*inputs)
    load_pretrained_text_encoder(tower, folders["bert"])
    assert len(tower.cache) == 0
    tower.cache.limit = 1e-9  # no room for more
    tower(*inputs)
    assert len(tower.cache) == 0


def test_weights_that_do_not_fit_are_named(folders, tmp_path):
    shutil.copytree(folders["bert"], tmp_path / "encoder")
    weights = load_file(tmp_path / "encoder" / "model.safetensors")
    pooler = {key for key in weights if key.startswith("pooler.")}
    without = {key: value for key, value in weights.items() if key not in pooler}
    save_file(without, tmp_path / "encoder" / "model.safetensors", {"format": "pt"})
    tower_from(tmp_path / "encoder")
    tower_from(tmp_path / "encoder", pooling="pooler", tuning="all")  # as stage 1 of CLSP
    with pytest.raises(ValueError, match="encoder does not fit .* missing pooler.dense.weight"):
        tower_from(tmp_path / "encoder", pooling="pooler")
    tower = PretrainedTextTower({**encoder_config("bert"), "num_hidden_layers": 2}, tuning="lora")
    load_pretrained_text_encoder(tower, folders["bert"])  # the first two of three layers
    tower = PretrainedTextTower({**encoder_config("bert"), "intermediate_size": 8}, tuning="lora")
    with pytest.raises(
        ValueError, match=r"intermediate.dense.weight has shape \[32, 24\], not \[8"
    ):
        load_pretrained_text_encoder(tower, folders["bert"])


def test_foreign_code_is_refused():
    """If this fails, code from a repository can run."""
    for kind, message in (
        ("someones-own", "has no encoder of the model_type 'someones-own'"),
        (None, "has no encoder of the model_type None"),
        ("t5", "A t5 is not a text encoder"),
        ("wavlm", "A wavlm is not a text encoder"),
        ("whisper", "A whisper is not a text encoder"),
    ):
        with pytest.raises(ValueError, match=message):
            PretrainedTextTower({"model_type": kind})
    remote = {"auto_map": {"AutoModel": "someone/code--modeling.Model"}}
    tower = PretrainedTextTower({**encoder_config("bert"), **remote})
    assert type(tower.encoder).__module__.startswith("transformers.models.bert.")
    with pytest.raises(ValueError, match="pooling must be one of"):
        PretrainedTextTower(encoder_config("bert"), pooling="last")


RECIPE = """
text_tower: !new:speechbrain_clsp.lobes.pretrained_text.PretrainedTextTower
    config: !apply:speechbrain_clsp.pretrained.hub.read_encoder_config [{source}]
    pooling: tokens
    tuning: {tuning}
    dim: 16
    joint_dim: 32
tokenizer: !new:speechbrain_clsp.dataio.tokenizers.FastTokenizerCaptions
"""


def save_model(folder, encoder_folder, tuning) -> PretrainedTextTower:
    """Save a model folder as a recipe does; returns its text tower."""
    speech, text = DEFINITION.index("text_tower:"), DEFINITION.index("logit_scale:")
    parts = RECIPE.format(source=encoder_folder, tuning=tuning)
    others = re.sub("(?m)^tokenizer: .*$", "", DEFINITION[text:])
    recipe = f"model:\n{indent(DEFINITION[:speech] + parts + others, '  ')}"
    recipe = re.sub(r"<(\w+)>", r"<model[\1]>", recipe)
    model = load_hyperpyyaml(recipe)["model"]
    from_pretrained_encoders(model["speech_tower"], model["text_tower"], None, encoder_folder)
    with torch.no_grad():
        for name, parameter in model["text_tower"].named_parameters():
            if parameter.requires_grad:  # as if it had been trained
                parameter.add_(tensor_for(name, parameter.shape), alpha=0.1)
    arguments = {"text_tower": model["text_tower"].arguments()}
    definition = extract_definition(resolve_references(recipe).read(), "model", arguments)
    save_model_folder(
        folder, definition, model["modules"], {"tokenizer.json": encoder_folder / "tokenizer.json"}
    )
    return model["text_tower"].eval()


@pytest.mark.parametrize("tuning", ["frozen", 1, "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_folder_holds_all_that_it_needs(folders, tmp_path, family, tuning):
    shutil.copytree(folders[family], tmp_path / "encoder")
    tokenizer = FastTokenizerCaptions(tmp_path / "encoder")
    tower = save_model(tmp_path / "model", tmp_path / "encoder", tuning)
    shutil.rmtree(tmp_path / "encoder")
    assert str(tmp_path) not in (tmp_path / "model" / "hyperparams.yaml").read_text()
    clsp = CLSP.from_pretrained(tmp_path / "model", run_opts={"device": "cpu"})
    with torch.no_grad():
        expected = tower(*tokenizer(TEXTS))
    # Products of matrices are rounded differently where weights lie elsewhere in memory.
    torch.testing.assert_close(clsp.encode_text(TEXTS), expected, atol=1e-5, rtol=0)
    files = publish(tmp_path / "model", "someone/model", dry_run=True)
    assert {"hyperparams.yaml", "model.safetensors", "tokenizer.json"} <= set(files)
    with pytest.raises(ValueError, match="no place for a PretrainedTextTower"):
        export_official(clsp, tmp_path / "published")
    clsp.set_precision("bf16")
    torch.testing.assert_close(clsp.encode_text(TEXTS), expected, atol=0.03, rtol=0)


def test_an_encoder_with_nan_is_refused_by_name(folders, tmp_path):
    shutil.copytree(folders["bert"], tmp_path / "encoder")
    weights = load_file(tmp_path / "encoder" / "model.safetensors")
    name = next(name for name in weights if name.endswith("word_embeddings.weight"))
    weights[name][3] = torch.nan
    save_file(weights, tmp_path / "encoder" / "model.safetensors", {"format": "pt"})
    tower = PretrainedTextTower(read_encoder_config(tmp_path / "encoder"), joint_dim=8)
    with pytest.raises(ValueError, match="encoder has values that are NaN .*word_embeddings"):
        load_pretrained_text_encoder(tower, tmp_path / "encoder")
