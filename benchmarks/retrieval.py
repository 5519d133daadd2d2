#!/usr/bin/env python3
"""Time and memory of exact ranks in tiles, against the whole matrix.

Baseline ``matrix`` is what evaluation scripts usually do: all N x N scores, a full argsort, and the
place of the relevant item in it. Each method runs in a process of its own, in both directions;
memory is the growth of the process's peak over its embeddings. ``--queries`` ranks only the first
ones against all items, in one direction: memory is that of all, and time grows in proportion.

> python benchmarks/retrieval.py --threads 2 --pairs 10000
> python benchmarks/retrieval.py --threads 2 --pairs 20000 --methods tiles
> python benchmarks/retrieval.py --threads 2 --pairs 1000000 --queries 4096 --methods tiles --half
"""

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import torch

from speechbrain_clsp.evaluation.retrieval.ranking import rank_directions, rank_pairs

SIZE = 512
NOISE = 5.5  # a caption's distance from its clip: R@1 is neither 0 nor 1


def memory_gib(name: str) -> float:
    """Return the process's memory: VmHWM is its peak."""
    return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 2**20


def embeddings(pairs: int, half: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return clips and captions [N, 512] of unit norm, made in small pieces."""
    draw = torch.Generator().manual_seed(0)
    dtype = torch.float16 if half else torch.float32
    speech, text = torch.empty(pairs, SIZE, dtype=dtype), torch.empty(pairs, SIZE, dtype=dtype)
    for start in range(0, pairs, 10_000):
        clip = torch.randn(min(10_000, pairs - start), SIZE, generator=draw)
        caption = clip + NOISE * torch.randn(clip.shape, generator=draw)
        speech[start : start + len(clip)] = torch.nn.functional.normalize(clip, dim=1)
        text[start : start + len(clip)] = torch.nn.functional.normalize(caption, dim=1)
    return speech, text


def by_matrix(speech: torch.Tensor, text: torch.Tensor) -> list[torch.Tensor]:
    """Return ranks in both directions by sorting the whole matrix."""
    ranks = []
    for queries, gallery in ((speech, text), (text, speech)):
        order = (queries @ gallery.T).argsort(dim=1, descending=True)
        ranks.append(
            1 + (order == torch.arange(len(queries), device=order.device)[:, None]).nonzero()[:, 1]
        )
    return ranks


def by_tiles(speech: torch.Tensor, text: torch.Tensor) -> list[torch.Tensor]:
    """Return exact ranks in both directions; in one if there are fewer clips than captions."""
    if len(speech) < len(text):  # not every caption is in a pair
        pairs = torch.arange(len(speech))[:, None].expand(-1, 2)
        return [rank_pairs(speech, text, pairs).rank]
    return [ranking.rank for ranking in rank_directions(speech, text).values()]


def measure(method: str, options: argparse.Namespace) -> dict:
    """Run in this process; returns seconds, memory and ranks."""
    torch.set_num_threads(options.threads)
    rank = {"matrix": by_matrix, "tiles": by_tiles}[method]
    speech, text = embeddings(options.pairs, options.half)
    rank(speech[:64], text[:64])  # the matrix library's own buffers are not the method's
    before, start = memory_gib("VmHWM"), time.perf_counter()
    ranks = rank(speech[: options.queries], text)
    return {
        "seconds": time.perf_counter() - start,
        "GiB": memory_gib("VmHWM") - before,
        "whole process GiB": memory_gib("VmHWM"),
        "R@1": [(r == 1).double().mean().item() for r in ranks],
        "ranks": [r[:1000].tolist() for r in ranks],
    }


def main() -> None:
    """Measure and print one line of JSON per method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--queries", type=int, help="default: all, in both directions")
    parser.add_argument("--half", action="store_true", help="embeddings in float16")
    parser.add_argument("--methods", nargs="+", default=["matrix", "tiles"])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child, options)))
        return
    baseline = None
    for method in options.methods:
        command = [sys.executable, *sys.argv, "--child", method]
        done = subprocess.run(command, check=True, capture_output=True)
        measured = json.loads(done.stdout)
        ranks = measured.pop("ranks")
        baseline = baseline or ranks
        differ = sum(a != b for one, two in zip(ranks, baseline) for a, b in zip(one, two))
        measured |= {"ranks that differ from the first method, of 2000": differ}
        print(json.dumps({"method": method, "pairs": options.pairs, **measured}), flush=True)


if __name__ == "__main__":
    main()
