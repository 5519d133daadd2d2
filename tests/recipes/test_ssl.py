"""The recipe with pretrained encoders on both sides in short runs, as a user starts it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from speechbrain_clsp import CLSP
from tests.utils.recipes import ROOT, check_outputs, find_recipe, recipe_command, recipe_folder
from tests.utils.speech_encoders import write_speech_encoder
from tests.utils.text_encoders import write_encoder

RECIPE = find_recipe("train_ssl")
CAPTIONS = ["a male speaker speaks slowly in a deep tone", "a woman begins softly and ends loudly"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with data and encoders of both sides."""
    folder = tmp_path_factory.mktemp("ssl")
    sys.path.insert(0, str(ROOT / "recipes/FCaps"))
    from mini_fcaps_prepare import prepare_mini_fcaps

    prepare_mini_fcaps(folder / "data", n_train=24, n_valid=6, n_test=6)
    write_speech_encoder(folder / "wavlm", "wavlm-base")
    write_speech_encoder(folder / "w2v-bert", "w2v-bert")
    write_encoder(folder / "mpnet", "mpnet", CAPTIONS)
    return folder


def run(folder: Path, speech: str, *more: str) -> Path:
    """Run the recipe as a user starts it; returns its output folder."""
    output = folder / f"with_{speech}"
    flags = (
        f"--output_folder={output}",
        f"--speech_encoder={folder / speech}",
        f"--text_encoder={folder / 'mpnet'}",
        *(
            f"--{split}_manifest={folder / 'data' / split}.arrow"
            for split in ("train", "valid", "test")
        ),
        "--train_dataloader_opts={num_workers: 0}",
        "--valid_dataloader_opts={batch_size: 6, num_workers: 0}",
        "--test_dataloader_opts={batch_size: 6, num_workers: 0}",
        "--step_log={every: 1}",
    )
    done = subprocess.run(
        recipe_command(RECIPE, *flags, *more),
        cwd=recipe_folder(RECIPE),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    check_outputs(RECIPE, output)
    return output


def changed(output: Path, encoder: Path, tower: str) -> set[str]:
    """Return the names of an encoder's weights that training changed or added."""
    before = load_file(encoder / "model.safetensors")
    prefix, trained = f"{tower}.encoder.", load_file(output / "model" / "model.safetensors")
    own = {key.removeprefix(prefix): v for key, v in trained.items() if key.startswith(prefix)}
    names = {key: key.replace("pretrained_module.", "") for key in own}
    return {
        key
        for key, name in names.items()
        if name not in before or not torch.equal(before[name], own[key])
    }


def test_heads_learn_on_frozen_encoders_and_the_model_is_complete(folder):
    output = run(folder, "wavlm")
    assert changed(output, folder / "wavlm", "speech_tower") == set()
    assert changed(output, folder / "mpnet", "text_tower") == set()
    weights = load_file(output / "model" / "model.safetensors")
    assert not torch.equal(weights["speech_tower.head.layer_weights"], torch.ones(3))
    steps = [json.loads(line) for line in (output / "steps.jsonl").read_text().splitlines()]
    heads, encoders, scale = steps[-1]["lr"]
    assert heads == scale == pytest.approx(50 * encoders)
    (folder / "wavlm").rename(folder / "moved")
    clsp = CLSP.from_pretrained(output / "model", run_opts={"device": "cpu"})
    wavs = sorted((folder / "data" / "wavs" / "test").iterdir())[:2]
    assert clsp.encode_files(wavs, progress=False).isfinite().all()


def test_adapters_and_last_layers_learn_in_bf16_with_layers_computed_again(folder):
    output = run(
        folder,
        "w2v-bert",
        *("--speech_tuning=lora", "--text_tuning=1", "--speech_layers=last"),
        *("--checkpoint_layers=True", "--precision=bf16", "--encoder_lr=0.001"),
    )
    names = changed(output, folder / "w2v-bert", "speech_tower")
    assert names and all(".adapter_" in name for name in names)
    names = changed(output, folder / "mpnet", "text_tower")
    assert names and all(name.startswith("encoder.layer.2.") for name in names)
    clsp = CLSP.from_pretrained(output / "model", run_opts={"device": "cpu"})
    assert clsp.encode_text(CAPTIONS).isfinite().all()
