"""Model folders made from the published form, the way back, and what is published."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from speechbrain.inference.classifiers import EncoderClassifier

from speechbrain_clsp import CLSP
from speechbrain_clsp.cli.main import main
from speechbrain_clsp.pretrained.conversion import convert_official, export_official
from speechbrain_clsp.pretrained.folder import save_model_folder
from speechbrain_clsp.pretrained.hub import publish
from tests.utils.official_model import official_weights, write_official, write_tokenizer
from tests.utils.small import model_folder, tone, write

PROMPTS = {"male": ["a male speaker", "male"], "female": "a female speaker", "rest": "speaker"}
CPU = {"device": "cpu"}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Return the folder of the small published model, with a tokenizer."""
    folder = write_official(tmp_path_factory.mktemp("published"))
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def converted(published, tmp_path_factory):
    """Return the SpeechBrain-format folder made of it, with classes."""
    folder = tmp_path_factory.mktemp("converted") / "clsp"
    convert_official(published, folder, prompts=PROMPTS)
    return folder


def test_a_converted_folder_is_the_same_model(published, converted):
    """If this fails, a conversion changes the embeddings."""
    before, after = CLSP.from_pretrained(published), CLSP.from_hparams(converted, run_opts=CPU)
    wavs, lengths = 0.1 * torch.randn(2, 9000), torch.tensor([1.0, 0.7])
    assert torch.equal(before.encode_batch(wavs, lengths), after.encode_batch(wavs, lengths))
    # Matrix products round by where weights lie in memory.
    found = [model.encode_text(["male speaker"]) for model in (before, after)]
    assert torch.allclose(*found, atol=1e-6)
    card = (converted / "README.md").read_text()
    assert "whose license applies" in card and "68.1" in card


def test_stock_encoder_classifier_gives_the_same_classes(converted, tmp_path):
    """If this fails, the folder is useless to those who know only SpeechBrain's own interface."""
    ours = CLSP.from_hparams(converted, run_opts=CPU)
    theirs = EncoderClassifier.from_hparams(str(converted), run_opts=CPU)
    wavs, lengths = 0.1 * torch.randn(3, 9000), torch.tensor([1.0, 0.7, 0.5])
    expected = ours.classify_batch(wavs, lengths)
    found = theirs.classify_batch(wavs, lengths)
    torch.testing.assert_close(found[0], expected[0])
    assert torch.equal(found[2], expected[2]) and found[3] == expected[3]
    assert set(found[3]) <= set(PROMPTS)
    path = write(tmp_path / "a.wav", tone(0.6))
    assert theirs.classify_file(str(path), savedir=None)[3] == ours.classify_file(path)[3]


def test_the_way_back_gives_the_published_file(published, converted, tmp_path):
    """If this fails, a model trained here cannot be used by those who use the published code."""
    export_official(CLSP.from_hparams(converted, run_opts=CPU), tmp_path / "back")
    found = load_file(tmp_path / "back" / "model.safetensors")
    expected = official_weights()
    assert sorted(found) == sorted(f"model.{key}" for key in expected)
    for key, value in expected.items():
        assert found[f"model.{key}"].shape == value.shape, key
        if "layers" not in key or not key.split(".")[-2].isdigit():  # what nothing reads
            assert torch.equal(found[f"model.{key}"], value), key
    again = CLSP.from_pretrained(tmp_path / "back")
    wavs = torch.randn(1, 9000)
    assert torch.equal(again.encode_batch(wavs), CLSP.from_pretrained(published).encode_batch(wavs))
    assert torch.equal(
        again.encode_text(["male"]), CLSP.from_pretrained(published).encode_text(["male"])
    )
    with pytest.raises(FileExistsError, match="back/model.safetensors exists"):
        export_official(again, tmp_path / "back")


def test_other_text_towers_cannot_be_exported(tmp_path):
    """If this fails, an export ends in a KeyError, or lacks half of the model."""
    clsp = CLSP.from_hparams(model_folder(tmp_path), run_opts=CPU)
    with pytest.raises(ValueError, match="no place for a TransformerTextTower"):
        export_official(clsp, tmp_path / "out")


def test_a_conversion_without_tokenizer_says_what_is_missing(tmp_path):
    """If this fails, a folder is written that cannot be loaded."""
    bare = write_official(tmp_path / "bare")
    with pytest.raises(FileNotFoundError, match="hf download"):
        convert_official(bare, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_publishing_lists_what_would_be_sent(converted, tmp_path):
    """If this fails, a dry run sends something, or a user uploads a folder by mistake."""
    files = publish(converted, "user/name", dry_run=True)
    expected = ["README.md", "config.json", "hyperparams.yaml", "label_encoder.txt"]
    assert files == [*expected, "model.safetensors", "modules.json", "tokenizer.json"]
    with pytest.raises(FileNotFoundError, match="is not a model folder"):
        publish(tmp_path, "user/name", dry_run=True)
    with pytest.raises(ValueError, match="must be user/name"):
        publish(converted, "name", dry_run=True)


def test_the_commands_convert_score_and_publish(published, tmp_path, capfd):
    """If this fails, one of README's commands does not work."""
    (tmp_path / "p.json").write_text(json.dumps(PROMPTS))
    folder, prompts = str(tmp_path / "out"), str(tmp_path / "p.json")
    assert main(["convert", str(published), folder, "--prompts", prompts]) == 0
    assert main(["convert", folder, str(tmp_path / "back"), "--to-official"]) == 0
    assert main(["publish", folder, "user/name", "--dry-run"]) == 0
    assert "7 files would be uploaded to user/name" in capfd.readouterr().out
    path = str(write(tmp_path / "a.wav", tone(0.6)))
    scores = []
    for model in (published, folder, tmp_path / "back"):
        assert main(["score", path, "male speaker", "--model", str(model), "--json"]) == 0
        scores.append(json.loads(capfd.readouterr().out))
    for score in scores[1:]:
        assert score == pytest.approx(scores[0], abs=1e-6)
    assert main(["convert", folder, str(tmp_path / "x")]) == 2
    assert "in SpeechBrain's format" in capfd.readouterr().err


def test_a_folder_that_is_not_a_model_is_never_replaced(tmp_path):
    source = model_folder(tmp_path)
    clsp = CLSP.from_pretrained(source)
    run = tmp_path / "run"  # a training has a hyperparams.yaml, too
    (run / "save").mkdir(parents=True)
    (run / "hyperparams.yaml").write_text("seed: 1")
    definition = (source / "hyperparams.yaml").read_text(encoding="utf-8")
    tokenizer = {"tokenizer.model": source / "tokenizer.model"}
    with pytest.raises(FileExistsError, match="not a model folder"):
        save_model_folder(run, definition, clsp.mods, tokenizer)
    assert (run / "save").is_dir() and (run / "hyperparams.yaml").read_text() == "seed: 1"


def test_what_a_user_put_beside_a_model_stays(tmp_path):
    source = model_folder(tmp_path)
    clsp = CLSP.from_pretrained(source)
    (source / "notes.txt").write_text("mine")
    (source / "clips").mkdir()
    (source / "clips" / "a.txt").write_text("mine too")
    link = tmp_path / "link"
    link.symlink_to(source)
    definition = (source / "hyperparams.yaml").read_text(encoding="utf-8")
    tokenizer = {"tokenizer.model": source / "tokenizer.model"}
    save_model_folder(link, definition, clsp.mods, tokenizer)
    assert link.is_symlink() and (source / "notes.txt").read_text() == "mine"
    assert (link / "clips" / "a.txt").read_text() == "mine too"
    assert CLSP.from_pretrained(source).encode_text(["A."]).isfinite().all()


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff\xfe", b"'male' => x\n", b"version"])
def test_damaged_labels_are_named(converted, tmp_path, content):
    """If this fails, classes get other names, or an error that does not say whose."""
    shutil.copytree(converted, tmp_path / "model")
    (tmp_path / "model" / "label_encoder.txt").write_bytes(content)
    with pytest.raises(ValueError, match=r"model/label_encoder.txt"):
        CLSP.from_hparams(tmp_path / "model", run_opts=CPU)


def test_speechbrains_own_interface_does_not_mix_two_models(converted, tmp_path):
    """If this fails, weights of one model get the classes of another."""
    shutil.copytree(converted, tmp_path / "other")
    definition = (tmp_path / "other" / "hyperparams.yaml").read_text()
    (tmp_path / "other" / "hyperparams.yaml").write_text(definition + "\nother: 1\n")
    options = {"savedir": tmp_path / "save", "run_opts": CPU}
    EncoderClassifier.from_hparams(str(converted), **options)
    EncoderClassifier.from_hparams(str(converted), **options)
    with pytest.raises(FileExistsError, match="save/hyperparams.yaml differs from that of .*other"):
        EncoderClassifier.from_hparams(str(tmp_path / "other"), **options)
