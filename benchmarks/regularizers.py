#!/usr/bin/env python3
"""What regularization costs: time and memory of a training step and of evaluation, as ratios.

One speech tower without and one with it, same weights, in turns, so that other work on the machine
hits both. The loss is the sum of half of the embeddings' values. Memory is what autograd keeps for
the backward pass, parameters left out, averaged over the runs since it depends on what was drawn.

> python benchmarks/regularizers.py --threads 1 --dim 256
"""

import argparse
import json
import statistics
import time

import torch

from speechbrain_clsp.lobes.speech_tower import SpeechTower
from speechbrain_clsp.lobes.zipformer.encoder import Zipformer2
from speechbrain_clsp.lobes.zipformer.regularization import Regularization
from speechbrain_clsp.lobes.zipformer.schedule import set_step


def make_tower(dim: int, regularization: Regularization | None) -> SpeechTower:
    """Return the published architecture at another width."""
    torch.manual_seed(0)
    encoder = Zipformer2(
        downsampling=[1, 2, 4, 8, 4, 2, 1],
        n_layers=[1, 2, 3, 4, 1, 1, 1],
        dims=[dim] * 7,
        feedforward=[3 * dim] * 7,
        heads=[8] * 7,
        kernels=[31, 31, 15, 15, 15, 31, 31],
        regularization=regularization,
    )
    return SpeechTower(encoder)


def step(tower: SpeechTower, wavs: torch.Tensor, training: bool) -> tuple[float, float]:
    """Return the duration of a step or an evaluation, and what was kept for backward, in GiB."""
    kept = {}
    parameters = {p.untyped_storage().data_ptr() for p in tower.parameters()}

    def note(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    tower.train(training)
    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda x: x)
    start = time.perf_counter()
    with torch.set_grad_enabled(training), hooks:
        total = tower(wavs)[:, ::2].sum()
    if training:
        total.backward()
        tower.zero_grad(set_to_none=True)
    return time.perf_counter() - start, sum(kept.values()) / 2**30


def compare(towers: dict[str, SpeechTower], wavs: torch.Tensor, training: bool, rounds: int):
    """Measure in turns; returns per tower the median time and the mean of what was kept."""
    runs = {name: [] for name in towers}
    for _ in range(rounds + 1):  # the first is to warm up
        for name, tower in towers.items():
            runs[name].append(step(tower, wavs, training))
    columns = {name: list(zip(*run[1:])) for name, run in runs.items()}
    return {name: (statistics.median(t), statistics.mean(m)) for name, (t, m) in columns.items()}


def main() -> None:
    """Print one line of JSON per kind of run."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--dim", type=int, default=256)
    options.add_argument("--clips", type=int, default=4)
    options.add_argument("--clip_seconds", type=float, default=3.0)
    options.add_argument("--rounds", type=int, default=9)
    options = options.parse_args()
    torch.set_num_threads(options.threads)
    rules = Regularization(unmasked_channels=6 * options.dim // 10)
    towers = {"without": make_tower(options.dim, None), "with": make_tower(options.dim, rules)}
    wavs = 0.1 * torch.randn(options.clips, int(16000 * options.clip_seconds))
    for kind, at in (("train", float("inf")), ("train, step 0", 0.0), ("eval", 0.0)):
        set_step(towers["with"], at)
        found = compare(towers, wavs, kind != "eval", options.rounds)
        row = {"run": kind, "times as long": round(found["with"][0] / found["without"][0], 3)}
        for name, (took, kept) in found.items():
            row |= {f"seconds {name}": round(took, 4), f"GiB kept {name}": round(kept, 3)}
        print(json.dumps(row | vars(options) | {"torch": torch.__version__}), flush=True)


if __name__ == "__main__":
    main()
