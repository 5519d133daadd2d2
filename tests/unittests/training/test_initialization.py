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
    overrides = {"speech_tower": {"window_seconds": 0.05}}
    other = load_hyperpyyaml(DEFINITION, overrides)["modules"]
    with pytest.raises(
        ValueError, match="other filter banks.*window_seconds: 0.025, feature_mean: "
    ):
        from_model_folder(other, folder)


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
