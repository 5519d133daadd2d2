#!/usr/bin/env python3
"""Reward calls per second, against the speech tower alone.

Batches of 16 clips of 5 s, captions seen before. Baseline ``tower`` is the speech tower's forward,
or forward and backward to the waveform; overhead is what a reward takes longer. Ways take turns,
so that other work on the machine meets all of them.

> python benchmarks/reward.py --model results/mini/model --threads 1
> python benchmarks/reward.py --model yfyeung/CLSP --device cuda
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from speechbrain_clsp.inference.clsp import CLSP
from speechbrain_clsp.inference.guards import LengthGuard, LevelGuard
from speechbrain_clsp.inference.reward import StyleReward

CAPTION = "A female speaker talks quickly in a low-pitched tone."
CLIPS, SECONDS = 16, 5


def seconds_of(work: Callable[[], object], device: str) -> float:
    """Time one call."""
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def ways_of(clsp: CLSP, clips: int) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """Return what is timed: waveforms to one number per clip."""
    captions = [CAPTION] * clips
    lens = torch.ones(clips, device=clsp.device)
    guards = [LengthGuard(), LevelGuard()]
    rewards = {
        "cosine": StyleReward(clsp),
        "margin": StyleReward(clsp, scaling="margin"),
        "margin, guards": StyleReward(clsp, scaling="margin", guards=guards),
    }
    ways = {"tower": lambda wavs: clsp.speech_tower(wavs, lens).sum(dim=1)}
    for name, reward in rewards.items():
        ways[name] = lambda wavs, reward=reward: reward(wavs, captions, lens)
    return ways


def main() -> None:
    """Measure and print a line of JSON per way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder or Hub repository")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    wavs = (0.1 * torch.randn(CLIPS, SECONDS * 16000)).to(options.device)
    clsp = CLSP.from_pretrained(options.model, run_opts={"device": options.device})
    ways = ways_of(clsp, CLIPS)

    def forward(way: Callable) -> None:
        with torch.no_grad():
            way(wavs)

    def both(way: Callable) -> None:
        way(wavs.clone().requires_grad_()).sum().backward()

    for name, work in {"forward": forward, "forward and backward": both}.items():
        for way in ways.values():
            work(way)
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way, call in ways.items():
                times[way].append(seconds_of(partial(work, call), options.device))
        base = statistics.median(times["tower"])
        for way, found in times.items():
            seconds = statistics.median(found)
            figures = {"way": way, "calls per second": 1 / seconds, "time / tower": seconds / base}
            print(json.dumps({"what": name, **figures}), flush=True)


if __name__ == "__main__":
    main()
