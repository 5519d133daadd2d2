"""Where a training starts from."""

import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_clsp.pretrained.folder import load_weights
from speechbrain_clsp.training.initialization import from_model_folder
from tests.utils.small import DEFINITION, model_folder, tone


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
