"""A training step of the stage-2 recipe: memory, speed, and what each of its pieces takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from speechbrain import Stage

from gpu_parts import models, recipe
from gpu_parts.correctness import choose_checkpointing
from gpu_parts.limits import copy_rate, operations, product_rate
from gpu_parts.setting import RowFunction, Setting
from speechbrain_clsp.dataio.dataset import CaptionedSpeech
from speechbrain_clsp.nnet.optim import ScaledAdam
from speechbrain_clsp.training.recipe import dataio_prepare


class Step:
    """The recipe's Brain with one batch of its loader; made once, since it is large."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.seconds = setting.pick(800, 6)
        self.precision = setting.pick("bf16", "fp32")  # few CPUs are quick in bf16
        manifest = recipe.write_data(setting, setting.folder / "data", 4 * self.seconds)
        output = setting.folder / "stage2"
        more = {"batch_seconds": self.seconds, "precision": self.precision}
        self.hparams = recipe.hparams_for(setting, manifest, output, **more)
        self.batch = recipe.batches_for(self.hparams, 1)[0]
        self.brain = recipe.brain_for(setting, self.hparams)
        self.n_operations = 3 * self._forward_operations()

    def _forward_operations(self) -> int:
        brain, batch = self.brain, self.batch.to(self.setting.device)
        brain.modules.eval()
        with torch.no_grad(), brain.training_ctx:
            parts = batch.split(self.seconds / 8)  # as many as memory surely holds
            found = operations(lambda: [brain.compute_forward(part, Stage.TRAIN) for part in parts])
        brain.modules.train()
        return found


def rows(setting: Setting) -> Iterator[tuple[str, RowFunction]]:
    """Yield ways to take a step, then the step's pieces."""
    made: list[Step] = []

    def step() -> Step:
        if not made:
            made.append(Step(setting))
        return made[0]

    yield "the step", lambda: facts(step())
    chunks = setting.pick((400, 200, 100, 50), (3,))
    ways = [("plain", None, False), ("checkpointed layers", None, True)]
    ways += [(f"GradCache {chunk} s", chunk, False) for chunk in chunks]
    ways += [(f"GradCache {chunks[0]} s, checkpointed layers", chunks[0], True)]
    for name, chunk, checkpointing in ways:
        yield name, lambda c=chunk, k=checkpointing: way(step(), c, k)
    yield "pieces of a step", lambda: pieces(step())
    yield "optimizers", lambda: optimizers(step())
    for workers in setting.pick((1, 4, 8), (0, 1)):
        yield f"data loading, {workers} workers", lambda w=workers: loading(step(), w)


def facts(step: Step) -> dict:
    """Return the size of the step."""
    batch, brain = step.batch, step.brain
    padded = batch.wavs.numel() / 16000
    return {
        "million weights": sum(map(models.n_parameters, brain.modules.values())) / 1e6,
        "precision": brain.precision,
        "clips": len(batch.ids),
        "audio s": float(batch.wav_lens.sum()) * batch.wavs.shape[1] / 16000,
        "padded s": padded,
        "captions": len(batch.tokens),
        "tokens": int((~batch.padding_mask).sum()),
        "TFLOP": step.n_operations / 1e12,
        "product TFLOP/s": product_rate(step.setting, step.precision) / 1e12,
    }


def way(step: Step, chunk: float | None, checkpointing: bool) -> dict:
    """Measure steps; FLOPs that are computed twice count once."""
    setting, brain = step.setting, step.brain
    brain.gradcache_chunk_seconds = chunk
    choose_checkpointing(brain.modules.speech_tower, checkpointing)
    brain.zero_grad(set_to_none=True)
    losses: list[float] = []
    try:
        timing = setting.measure(
            lambda: losses.append(recipe.take_step(brain, step.batch)), repeats=3, warm_up=1
        )
    finally:
        choose_checkpointing(brain.modules.speech_tower, False)
        brain.gradcache_chunk_seconds = None
        brain.zero_grad(set_to_none=True)
    return {
        "steps/s": 1 / timing.seconds,
        "audio s/s": step.seconds / timing.seconds,
        "clips/s": len(step.batch.ids) / timing.seconds,
        "MFU": step.n_operations / timing.seconds / product_rate(setting, step.precision),
        "peak GiB": timing.peak_gib,
        "spread": timing.spread,
        "last loss": losses[-1],
        "passed": losses[-1] == losses[-1],
    }


def pieces(step: Step) -> dict:
    """Time the pieces of a step over eight chunks, so that they fit beside the optimizer."""
    setting, brain = step.setting, step.brain
    parts = [part.to(setting.device) for part in step.batch.split(step.seconds / 8)]

    def each(work: Callable[[CaptionedSpeech], object]) -> float:
        return setting.measure(lambda: [work(part) for part in parts], repeats=3).seconds

    def speech(part: CaptionedSpeech) -> torch.Tensor:
        with brain.training_ctx:
            return brain.modules.speech_tower(part.wavs, part.wav_lens)

    def text(part: CaptionedSpeech) -> torch.Tensor:
        with brain.training_ctx:
            return brain.modules.text_tower(part.tokens, part.padding_mask)

    times = {
        "speech forward": each(speech),
        "speech forward and backward": each(lambda part: speech(part)[:, ::2].sum().backward()),
        "text forward": each(text),
        "text forward and backward": each(lambda part: text(part)[:, ::2].sum().backward()),
    }
    times["gradient norms"] = setting.measure(brain._gradient_norms).seconds
    times["ScaledAdam"] = setting.measure(brain.optimizer.step).seconds
    brain.zero_grad(set_to_none=True)
    whole = times["speech forward and backward"] + times["text forward and backward"]
    whole += times["gradient norms"] + times["ScaledAdam"]
    row = {f"{name} ms": 1e3 * seconds for name, seconds in times.items()}
    return row | {"ScaledAdam, % of a step": 100 * times["ScaledAdam"] / whole}


def optimizers(step: Step) -> dict:
    """Compare ScaledAdam with AdamW's implementations and with the bytes that a step moves."""
    setting = step.setting
    weights = [p for p in step.brain.modules.parameters() if p.requires_grad]
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    makers = {
        "ScaledAdam": lambda: ScaledAdam(weights, lr=1e-9),
        "ScaledAdam, no clipping": lambda: ScaledAdam(weights, lr=1e-9, clipping_scale=None),
        "AdamW, foreach": lambda: torch.optim.AdamW(weights, lr=1e-9, foreach=True),
        "AdamW, fused": lambda: torch.optim.AdamW(weights, lr=1e-9, fused=True),
    }
    row: dict = {"tensors": len(weights)}
    for name, make in makers.items():
        optimizer = make()
        row[f"{name} ms"] = 1e3 * setting.measure(optimizer.step, repeats=8, warm_up=4).seconds
        del optimizer
    step.brain.zero_grad(set_to_none=True)
    # Weights and two states read and written, gradients read.
    n_bytes = 7 * 4 * sum(weight.numel() for weight in weights)
    return row | {"GB at least": n_bytes / 1e9, "ms at least": 1e3 * n_bytes / copy_rate(setting)}


def loading(step: Step, workers: int) -> dict:
    """Count the clips per second of the recipe's loader, read from files that are cached."""
    hparams = step.hparams
    options = {**hparams["train_dataloader_opts"], "num_workers": workers}
    datasets, loader_kwargs = dataio_prepare(
        {**hparams, "train_dataloader_opts": options, "batch_seconds": step.seconds / 8}
    )
    times, clips = [], 0
    begin = time.perf_counter()
    for batch in torch.utils.data.DataLoader(datasets["train"], **loader_kwargs["train"]):
        times.append(time.perf_counter())
        clips += len(batch.ids)
    row = {"clips": clips, "first batch s": times[0] - begin}
    gaps = [after - before for before, after in pairwise(times)]
    # Workers read ahead: the first batch waits for their start, so it is left out.
    rate = (clips - clips / len(times)) / (times[-1] - times[0]) if gaps else None
    middle = 1e3 * statistics.median(gaps) if gaps else None
    return row | {"clips/s": rate, "median ms between batches": middle}
