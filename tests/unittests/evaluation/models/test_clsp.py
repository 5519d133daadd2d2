"""A CLSP under evaluation, against the interface that users have."""

import pytest
import torch

from speechbrain_clsp import CLSP
from speechbrain_clsp.evaluation.models import CachedModel
from speechbrain_clsp.evaluation.models.base import state_of
from speechbrain_clsp.evaluation.models.clsp import ClspModel
from tests.utils.small import CAPTIONS, model_folder


def test_our_own_folder_gives_what_the_interface_gives(tmp_path, clips):
    folder = model_folder(tmp_path)
    model, clsp = ClspModel.open(str(folder)), CLSP.from_hparams(folder)
    torch.testing.assert_close(model.encode_files(clips[:1])[0], clsp.encode_file(clips[0]))
    torch.testing.assert_close(model.encode_text(CAPTIONS), clsp.encode_text(CAPTIONS))
    before = model.revision
    weights = next(folder.glob("*.safetensors"), None) or next(folder.glob("*.ckpt"))
    weights.write_bytes(weights.read_bytes() + b"x")
    assert state_of(str(folder)) != before


def test_captions_that_the_tower_does_not_take_are_named(tmp_path):
    model = ClspModel.open(str(model_folder(tmp_path)))
    model.clsp.mods.text_tower.max_tokens = 12
    cached = CachedModel(model)
    cached.check_texts([("clip 'a'", "A male")], "test.arrow")
    with pytest.raises(ValueError, match=r"test\.arrow: captions of at most 12 tokens .*clip 'a'"):
        cached.check_texts([("clip 'a'", "A male speaker talks slowly.")], "test.arrow")
