"""The published stages one after another, small, on MiniFCaps."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import RobertaConfig, RobertaModel

from speechbrain_clsp import CLSP
from tests.utils.official_model import write_official, write_tokenizer
from tests.utils.recipes import check_outputs, find_recipe, recipe_command, recipe_folder

ROOT = Path(__file__).parents[2]
# The sizes of the small reference model, whose encoder stands for SPEAR's.
MODEL = """{encoder: {downsampling: [1, 2, 4, 2], n_layers: [1, 1, 2, 1], dims: [64, 96, 128, 96],
 feedforward: [128, 192, 256, 192], heads: [4, 4, 4, 4], kernels: [31, 15, 15, 15]},
 text_tower: {vocab_size: 120, dim: 48, n_layers: 1, heads: 4, feedforward: 96}}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with data, a tokenizer, and encoders to start from."""
    folder = tmp_path_factory.mktemp("stages")
    sys.path.insert(0, str(ROOT / "recipes/FCaps"))
    from mini_fcaps_prepare import prepare_mini_fcaps

    prepare_mini_fcaps(folder / "data", n_train=24, n_valid=6, n_test=6)
    write_official(folder / "spear")
    write_tokenizer(folder / "roberta")
    config = RobertaConfig(
        vocab_size=120,
        hidden_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=514,
        type_vocab_size=1,
    )
    RobertaModel(config).save_pretrained(folder / "roberta")
    return folder


def run(stage: str, folder: Path, *more: str) -> Path:
    """Run a stage as a user starts it; returns its output folder."""
    recipe, output = find_recipe(stage), folder / stage
    flags = (
        f"--output_folder={output}",
        f"--model={MODEL}",
        f"--tokenizer_source={folder / 'roberta'}",
        *(
            f"--{split}_manifest={folder / 'data' / split}.arrow"
            for split in ("train", "valid", "test")
        ),
        "--shortest=0",
        "--train_dataloader_opts={num_workers: 0}",
        "--valid_dataloader_opts={batch_size: 6, num_workers: 0}",
        "--test_dataloader_opts={batch_size: 6, num_workers: 0}",
        "--step_log={every: 1}",
    )
    done = subprocess.run(
        recipe_command(recipe, *flags, *more),
        cwd=recipe_folder(recipe),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    check_outputs(recipe, output)
    log = (output / "train_log.txt").read_text(encoding="utf-8")
    assert len(re.findall(r"^epoch: ", log, flags=re.M)) == 2
    clsp = CLSP.from_hparams(output / "model", run_opts={"device": "cpu"})
    assert clsp.encode_text(["a male speaker."]).isfinite().all()
    return output


def weights_of(output: Path) -> dict[str, torch.Tensor]:
    """Return a model folder's weights."""
    return load_file(output / "model" / "model.safetensors")


def test_the_published_stages_follow_each_other(folder):
    """If this fails, a user cannot train as published, or a stage forgets the one before it."""
    sources = [f"--speech_source={folder / 'spear'}", f"--text_source={folder / 'roberta'}"]
    stage1 = run("train_stage1", folder, *sources)
    steps = [json.loads(line) for line in (stage1 / "steps.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps] == [1, 2]
    heads, encoders, temperature = steps[0]["lr"]
    assert heads == temperature == pytest.approx(45 * encoders)

    spear = load_file(folder / "spear" / "model.safetensors")["model.encoder_embed.out.weight"]
    first = weights_of(stage1)["speech_tower.encoder_embed.out.weight"]
    assert 0 < (first - spear).abs().max() < 0.1 * spear.abs().max()

    start = f"--stage1_folder={stage1 / 'model'}"
    for stage in ("train_stage2", "train_hard_negatives"):
        weights = weights_of(run(stage, folder, start))
        change = weights["speech_tower.encoder_embed.out.weight"] - first
        assert 0 < change.abs().max() < 0.1 * first.abs().max(), stage
