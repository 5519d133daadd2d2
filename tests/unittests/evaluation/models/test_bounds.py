"""The untrained model and the oracle."""

import pytest
import torch

from speechbrain_clsp.dataio.manifest import write_manifest
from speechbrain_clsp.evaluation.models import open_model
from speechbrain_clsp.evaluation.retrieval.ranking import rank_pairs
from tests.utils.small import CAPTIONS, model_folder


def test_an_untrained_model_is_the_folder_without_its_training(tmp_path, clips):
    folder = model_folder(tmp_path)
    state = torch.get_rng_state()
    first, again = (open_model(f"untrained:{folder}") for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    untrained, trained = first.encode_text(CAPTIONS), open_model(str(folder)).encode_text(CAPTIONS)
    assert torch.equal(again.encode_text(CAPTIONS), untrained)
    assert not torch.allclose(untrained, trained, atol=0.05)
    assert first.revision != open_model(str(folder)).revision
    with pytest.raises(FileNotFoundError, match="hyperparams"):
        open_model("untrained:nowhere")


def test_the_oracle_knows_attributes_and_only_these(tmp_path, clips):
    common = {"duration": 1.0, "accent": "Scottish", "global_captions": []}
    rows = [
        {"id": "a", "gender": "male", "fine_captions": ["A."], "audio": clips[0]},
        {"id": "b", "gender": "female", "fine_captions": ["B."], "audio": clips[1]},
        {"id": "c", "gender": "female", "fine_captions": ["C."], "audio": clips[2]},
    ]
    write_manifest(tmp_path / "test.arrow", [common | row for row in rows])
    oracle = open_model(f"oracle:{tmp_path / 'test.arrow'}")
    speech, text = oracle.encode_files(clips), oracle.encode_text(["A.", "B.", "C."])
    assert rank_pairs(speech, text).rank.tolist() == [1, 2, 2]  # b and c cannot be told apart
    prompts = oracle.encode_text(["A male speaker.", "A female speaker."])
    assert (speech @ prompts.T).argmax(dim=1).tolist() == [0, 1, 1]
    with pytest.raises(ValueError, match="lacks 1"):
        oracle.encode_text(["D."])
