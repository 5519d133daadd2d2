"""The recipe with a pretrained text encoder in short runs, as a user starts it."""

import shutil
import subprocess
import sys

import torch
from safetensors.torch import load_file

from speechbrain_clsp import CLSP
from tests.utils.recipes import check_outputs, find_recipe, recipe_command, recipe_folder
from tests.utils.text_encoders import write_encoder

RECIPE = find_recipe("mini_pretrained_text")
CAPTIONS = ["a male speaker speaks slowly in a deep tone", "a woman begins softly and ends loudly"]


def run(*flags: str, launcher: tuple[str, ...] = ()) -> None:
    """Run the recipe from its own folder; ``launcher`` stands for Python itself."""
    python, *arguments = recipe_command(RECIPE, *flags)
    command = [*(launcher or (python,)), *arguments]
    done = subprocess.run(
        command, cwd=recipe_folder(RECIPE), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def changed(before: dict, after: dict) -> set[str]:
    """Return the names of weights below ``text_tower.encoder`` that two model folders differ in."""
    prefix = "text_tower.encoder."
    names = {key.replace("pretrained_module.", "") for key in after if key.startswith(prefix)}
    plain = {key.replace("pretrained_module.", ""): value for key, value in after.items()}
    return {
        n for n in names if not torch.equal(before.get(n[len(prefix) :], plain[n] + 1), plain[n])
    }


def test_recipe_trains_on_top_of_an_encoder_and_leaves_a_complete_model(tmp_path):
    encoder, output = tmp_path / "encoder", tmp_path / "out"
    write_encoder(encoder, "mpnet", CAPTIONS)
    weights = load_file(encoder / "model.safetensors")
    flags = (f"--text_encoder={encoder}", f"--data_folder={tmp_path / 'data'}")
    run(*flags, f"--output_folder={output}")
    check_outputs(RECIPE, output)
    assert changed(weights, load_file(output / "model" / "model.safetensors")) == set()

    two = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    more = ("--distributed_backend=gloo", "--model={text_tower: {tuning: lora}}")
    run(*flags, f"--output_folder={tmp_path / 'lora'}", *more, launcher=two)
    names = changed(weights, load_file(tmp_path / "lora" / "model" / "model.safetensors"))
    assert names and all(".adapter_" in name for name in names)

    shutil.rmtree(encoder)
    for folder in (output, tmp_path / "lora"):
        clsp = CLSP.from_pretrained(folder / "model", run_opts={"device": "cpu"})
        assert clsp.encode_text(CAPTIONS).isfinite().all()
