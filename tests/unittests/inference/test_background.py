"""The clips that scores are compared with, from a manifest to a model folder and out of it."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from speechbrain_clsp import CLSP
from speechbrain_clsp.cli.main import main
from speechbrain_clsp.dataio.manifest import Manifest, write_manifest
from speechbrain_clsp.evaluation.models.base import state_of
from speechbrain_clsp.inference import embed_background
from speechbrain_clsp.pretrained import save_model_folder, write_background
from tests.unittests.pretrained.test_adapters import fine_tune
from tests.utils.small import CAPTIONS, DEFINITION, model_folder
from tests.utils.stores import buzzes

FILE = "background.safetensors"


@pytest.fixture
def folder(tmp_path):
    """Return a model folder without a background."""
    return model_folder(tmp_path)


def give_background(folder, clips):
    """Put five clips into a model folder; returns their embeddings."""
    embeddings = embed_background(CLSP.from_pretrained(folder), clips, most=5)
    write_background(folder, embeddings, "5 clips")
    return embeddings


def test_clips_are_spread_over_a_manifest_and_bad_ones_left_out(folder, tmp_path):
    clsp, clips = CLSP.from_pretrained(folder), buzzes(tmp_path, 9, bad=(3,))
    taken = [clips[number]["audio"] for number in (0, 2, 4, 6)]
    expected = clsp.encode_files(taken, progress=False)
    torch.testing.assert_close(embed_background(clsp, clips, most=4), expected, atol=1e-5, rtol=0)
    assert embed_background(clsp, clips).shape == (8, 32)


@pytest.mark.parametrize("wrong", [torch.full((2, 32), torch.nan), torch.ones(32)], ids=range(2))
def test_a_background_that_cannot_be_used_is_not_written(folder, wrong):
    with pytest.raises(ValueError, match=r"must be \[M, D\] without NaN"):
        write_background(folder, wrong, "clips")
    assert not (folder / FILE).exists()


def test_parts_of_a_recording_are_embedded_and_not_all_of_it(folder, tmp_path):
    clsp, clips = CLSP.from_pretrained(folder), buzzes(tmp_path, 1)
    row = {**clips[0], "start": 0.05, "duration": 0.12}
    write_manifest(tmp_path / "parts.arrow", [row])
    (found,) = embed_background(clsp, Manifest(tmp_path / "parts.arrow"))
    assert found @ clsp.encode_file(clips[0]["audio"]) < 1 - 1e-4


@pytest.mark.parametrize("open_model", [CLSP.from_pretrained, CLSP.from_hparams])
def test_percentiles_come_from_the_models_folder(folder, tmp_path, open_model):
    embeddings = give_background(folder, buzzes(tmp_path, 9))
    clsp = open_model(folder)
    scores = embeddings @ clsp.encode_text(CAPTIONS).T
    found = clsp.percentile(scores, CAPTIONS)
    own = CLSP.from_pretrained(folder)
    own.set_background(embeddings)
    # Half precision may put a clip on either side of itself: half a clip of five.
    torch.testing.assert_close(found, own.percentile(scores, CAPTIONS), atol=10.1, rtol=0)
    torch.testing.assert_close(clsp.background, embeddings, atol=1e-3, rtol=0)
    torch.testing.assert_close(clsp.background.norm(dim=-1), torch.ones(5))
    clsp.set_background(embeddings[:2])
    assert clsp.background.shape == (2, 32)
    bf16 = CLSP.from_pretrained(folder, precision="bf16")
    assert bf16.background.shape == (5, 32)  # its weights differ in memory, not in the file


def test_that_of_another_model_is_refused_when_it_is_used(folder, tmp_path):
    clips = buzzes(tmp_path, 5)
    give_background(folder, clips)
    (tmp_path / "second").mkdir()
    other = model_folder(tmp_path / "second")
    state = load_file(other / "model.safetensors")
    state["logit_scale.logit_scale"] += 0.1
    save_file(state, other / "model.safetensors")
    shutil.copy(folder / FILE, other)
    clsp = CLSP.from_pretrained(other)  # all else works
    scores = clsp.score_file(clips[0]["audio"], CAPTIONS)
    with pytest.raises(ValueError, match=f"{FILE} holds embeddings of other weights.*: remove it"):
        clsp.percentile(scores, CAPTIONS)
    clsp.set_background(embed_background(clsp, clips))
    assert clsp.percentile(scores, CAPTIONS).isfinite().all()


def test_a_server_with_that_of_another_model_does_not_start(folder, tmp_path, capsys):
    give_background(folder, buzzes(tmp_path, 5))
    state = load_file(folder / "model.safetensors")
    state["logit_scale.logit_scale"] += 0.1
    save_file(state, folder / "model.safetensors")
    assert main(["serve", "--model", str(folder), "--port", "0"]) == 2
    assert "holds embeddings of other weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no tensors", "damaged"),
        ({"embeddings": torch.ones(2, 32)}, "is not a background"),
        ({"vectors": torch.ones(2, 32)}, "is not a background"),
    ],
    ids=["text", "unsigned", "others"],
)
def test_a_damaged_file_is_named(folder, content, message):
    if isinstance(content, bytes):
        (folder / FILE).write_bytes(content)
    else:
        save_file(content, folder / FILE)
    with pytest.raises(ValueError, match=f"{FILE}.* {message}"):
        CLSP.from_pretrained(folder).percentile(torch.zeros(3), CAPTIONS)


def test_it_stays_with_a_merged_model_and_not_with_a_replaced_one(folder, tmp_path):
    clips = buzzes(tmp_path, 5)
    give_background(folder, clips)
    tuned, _ = fine_tune(folder, tmp_path / "tuned")
    assert CLSP.from_pretrained(tuned).background is None  # the base's would not do
    embeddings = give_background(tuned, clips)
    assert main(["convert", str(tuned), str(tmp_path / "merged")]) == 0
    found = CLSP.from_pretrained(tmp_path / "merged").background
    torch.testing.assert_close(found, embeddings, atol=1e-3, rtol=0)
    tokenizer = {"tokenizer.model": folder / "tokenizer.model"}
    save_model_folder(folder, DEFINITION, CLSP.from_pretrained(folder).mods, tokenizer)
    assert not (folder / FILE).exists()


def test_it_does_not_change_which_model_a_folder_is(folder, tmp_path):
    before = state_of(str(folder))
    give_background(folder, buzzes(tmp_path, 5))
    assert state_of(str(folder)) == before
