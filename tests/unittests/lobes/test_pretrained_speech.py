"""Speech towers around encoders of transformers, against transformers itself."""

import copy
import pickle
import re
import shutil
from textwrap import indent

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml, resolve_references
from safetensors.torch import load_file, save_file
from speechbrain.integrations.huggingface.weighted_ssl import WeightedSSLModel
from speechbrain.nnet.adapters import LoRA
from transformers import AutoConfig, AutoModel

from speechbrain_clsp import CLSP
from speechbrain_clsp.dataio.tokenizers import train_sentencepiece
from speechbrain_clsp.lobes.pretrained_speech import PretrainedSpeechTower, build_speech_encoder
from speechbrain_clsp.pretrained.conversion import export_official
from speechbrain_clsp.pretrained.folder import extract_definition, save_model_folder
from speechbrain_clsp.pretrained.hub import (
    load_pretrained_speech_encoder,
    publish,
    read_do_normalize,
    read_encoder_config,
)
from speechbrain_clsp.training.initialization import from_pretrained_encoders
from tests.utils.buzzes import new_brain
from tests.utils.reference import tensor_for
from tests.utils.small import CAPTIONS, DEFINITION, tone
from tests.utils.speech_encoders import (
    CONVOLUTIONS,
    ENCODERS,
    GROUP,
    SIZE,
    feature_extractor,
    speech_encoder_config,
    write_speech_encoder,
)

ONE_OF_EACH = ("wav2vec2-base", "hubert-large", "wavlm-base", "w2v-bert", "whisper")
N_SAMPLES = (16001, 9999, 1600)  # 0.1 s is the shortest clip that may come
EXACT = {"joint_dim": 16, "head_dropout": 0.0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return the folder of a small encoder of each kind."""
    made = {name: tmp_path_factory.mktemp(name) for name in ENCODERS}
    for name, folder in made.items():
        write_speech_encoder(folder, name)
    return made


def clips() -> list[torch.Tensor]:
    """Return clips of different pitch, level and offset."""
    generator = torch.Generator().manual_seed(0)
    return [
        0.02 * k
        + (0.3 + 0.2 * k) * torch.from_numpy(tone(n / 16000 + 0.01, frequency=100 + 60 * k))[:n]
        + 0.01 * torch.randn(n, generator=generator)
        for k, n in enumerate(N_SAMPLES)
    ]


def batch(wavs: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad clips; returns them and their relative lengths."""
    padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    return padded, torch.tensor([len(wav) for wav in wavs]) / padded.shape[1]


def tower_from(folder, **options) -> PretrainedSpeechTower:
    """Return a tower around the encoder of a folder, in eval mode."""
    tower = PretrainedSpeechTower(
        read_encoder_config(folder), read_do_normalize(folder), **{**EXACT, **options}
    )
    load_pretrained_speech_encoder(tower, folder)
    return tower.eval()


def of_transformers(folder, name: str, wav: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return what transformers itself makes of one clip, without padding: layers, each [F, H]."""
    inputs = feature_extractor(name)(wav.numpy(), sampling_rate=16000, return_tensors="pt")
    encoder = AutoModel.from_pretrained(folder).eval()
    encoder = encoder.encoder if name == "whisper" else encoder
    with torch.no_grad():
        outputs = encoder(**inputs, output_hidden_states=True)
    n_frames = outputs.last_hidden_state.shape[1]
    if name == "whisper":  # 20 ms per frame
        n_frames = -(-len(wav) // 320)
    elif name == "w2v-bert":
        n_frames = int(inputs["attention_mask"].sum())
    layers = (*outputs.hidden_states[:-1], outputs.last_hidden_state)
    return tuple(layer[0, :n_frames] for layer in layers)


@pytest.mark.parametrize("layers", ["last", "weighted"])
@pytest.mark.parametrize("name", ENCODERS)
def test_states_in_a_batch_are_those_of_transformers_for_each_clip_alone(folders, name, layers):
    tower = tower_from(folders[name], layers=layers)
    wavs = clips()
    with torch.no_grad():
        states, mask = tower.encode(*batch(wavs))
    for row, wav in enumerate(wavs):
        expected = of_transformers(folders[name], name, wav)
        expected = expected if layers == "weighted" else expected[-1:]
        assert len(states) == len(expected)
        for state, layer in zip(states, expected):
            torch.testing.assert_close(state[row][~mask[row]], layer, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ENCODERS)
def test_an_embedding_does_not_depend_on_what_is_beside_it(folders, name):
    tower = tower_from(folders[name], moments=1, moment_gain=1.0)
    wavs = clips()
    with torch.no_grad():
        together = tower(*batch(wavs))
        alone = torch.cat([tower(wav[None]) for wav in wavs])
        noisy, lengths = batch(wavs)
        beyond = torch.arange(noisy.shape[1]) >= torch.tensor(N_SAMPLES)[:, None]
        noisy = noisy + 0.5 * beyond
        behind = tower(noisy, lengths)
    assert (together[0] - together[1]).abs().max() > 1e-2
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(together, behind, atol=1e-5, rtol=0)


LEAKING = {
    "group norm": {"model_type": "wavlm", **CONVOLUTIONS, **GROUP},
    "positions": {"model_type": "data2vec-audio", **CONVOLUTIONS, "conv_pos_kernel_size": 5},
    "convolutions": {
        "model_type": "wav2vec2-conformer",
        **CONVOLUTIONS,
        "feat_extract_norm": "layer",
    },
}


@pytest.mark.parametrize("where", LEAKING)
def test_padding_leaks_in_transformers_where_the_docstring_says_so(where):
    """If this fails, transformers lets no padding in any more, and the family can be taken."""
    torch.manual_seed(0)
    config = {**SIZE, **LEAKING[where]}
    encoder = AutoModel.from_config(AutoConfig.for_model(**config)).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        wavs, lengths = batch(clips())
        mask = torch.arange(wavs.shape[1]) < lengths[:, None] * wavs.shape[1]
        together = encoder(wavs, attention_mask=mask.long()).last_hidden_state[1]
        alone = encoder(wavs[1:2, : N_SAMPLES[1]]).last_hidden_state[0]
    assert (together[: len(alone)] - alone).abs().max() > 1e-3
    if where != "group norm":
        with pytest.raises(ValueError, match=r"frames depend on padding: choose one of \['hubert"):
            build_speech_encoder(config)


def test_the_weighted_sum_is_that_of_speechbrain(folders, tmp_path):
    folder = folders["wav2vec2-base"]
    tower = tower_from(folder)
    theirs = WeightedSSLModel(str(folder), str(tmp_path), freeze=True)
    weights = torch.tensor([0.5, -1.0, 2.0])
    wav = clips()[0][None]
    with torch.no_grad():
        tower.head.layer_weights.copy_(weights)
        theirs.weights.copy_(weights)
        tower.inputs.do_normalize = False  # which theirs leaves to the user
        expected = tower.head.projection(theirs(wav).mean(dim=1))
        torch.testing.assert_close(tower(wav), expected, atol=1e-5, rtol=0)


def changed_by_training(tower: PretrainedSpeechTower) -> set[str]:
    """Return the names of the tower's weights that a few steps of training change."""
    before = copy.deepcopy(tower.state_dict())
    trained = [p for p in tower.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1.0)
    tower.train()
    for _ in range(2):  # up-projections of adapters start at zero
        optimizer.zero_grad()
        (tower(*batch(clips())) - torch.eye(16)[:3]).square().sum().backward()
        assert all(p.grad is not None for p in trained)  # as DDP demands
        optimizer.step()
    return {key for key, value in tower.state_dict().items() if not torch.equal(value, before[key])}


@pytest.mark.parametrize("layers", ["last", "weighted"])
@pytest.mark.parametrize("name", ["wavlm-large", *ONE_OF_EACH])
def test_only_what_should_be_trained_is_trained(folders, name, layers):
    def changed(tuning) -> set[str]:
        names = changed_by_training(tower_from(folders[name], layers=layers, tuning=tuning))
        assert ("head.layer_weights" in names) == (layers == "weighted")
        return {each.removeprefix("encoder.") for each in names if each.startswith("encoder.")}

    assert changed("frozen") == set()
    last = changed(1)
    assert last and all(re.match(r"(encoder\.)?layers\.1\.", each) for each in last)
    assert any("conv" in each or "projection" in each for each in changed("all"))
    adapters = changed("lora")
    assert adapters and all(".adapter_" in each for each in adapters)
    for wrong in (0, 3, "some"):
        with pytest.raises(ValueError, match="tuning must be"):
            tower_from(folders[name], tuning=wrong)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_frozen_layers_have_no_dropout_in_training(folders, name):
    """If this fails, the head learns from states that the frozen layers never give in use."""
    tower = tower_from(folders[name])
    with torch.no_grad():
        expected = tower(*batch(clips()))
        assert torch.equal(tower.train()(*batch(clips())), expected)
    tower = tower_from(folders[name], tuning=1).train()
    training = {key for key, module in tower.encoder.named_modules() if module.training}
    assert training and all(re.match(r"(encoder\.)?layers\.1\b", key) for key in training)
    assert not any(module.training for module in tower.eval().modules())


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_adapters_change_nothing_until_they_are_trained_and_are_in_every_layer(folders, name):
    plain, adapted = (tower_from(folders[name], tuning=tuning) for tuning in ("frozen", "lora"))
    n_linear = sum(isinstance(module, torch.nn.Linear) for module in plain.encoder.modules())
    adapters = [module for module in adapted.encoder.modules() if isinstance(module, LoRA)]
    assert len(adapters) == n_linear
    adapted.head.load_state_dict(plain.head.state_dict())
    with torch.no_grad():  # rounded differently where a weight lies elsewhere in memory
        found, expected = adapted(*batch(clips())), plain(*batch(clips()))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    with torch.no_grad():
        for adapter in adapters:
            torch.nn.init.normal_(adapter.adapter_up_proj.weight, std=0.3)
    adapted(*batch(clips())).sum().backward()
    assert all(adapter.adapter_up_proj.weight.grad.any() for adapter in adapters)


def test_weights_of_layers_and_pooling_learn_at_the_rate_of_heads(folders):
    """If this fails, what is new stands still at the rate that suits a pretrained encoder."""
    brain = new_brain(1, options={"encoder_lr": 1e-5})
    tower = tower_from(folders["wavlm-base"], tuning="lora", moments=1)
    brain.modules["speech_tower"] = tower
    brain.init_optimizers()
    heads, encoders, _ = ({id(p) for p in g["params"]} for g in brain.optimizer.param_groups)
    new = {id(p) for p in tower.head.parameters()}
    assert id(tower.head.layer_weights) in new and id(tower.head.pooling.maps[0].weight) in new
    assert new <= heads and brain.optimizer.param_groups[1]["lr"] == 1e-5
    adapters = {id(p) for p in tower.encoder.parameters() if p.requires_grad}
    assert adapters and adapters <= encoders
    assert not {id(p) for p in tower.encoder.parameters() if not p.requires_grad} & encoders


def gradients(tower, autocast: bool = False) -> dict[str, torch.Tensor]:
    """Return the gradients of one step in training mode, with dropout."""
    tower.train().zero_grad()
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        (tower(*batch(clips())) * torch.eye(16)[:3]).sum().backward()
    return {key: p.grad for key, p in tower.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("tuning", ["all", "lora", 1])
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_gradients_are_the_same_with_layers_computed_again(folders, name, tuning):
    options = {"tuning": tuning, "layers": "weighted"}
    plain = tower_from(folders[name], **options)
    again = tower_from(folders[name], checkpoint_layers=True, **options)
    again.load_state_dict(plain.state_dict())
    calls = []
    last = getattr(again.encoder, "encoder", again.encoder).layers[-1]
    norm = next(module for key, module in last.named_modules() if key.endswith("layer_norm"))
    norm.register_forward_hook(lambda *_: calls.append(1))
    expected, found = gradients(plain), gradients(again)
    assert len(calls) == 2  # once forward, once backward
    assert expected.keys() == found.keys() and any("encoder" in key for key in found)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_bf16_is_near_to_float32_in_training_and_in_use(folders, name):
    options = {"tuning": 1, "layers": "last"}
    exact = gradients(tower_from(folders[name], **options).eval())
    tower = tower_from(folders[name], **options)
    tower.load_state_dict(tower_from(folders[name], **options).state_dict())
    with torch.no_grad():
        expected = tower(*batch(clips()))
        tower.cast(torch.bfloat16)
        found = tower(*batch(clips()))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0)
    half = gradients(tower_from(folders[name], **options), autocast=True)
    assert half.keys() == exact.keys() and all(value.isfinite().all() for value in half.values())


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_frozen_tower_passes_gradients_to_the_waveform(folders, name):
    """If this fails, a reward cannot be followed by its gradient."""
    tower = tower_from(folders[name])
    wavs, lengths = batch(clips())
    wavs.requires_grad_()
    tower(wavs, lengths).square().cumsum(dim=1).sum().backward()
    counts = torch.tensor(N_SAMPLES)
    inside = torch.arange(wavs.shape[1]) < counts[:, None]
    assert wavs.grad.isfinite().all() and not wavs.grad[~inside].any()
    assert all(row.any() for row in wavs.grad)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_tower_is_copied_and_pickled_also_after_use(folders, name):
    """If this fails, weights cannot be averaged, or a model not sent to another process."""
    tower = tower_from(folders[name], tuning=1)
    next(tower.head.parameters()).requires_grad_(False)
    tower.train()(*batch(clips()))
    for other in (copy.deepcopy(tower), pickle.loads(pickle.dumps(tower))):
        assert other.training and other.trained[0] is not tower.trained[0]
        mine, theirs = (dict(each.named_parameters()) for each in (tower, other))
        assert mine.keys() == theirs.keys()
        for key, value in mine.items():
            assert torch.equal(theirs[key], value) and theirs[key] is not value
            assert theirs[key].requires_grad == value.requires_grad
            assert theirs[key].data_ptr() != value.data_ptr()
        with torch.no_grad():
            found, expected = (each.eval()(*batch(clips())) for each in (other, tower))
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
        tower.train()
    tower.cast(torch.bfloat16)
    dtypes = [p.dtype for p in pickle.loads(pickle.dumps(tower)).parameters()]
    assert dtypes == [p.dtype for p in tower.parameters()]


def test_clips_that_do_not_fit_are_refused_by_row(folders):
    tower = tower_from(folders["whisper"])
    wavs = torch.randn(2, 32001)
    with pytest.raises(ValueError, match=r"rows \[1\] are longer than the 2 s that this Whisper"):
        tower(wavs, torch.tensor([0.5, 1.0]))
    assert tower(wavs, torch.tensor([0.5, 32000 / 32001])).isfinite().all()
    for name in ONE_OF_EACH:
        with pytest.raises(ValueError, match=r"rows \[0\] are shorter than 0.1 s"):
            tower_from(folders[name])(torch.randn(2, 1700), torch.tensor([1599 / 1700, 1.0]))


def test_encoders_that_are_not_taken_are_named():
    for config, message in (
        ({"model_type": "someones-own"}, "has no encoder of the model_type 'someones-own'"),
        ({"model_type": "bert"}, "A bert is not a speech encoder"),
        ({"model_type": "hubert", "conv_pos_batch_norm": True}, "batch norm .* depend on padding"),
    ):
        with pytest.raises(ValueError, match=message):
            build_speech_encoder(config)
    remote = {"auto_map": {"AutoModel": "someone/code--modeling.Model"}}
    encoder = build_speech_encoder({**speech_encoder_config("wavlm-base"), **remote})
    assert type(encoder).__module__.startswith("transformers.models.wavlm.")
    with pytest.raises(ValueError, match="layers must be one of"):
        PretrainedSpeechTower(speech_encoder_config("wavlm-base"), layers="first")


def test_what_an_encoder_wants_is_read_from_its_preprocessor(folders, tmp_path, caplog):
    assert not read_do_normalize(folders["wavlm-base"]) and read_do_normalize(
        folders["hubert-base"]
    )
    with caplog.at_level("WARNING"):
        assert read_do_normalize(tmp_path)  # as transformers does where nothing is said
    assert "has no preprocessor_config.json" in caplog.text
    (tmp_path / "preprocessor_config.json").write_text('{"sampling_rate": 8000}')
    with pytest.raises(ValueError, match="preprocessor_config.json: the encoder reads 8000 Hz"):
        read_do_normalize(tmp_path)


def test_weights_that_do_not_fit_are_named(folders, tmp_path):
    shutil.copytree(folders["wavlm-base"], tmp_path / "encoder")
    weights = load_file(tmp_path / "encoder" / "model.safetensors")
    name = "encoder.layers.0.feed_forward.output_dense.bias"

    def with_weights(changes: dict) -> str:
        changed = {k: v for k, v in {**weights, **changes}.items() if v is not None}
        save_file(changed, tmp_path / "encoder" / "model.safetensors", {"format": "pt"})
        with pytest.raises(ValueError) as error:
            tower_from(tmp_path / "encoder", tuning="lora")
        return str(error.value)

    assert f"does not fit the speech tower: The weights do not fit the encoder: missing {name}" in (
        with_weights({name: None})
    )
    assert f"NaN or infinite: {name}" in with_weights({name: weights[name] / 0})
    path = tmp_path / "encoder" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="encoder: its safetensors are damaged or cut off"):
        tower_from(tmp_path / "encoder")
    path.rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="none in safetensors, open it once"):
        tower_from(tmp_path / "encoder")


RECIPE = """
speech_tower: !new:speechbrain_clsp.lobes.pretrained_speech.PretrainedSpeechTower
    config: !apply:speechbrain_clsp.pretrained.hub.read_encoder_config [{source}]
    do_normalize: !apply:speechbrain_clsp.pretrained.hub.read_do_normalize [{source}]
    tuning: {tuning}
    moments: 1
    joint_dim: 32
"""


def save_model(folder, encoder_folder, tuning) -> PretrainedSpeechTower:
    """Save a model folder as a recipe does; returns its speech tower."""
    speech, text = DEFINITION.index("encoder:"), DEFINITION.index("text_tower:")
    parts = RECIPE.format(source=encoder_folder, tuning=tuning)
    recipe = f"model:\n{indent(DEFINITION[:speech] + parts + DEFINITION[text:], '  ')}"
    recipe = re.sub(r"<(\w+)>", r"<model[\1]>", recipe)
    model = load_hyperpyyaml(recipe)["model"]
    tower = model["speech_tower"]
    load_pretrained_speech_encoder(tower, encoder_folder)
    with torch.no_grad():
        for name, parameter in tower.named_parameters():
            if parameter.requires_grad:  # as if it had been trained
                parameter.add_(tensor_for(name, parameter.shape), alpha=0.1)
    arguments = {"speech_tower": tower.arguments()}
    definition = extract_definition(resolve_references(recipe).read(), "model", arguments)
    tokenizer = folder.with_name("tokenizer.model")
    train_sentencepiece(CAPTIONS, tokenizer, vocab_size=60)
    save_model_folder(folder, definition, model["modules"], {"tokenizer.model": tokenizer})
    return tower.eval()


@pytest.mark.parametrize("tuning", ["frozen", 1, "lora"])
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_model_folder_holds_all_that_it_needs(folders, tmp_path, name, tuning):
    shutil.copytree(folders[name], tmp_path / "encoder")
    tower = save_model(tmp_path / "model", tmp_path / "encoder", tuning)
    shutil.rmtree(tmp_path / "encoder")
    assert str(tmp_path) not in (tmp_path / "model" / "hyperparams.yaml").read_text()
    clsp = CLSP.from_pretrained(tmp_path / "model", run_opts={"device": "cpu"})
    wavs, lengths = batch(clips())
    with torch.no_grad():
        expected = tower(wavs, lengths)
    torch.testing.assert_close(clsp.encode_batch(wavs, lengths), expected, atol=1e-5, rtol=0)
    files = publish(tmp_path / "model", "someone/model", dry_run=True)
    assert {"hyperparams.yaml", "model.safetensors", "tokenizer.model"} <= set(files)
    with pytest.raises(ValueError, match="no place for a PretrainedSpeechTower"):
        export_official(clsp, tmp_path / "published")
    clsp.set_precision("bf16")
    torch.testing.assert_close(clsp.encode_batch(wavs, lengths), expected, atol=0.05, rtol=0)


def test_training_starts_from_an_encoder_or_from_the_tower_of_a_model(folders, tmp_path):
    source = folders["hubert-base"]
    trained = save_model(tmp_path / "model", source, "frozen")
    options = {"joint_dim": 32, "moments": 1}
    config = read_encoder_config(source)
    text = load_hyperpyyaml(DEFINITION)["text_tower"]
    fresh = PretrainedSpeechTower(config, **options).eval()
    from_pretrained_encoders(fresh, text, source, None)
    assert torch.equal(fresh.encode(*batch(clips()))[0][0], trained.encode(*batch(clips()))[0][0])
    assert not torch.equal(fresh(*batch(clips())), trained(*batch(clips())))
    with pytest.raises(TypeError, match="A TransformerTextTower has no place for"):
        from_pretrained_encoders(fresh, text, None, source)
    from_pretrained_encoders(fresh, text, tmp_path / "model", None)
    assert torch.equal(fresh(*batch(clips())), trained(*batch(clips())))
