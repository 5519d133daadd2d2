#!/usr/bin/env python3
"""What regularisation costs: time and memory of a training step and of evaluation, as ratios.

One speech tower without and one with it, same weights, in turns, so that other work on the machine
hits both. Depth, not width, sets the share of bookkeeping, hence ``--dim``. The loss is the sum of
the embeddings. Peak memory is measured on a GPU only.

> python benchmarks/regularisers.py --threads 2 --dim 256
"""

import argparse
import json
import statistics
import time

import torch

from speechbrain_clsp.lobes.regularisation import Regularisation
from speechbrain_clsp.lobes.speech_tower import SpeechTower
from speechbrain_clsp.lobes.zipformer import Zipformer2
from speechbrain_clsp.nnet.schedule import set_step


def make_tower(dim: int, regularisation: Regularisation | None) -> SpeechTower:
    """Return the published architecture at another width."""
    torch.manual_seed(0)
    encoder = Zipformer2(
        downsampling=[1, 2, 4, 8, 4, 2, 1],
        n_layers=[1, 2, 3, 4, 1, 1, 1],
        dims=[dim] * 7,
        feedforward=[3 * dim] * 7,
        heads=[8] * 7,
        kernels=[31, 31, 15, 15, 15, 31, 31],
        regularisation=regularisation,
    )
    return SpeechTower(encoder)


def seconds(tower: SpeechTower, wavs: torch.Tensor, training: bool) -> tuple[float, float]:
    """Return the duration of a step or of an evaluation, and its peak GPU memory in GiB."""
    on_gpu = wavs.is_cuda
    tower.train(training)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    start = time.perf_counter()
    with torch.set_grad_enabled(training), torch.autocast("cuda", torch.bfloat16, enabled=on_gpu):
        total = tower(wavs).float()[:, ::2].sum()
    if training:
        total.backward()
        tower.zero_grad(set_to_none=True)
    if on_gpu:
        torch.cuda.synchronize()
    took = time.perf_counter() - start
    return took, torch.cuda.max_memory_allocated() / 2**30 if on_gpu else float("nan")


def compare(towers: dict[str, SpeechTower], wavs: torch.Tensor, training: bool, rounds: int):
    """Measure in turns; returns per tower the median time and the peak memory."""
    runs = {name: [] for name in towers}
    for _ in range(rounds + 1):
        for name, tower in towers.items():
            runs[name].append(seconds(tower, wavs, training))
    return {
        name: (statistics.median(t for t, _ in run[1:]), max(m for _, m in run[1:]))
        for name, run in runs.items()
    }


def main() -> None:
    """Print one line of JSON per kind of run."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--dim", type=int, default=256)
    options.add_argument("--clips", type=int, default=8)
    options.add_argument("--seconds", type=float, default=8.0)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--device", default="cpu")
    options = options.parse_args()
    torch.set_num_threads(options.threads)
    rules = Regularisation(unmasked_channels=6 * options.dim // 10)
    towers = {"without": make_tower(options.dim, None), "with": make_tower(options.dim, rules)}
    for tower in towers.values():
        tower.to(options.device)
    wavs = 0.1 * torch.randn(options.clips, int(16000 * options.seconds), device=options.device)
    for kind, step in (("train", float("inf")), ("train from step 0", 0.0), ("eval", 0.0)):
        set_step(towers["with"], step)
        found = compare(towers, wavs, kind != "eval", options.rounds)
        row = {"run": kind}
        for name, (took, memory) in found.items():
            row |= {f"seconds {name}": round(took, 4), f"peak GiB {name}": round(memory, 2)}
        row["times as long"] = round(found["with"][0] / found["without"][0], 3)
        row["times the memory"] = round(found["with"][1] / found["without"][1], 3)
        print(json.dumps(row | vars(options) | {"torch": torch.__version__}), flush=True)


if __name__ == "__main__":
    main()
