"""Fine-tuning on a user's table: from a base model to adapters and a comparison."""

import contextlib
import csv
import io
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from speechbrain_clsp import CLSP
from speechbrain_clsp.cli.main import main
from speechbrain_clsp.dataio.manifest import write_manifest
from speechbrain_clsp.evaluation.models import ClspModel
from speechbrain_clsp.evaluation.result import Evaluation
from speechbrain_clsp.evaluation.statistics import Estimate, paired_comparison
from speechbrain_clsp.lobes.adapters import AdaptedTower
from speechbrain_clsp.training.finetuning import AFTER, BEFORE, describe_changes, open_base
from tests.utils.buzzes import write_buzzes
from tests.utils.small import model_folder, tone, write

SETTINGS = ("num_threads=1", "epoch_clips=16", "most_clips=4", "n_negatives=1", "lr=0.01")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Fine-tune a small model by the command, with rehearsal; returns folder and what it said."""
    folder = tmp_path_factory.mktemp("finetune")
    base = model_folder(folder)
    (folder / "old").mkdir()
    old = write_buzzes(folder / "old")
    with open(folder / "clips.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["wav", "caption", "labels.hum", "speaker"])
        for number in range(24):
            hum = ["deep", "shrill"][number % 2]
            frequency = [90, 350][number % 2] + 2 * number
            write(folder / f"{number}.wav", tone(0.4 + 0.01 * number, frequency=frequency))
            table.writerow([f"{number}.wav", f"A {hum} hum ☂.", hum, f"s{number // 4}"])
    command = ["finetune", folder / "clips.csv", "--set", *SETTINGS, "--base", base, "--rank", 2]
    command += ["--epochs", 1, "--rehearse", old.path, "--output", folder / "out"]
    return folder, run(command), command


def run(command):
    """Run ``clsp`` in this process; returns its exit code, and what it said."""
    streams = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        code = main([str(part) for part in command])
    return code, "".join(stream.getvalue() for stream in streams)


def test_the_command_ends_in_adapters_of_the_base(trained):
    """If this fails, clsp finetune fails, or what it leaves is not a fine-tuned model."""
    folder, (code, said), _ = trained
    assert code == 0, said[-2000:]
    tuned = CLSP.from_pretrained(folder / "out" / "model")
    base = CLSP.from_pretrained(folder / "model")
    state = load_file(folder / "out" / "model" / "adapters.safetensors")
    trained_ups = [key for key, value in state.items() if "up" in key and value.abs().max() > 0]
    assert {key.partition(".")[0] for key in trained_ups} == {"speech_tower", "text_tower"}
    assert tuned.background is not None and base.background is None
    assert not torch.equal(tuned.encode_text(["A deep hum."]), base.encode_text(["A deep hum."]))


def test_it_compares_before_and_after_and_says_that_clips_are_few(trained):
    """If this fails, a user takes chance for progress."""
    folder, (_, said), _ = trained
    assert "Before and after, in %, on 4 test clips" in said
    assert "hum WA: " in said and " -> " in said
    assert "4 test clips are too few to rely on intervals" in said
    metrics = json.loads((folder / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert set(metrics["models"]) == {AFTER, BEFORE}


def test_it_compares_rehearsed_clips_with_those_of_the_test(trained):
    """If this fails, a test clip that was trained on as an old one passes for a new one."""
    _, (_, said), _ = trained
    assert "No valid or test clip is, or sounds like, a rehearsal clip." in said


def test_it_says_which_characters_the_base_does_not_know(trained):
    """If this fails, captions of unknown characters train nothing, without a word."""
    _, (_, said), _ = trained
    assert "characters that the base model does not know" in said and "☂" in said


def test_checkpoints_hold_no_frozen_weights_and_are_gone_on_with(trained):
    """If this fails, each checkpoint is as large as the base, or a stopped training starts anew."""
    folder, _, command = trained
    (checkpoint,) = {path.parent for path in folder.glob("out/save/CKPT*/speech_tower.ckpt")}
    saved = torch.load(checkpoint / "speech_tower.ckpt", weights_only=True)
    assert all(".adapter_" in key for key in saved)
    again, _ = run(command)
    assert again == 0 and list(folder.glob("out/save/CKPT*")) == [checkpoint]  # nothing was left
    code, said = run([8 if part == 2 else part for part in command])
    assert code == 2 and "holds other adapters" in said


def test_a_training_from_scratch_does_not_write_into_the_folder(trained):
    folder, _, _ = trained
    files = (path for path in (folder / "out").rglob("*") if path.is_file())
    before = {path: path.read_bytes() for path in files if path.name != "log.txt"}  # still open
    code, said = run(["train", folder / "clips.csv", "--output", folder / "out"])
    assert code == 2 and "holds a training of adapters of a base model: name another" in said
    assert {path: path.read_bytes() for path in before} == before


def test_clips_are_left_out_by_the_lengths_that_the_recipe_names(trained):
    """If this fails, shortest is a dead option, or short clips are left out without a word."""
    folder, _, command = trained
    other = [folder / "short" if part == folder / "out" else part for part in command]
    code, said = run([*other, "--set", "shortest=9.5"])
    assert code == 2 and "No training clip lasts 9.5 to 30 s" in said


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--tune", "heads", "--rank", "4"], "--rank would do nothing: --tune heads trains"),
        (["--rehearse", "absent.arrow"], "1 of 1 clips cannot be read: 'a': "),
        (["--set", "alpha=0"], "alpha must be a positive number, not 0"),
        (["--base", ""], "open_base: A model is a folder or a Hub repository user/name, not ''"),
        (["--rehearse", "old", "--set", "rehearsal_fraction=1"], "must be between 0 and 1, not 1"),
    ],
    ids=["rank", "old_clips", "alpha", "base", "fraction"],
)
def test_what_cannot_be_tuned_ends_in_one_line_before_the_first_epoch(
    trained, tmp_path, flags, message
):
    """If this fails, a user waits for a training that stops, or gets one that learns nothing."""
    folder, _, _ = trained
    row = {"id": "a", "audio": "/absent.wav", "duration": 1.0, "global_captions": ["A."]}
    write_manifest(tmp_path / "absent.arrow", [row | {"fine_captions": ["A."]}])
    places = {"absent.arrow": tmp_path / "absent.arrow", "old": folder / "old" / "train.arrow"}
    command = ["finetune", folder / "clips.csv", "--base", folder / "model"]
    command += ["--output", tmp_path / "out", *(places.get(flag, flag) for flag in flags)]
    code, said = run(command)
    assert code == 2 and message in said and "Traceback" not in said
    assert not (tmp_path / "out" / "train_log.txt").exists()


def test_adapters_of_a_checkpoint_must_fit(tmp_path):
    """If this fails, a training goes on with untrained adapters."""
    modules = open_base(model_folder(tmp_path), rank=2).modules
    tower = modules["text_tower"]
    tower.save(tmp_path / "text_tower.ckpt")
    other = open_base(tmp_path / "model", tune="heads").modules["text_tower"]
    with pytest.raises(ValueError, match="holds other adapters"):
        other.load(tmp_path / "text_tower.ckpt", end_of_epoch=True)
    for value in tower.tuned_state().values():
        value.fill_(7.0)
    tower.load(tmp_path / "text_tower.ckpt", end_of_epoch=True)
    assert not any((value == 7.0).any() for value in tower.tuned_state().values())


def test_a_base_is_opened_with_trainable_adapters_and_a_frozen_rest(tmp_path):
    """If this fails, nothing is trained, or everything."""
    model = open_base(model_folder(tmp_path))
    for name in ("speech_tower", "text_tower"):
        assert isinstance(model[name], AdaptedTower)
        trained = {n for n, p in model[name].named_parameters() if p.requires_grad}
        assert trained and all(".adapter_" in name for name in trained)
    assert model["logit_scale"].logit_scale.requires_grad
    assert model.describe_unknown(["A male speaker."]) == ""


def test_a_base_that_was_trusted_is_evaluated(tmp_path, monkeypatch):
    """If this fails, a training on a model of the Hub ends in an error after its last epoch."""
    trusted = []
    monkeypatch.setattr(ClspModel, "open", lambda *arguments: trusted.append(arguments[-1]))
    model = open_base(model_folder(tmp_path), trust_hparams=True)
    model.open_evaluated(tmp_path / "tuned", "cpu")
    open_base(tmp_path / "model").open_evaluated(tmp_path / "tuned", "cpu")
    assert trusted == [True, True, False, False]


def test_differences_that_may_be_chance_are_called_so():
    """If this fails, describe_changes tells apart what its clips cannot."""
    generator = np.random.default_rng(0)
    before, after = generator.integers(0, 2, (2, 40)).astype(float)
    key = ("mood", "WA", AFTER, BEFORE)
    values = {AFTER: {"WA": Estimate(after.mean())}, BEFORE: {"WA": Estimate(before.mean())}}
    evaluation = Evaluation("mini", 0, tables={"mood": values})
    evaluation.comparisons[key] = paired_comparison(after, before)
    assert describe_changes(evaluation, 40)[1].endswith("too few clips to tell")
    evaluation.comparisons[key] = paired_comparison(np.ones(40), np.zeros(40))
    assert "too few" not in "".join(describe_changes(evaluation, 40))
    assert "too few to rely" in describe_changes(evaluation, 12)[-1]
