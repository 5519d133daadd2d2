"""The style reward: forward, and forward and backward to the waveform, beside the speech tower."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial

import torch
from reward import ways_of

from gpu_parts import models, recipe
from gpu_parts.setting import RowFunction, Setting, float32_products
from speechbrain_clsp.dataio.tokenizers import FastTokenizerCaptions


def rows(setting: Setting) -> Iterator[tuple[str, RowFunction]]:
    """Yield every precision, with and without gradients."""
    for precision in setting.pick(("fp32", "tf32", "bf16"), ("fp32", "bf16")):
        ways: dict[str, Callable] = {}
        towers: dict[bool, float] = {}

        def made(precision: str = precision, ways: dict = ways) -> dict[str, Callable]:
            if not ways:
                ways.update(make(setting, precision))
            return ways

        for backward in (False, True):
            for way in ("tower", "cosine", "margin", "margin, guards"):
                name = f"{precision}, {way}, forward{' and backward' * backward}"
                yield name, partial(reward, setting, made, precision, way, backward, towers)
        ways.clear()


def make(setting: Setting, precision: str) -> dict[str, Callable]:
    """Return the ways to reward clips, by a model in the precision."""
    draw = random.Random(0)
    captions = [recipe.caption(draw, 2) for _ in range(50)]
    tokenizer = FastTokenizerCaptions(recipe.write_tokenizer(setting.folder, captions))
    model = models.clsp(setting, tokenizer)
    model.set_precision("bf16" if precision == "bf16" else "fp32")
    return ways_of(model, n_clips(setting))


def n_clips(setting: Setting) -> int:
    """Return the clips per call."""
    return setting.pick(16, 3)


def reward(
    setting: Setting,
    made: Callable[[], dict[str, Callable]],
    precision: str,
    way: str,
    backward: bool,
    towers: dict[bool, float],
) -> dict:
    """Measure one way; ``towers`` keeps the times of the tower alone, which come first."""
    wavs, call = models.noise(setting, n_clips(setting), setting.pick(5.0, 0.5)), made()[way]
    gradients: list[torch.Tensor] = []

    def work() -> None:
        if not backward:
            with torch.no_grad():
                call(wavs)
            return
        leaf = wavs.clone().requires_grad_()
        call(leaf).sum().backward()
        gradients[:] = [leaf.grad]

    with float32_products(tf32=precision == "tf32"):
        timing = setting.measure(work)
    if way == "tower":
        towers[backward] = timing.seconds
    alone = towers.get(backward)
    row = {
        "ms": 1e3 * timing.seconds,
        "spread": timing.spread,
        "clips/s": len(wavs) / timing.seconds,
        "time / tower": timing.seconds / alone if alone else None,
        "peak GiB": timing.peak_gib,
    }
    if backward:
        row["passed"] = bool(gradients[0].isfinite().all() and gradients[0].any())
    return row
