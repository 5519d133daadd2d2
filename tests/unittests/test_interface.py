"""CLSP.from_hparams and everything that can be asked of it, rightly and wrongly."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small import CAPTIONS, model_folder, tone, write

from speechbrain_clsp import CLSP
from speechbrain_clsp.dataio.audio import read_audio
from speechbrain_clsp.hub import extract_definition

SPEECH = Path(__file__).parents[3] / "shared" / "speech"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def clsp(folder):
    return CLSP.from_hparams(folder, run_opts={"device": "cpu"})


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    lengths = [1.3, 0.4, 2.2, 0.9, 1.7]
    return [
        write(folder / f"{i}.wav", tone(s, frequency=90 + 40 * i)) for i, s in enumerate(lengths)
    ]


def test_a_moved_folder_gives_the_same_embedding(folder, clsp, files, tmp_path, monkeypatch):
    """If this fails, a model folder works only where it was written, or loads random weights."""
    shutil.copytree(folder, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    moved = CLSP.from_hparams("elsewhere/../elsewhere", run_opts={"device": "cpu"})
    assert torch.equal(moved.encode_file(files[0]), clsp.encode_file(files[0]))
    assert torch.equal(moved.encode_text(CAPTIONS), clsp.encode_text(CAPTIONS))
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]  # nothing else is created


def test_the_model_is_frozen_and_in_eval_mode(clsp):
    """If this fails, dropout makes embeddings random, or a reward would train the model."""
    assert not any(module.training for module in clsp.modules())
    assert not any(p.requires_grad for p in clsp.parameters())


def test_embeddings_are_unit_vectors_in_input_order_whatever_the_batches(clsp, files):
    """If this fails, encode_files mixes up files, or batching changes embeddings."""
    alone = torch.stack([clsp.encode_file(path) for path in files])
    torch.testing.assert_close(alone.norm(dim=1), torch.ones(len(files)))
    for seconds in (0.1, 4.0, 60.0):
        together = clsp.encode_files(files, max_batch_seconds=seconds, progress=False)
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert (alone @ alone.T).fill_diagonal_(0).max() < 0.99999


def test_scores_are_cosines(clsp, files):
    """If this fails, score_batch and score_file say something else than the embeddings."""
    expected = clsp.encode_file(files[0]) @ clsp.encode_text(CAPTIONS).T
    torch.testing.assert_close(clsp.score_file(files[0], CAPTIONS), expected)
    wav = read_audio(files[0])
    torch.testing.assert_close(clsp.score_batch(wav, CAPTIONS)[0], expected)


def test_classify_returns_what_encoder_classifier_returns(clsp, files):
    """If this fails, code written for SpeechBrain's EncoderClassifier breaks on a CLSP."""
    out_prob, score, index, text_lab = clsp.classify_file(files[0], CAPTIONS)
    assert out_prob.shape == (1, 3)
    torch.testing.assert_close(out_prob.exp().sum(1), torch.ones(1))
    assert torch.equal(score, out_prob.max(dim=1).values)
    assert text_lab == [CAPTIONS[index.item()]]
    scale = clsp.mods.temperature()
    expected = (scale * clsp.score_file(files[0], CAPTIONS)).log_softmax(0)
    torch.testing.assert_close(out_prob[0], expected)


def test_several_prompts_per_label_are_averaged(clsp, files):
    """If this fails, a prompt ensemble is ignored or mislabelled."""
    prompts = {"a": CAPTIONS[:2], "b": CAPTIONS[2]}
    out_prob, _, index, text_lab = clsp.classify_file(files[1], prompts)
    mean = torch.nn.functional.normalize(clsp.encode_text(CAPTIONS[:2]).mean(0), dim=0)
    classes = torch.stack([mean, clsp.encode_text(CAPTIONS[2:])[0]])
    logits = clsp.mods.temperature() * clsp.encode_file(files[1]) @ classes.T
    torch.testing.assert_close(out_prob[0], logits.log_softmax(0))
    assert text_lab == [["a", "b"][index.item()]]


def test_gradients_reach_a_waveform_that_asks_for_them_and_only_then(clsp):
    """If this fails, a CLSP is no use as a reward, or memory fills up in inference."""
    wav = torch.from_numpy(tone())[None]
    assert not clsp.encode_batch(wav).requires_grad
    wanting = wav.clone().requires_grad_()
    clsp.score_batch(wanting, CAPTIONS).sum().backward()
    assert wanting.grad.abs().max() > 0
    with torch.inference_mode():
        torch.testing.assert_close(clsp.encode_batch(wav), clsp.encode_batch(wanting.detach()))


def test_no_random_state_is_touched(clsp, files):
    """If this fails, scoring in the middle of a training changes the training."""
    torch.manual_seed(1)
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
    clsp.score_file(files[0], CAPTIONS)
    after = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


@pytest.mark.parametrize(
    "call, error, pattern",
    [
        (lambda c, f: c.encode_text("a caption"), TypeError, "list of captions"),
        (lambda c, f: c.score_file(f, "a caption"), TypeError, "list of captions"),
        (lambda c, f: c.encode_text([]), ValueError, "at least one"),
        (lambda c, f: c.encode_text(["a", " "]), ValueError, "Caption 1 is empty"),
        (lambda c, f: c.encode_text([1]), TypeError, "list of str"),
        (lambda c, f: c.encode_text(["slowly " * 200]), ValueError, "shorten"),
        (lambda c, f: c.encode_files(str(f)), TypeError, "list of paths"),
        (lambda c, f: c.classify_file(f), ValueError, "prompts"),
        (lambda c, f: c.encode_batch(torch.zeros(1, 2, 16000)), ValueError, r"\[B, T\]"),
        (lambda c, f: c.encode_batch(torch.full((2, 16000), torch.nan)), ValueError, r"\[0, 1\]"),
        (lambda c, f: c.encode_batch(torch.zeros(1, 200)), ValueError, "0.1 s"),
    ],
)
def test_wrong_input_is_refused(clsp, files, call, error, pattern):
    """If this fails, a mistake gives a wrong number or an error from deep inside torch."""
    with pytest.raises(error, match=pattern):
        call(clsp, files[0])


def test_wrong_folders_are_refused(folder, tmp_path):
    """If this fails, weights stay random in silence, or a typo is taken for a Hub repository."""
    with pytest.raises(FileNotFoundError, match="results/nowhere/model"):
        CLSP.from_hparams("results/nowhere/model")
    with pytest.raises(FileNotFoundError, match="hyperparams.yaml"):
        CLSP.from_hparams(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    weights = load_file(broken / "model.safetensors")
    key = next(iter(weights))
    save_file({k: v for k, v in weights.items() if k != key}, broken / "model.safetensors")
    with pytest.raises(ValueError, match=f"missing {key}"):
        CLSP.from_hparams(broken)
    save_file({**weights, "extra": torch.zeros(1)}, broken / "model.safetensors")
    with pytest.raises(ValueError, match="unexpected extra"):
        CLSP.from_hparams(broken)
    (broken / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="damaged"):
        CLSP.from_hparams(broken)


def test_a_definition_is_cut_out_with_its_overrides():
    """If this fails, a model trained with overridden sizes cannot be loaded again."""
    recipe = "# note\nlr: 1\nmodel:\n  # sizes\n  dims: &id1 [3, 4]\n  tower: !new:dict\n    dims: *id1\n"
    definition = extract_definition(recipe, "model")
    assert "lr" not in definition and "#" not in definition
    assert definition.startswith("dims: &id1 [3, 4]")
    assert "tower: !new:dict" in definition


@pytest.mark.skipif(not SPEECH.is_dir(), reason="the real recordings are not part of the project")
def test_real_recordings_of_other_rates_are_encoded(clsp):
    """If this fails, real 48 kHz speech cannot be scored."""
    captions = json.loads((SPEECH / "captions.json").read_text(encoding="utf-8"))["retrieval"]
    paths = [SPEECH / entry["wav"] for entry in captions]
    embeddings = clsp.encode_files(paths, progress=False)
    assert embeddings.isfinite().all()
    torch.testing.assert_close(embeddings[3], clsp.encode_file(paths[3]), atol=1e-5, rtol=0)
