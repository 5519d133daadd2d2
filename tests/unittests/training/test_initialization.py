"""Where a training starts from."""

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_clsp.lobes.pretrained_text import PretrainedTextTower
from speechbrain_clsp.pretrained.folder import load_weights
from speechbrain_clsp.pretrained.hub import read_encoder_config
from speechbrain_clsp.training.initialization import from_model_folder, from_pretrained_encoders
from tests.utils.small import DEFINITION, model_folder, tone
from tests.utils.text_encoders import write_encoder


def test_moments_added_to_a_trained_model_change_nothing_until_they_are_trained(tmp_path):
    folder = model_folder(tmp_path)
    plain = load_hyperpyyaml(DEFINITION)["modules"]
    load_weights(folder / "model.safetensors", plain)
    extended = load_hyperpyyaml(DEFINITION, {"speech_tower": {"moments": 2}})["modules"]
    from_model_folder(extended, folder)
    wavs = torch.from_numpy(tone())[None]
    before, after = (each["speech_tower"].eval()(wavs) for each in (plain, extended))
    assert torch.equal(before, after)
    after.sum().backward()
    gradients = [layer.weight.grad for layer in extended["speech_tower"].pooling.maps]
    assert all(gradient.abs().max() > 0 for gradient in gradients)


def test_weights_are_refused_by_a_tower_with_other_filter_banks(tmp_path):
    """If this fails, a tower computes nonsense from features that it was not trained on."""
    folder = model_folder(tmp_path)
    modules = load_hyperpyyaml(DEFINITION, {"speech_tower": {"window_seconds": 0.05}})["modules"]
    before = [weight.clone() for weight in modules["speech_tower"].parameters()]
    message = "other filter banks: .*window_seconds: 0.025, feature_mean: 0.0, feature_std: 1.0"
    for source in (folder, folder / "model.safetensors"):
        with pytest.raises(ValueError, match=message):
            from_model_folder(modules, source)
    assert all(map(torch.equal, before, modules["speech_tower"].parameters()))
    definition = folder / "hyperparams.yaml"
    with_reference = DEFINITION.replace(
        "SpeechTower\n", "SpeechTower\n    window_seconds: !ref <window_seconds>\n", 1
    )
    definition.write_text(f"window_seconds: 0.05\n{with_reference}")
    from_model_folder(modules, folder)
    for unknown in ("", "tower: !new:torch.nn.Linear {in_features: 1, out_features: 1}\n"):
        definition.write_text(unknown)
        from_model_folder(modules, folder)


def test_a_new_text_tower_starts_beside_the_speech_tower_of_a_model(tmp_path):
    folder = model_folder(tmp_path / "model")
    write_encoder(tmp_path / "encoder", "bert", ["a man speaks", "a woman speaks"])
    trained = load_hyperpyyaml(DEFINITION)["modules"]
    load_weights(folder / "model.safetensors", trained)
    speech_tower = load_hyperpyyaml(DEFINITION)["modules"]["speech_tower"]
    text_tower = PretrainedTextTower(read_encoder_config(tmp_path / "encoder"))
    from_pretrained_encoders(speech_tower, text_tower, folder, tmp_path / "encoder")
    wavs = torch.from_numpy(tone())[None]
    assert torch.equal(speech_tower.eval()(wavs), trained["speech_tower"].eval()(wavs))
    speech_tower.frozen = True
    with pytest.raises(ValueError, match="needs the weights of a trained one"):
        from_pretrained_encoders(speech_tower, text_tower, None, tmp_path / "encoder")
