#!/usr/bin/env python3
"""Time and memory of the contrastive loss in tiles, against the plain one.

Each way runs forward and backward in a process of its own; memory is the growth of the process's
peak over its embeddings.

> python benchmarks/loss.py --threads 2 --clips 8192
> python benchmarks/loss.py --threads 2 --clips 65536 --ways tiled --repeats 1
"""

import argparse
import json
import re
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import torch

from speechbrain_clsp.nnet.losses import contrastive_loss

SIZE = 512


def peak_gib() -> float:
    """Return the process's peak memory."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 2**20


def measure(clips: int, texts: int, tile: int | None, repeats: int, threads: int) -> dict:
    """Run in this process; returns figures."""
    torch.set_num_threads(threads)
    draw = torch.Generator().manual_seed(0)

    def embeddings(*shape: int) -> torch.Tensor:
        x = torch.randn(*shape, SIZE, generator=draw)
        return torch.nn.functional.normalize(x, dim=-1).requires_grad_()

    # A small batch first: the matrix library's own buffers are not the loss's.
    small, one, scale = embeddings(256), embeddings(1, 256), torch.tensor([14.3])
    contrastive_loss(small, one, scale, tile).backward()
    speech, text = embeddings(clips), embeddings(texts, clips)
    scale = torch.tensor([14.3], requires_grad=True)
    speech.grad, text.grad = torch.zeros_like(speech), torch.zeros_like(text)
    before, took = peak_gib(), []
    for _ in range(repeats):
        start = time.perf_counter()
        loss = contrastive_loss(speech, text, scale, tile)
        loss.backward()
        took.append(time.perf_counter() - start)
    checks = [speech.grad[:64].double() / repeats, text.grad[:, :64].double() / repeats]
    return {
        "seconds": min(took),
        "GiB": peak_gib() - before,
        "loss": loss.item(),
        "gradients": [x.flatten()[::97].tolist() for x in checks],
    }


def main() -> None:
    """Measure and print one line of JSON per way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clips", type=int, default=8192)
    parser.add_argument("--texts", type=int, default=2, help="per clip")
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ways", nargs="+", default=["plain", "tiled"])
    parser.add_argument("--child", choices=["plain", "tiled"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        tile = options.tile if options.child == "tiled" else None
        sizes = (options.clips, options.texts, tile, options.repeats, options.threads)
        print(json.dumps(measure(*sizes)))
        return
    plain = None
    for way in options.ways:
        command = [sys.executable, *sys.argv, "--child", way]
        figures = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        plain = figures if way == "plain" else plain
        line = {"way": way, "clips": options.clips, "texts per clip": options.texts}
        line |= {"seconds": round(figures["seconds"], 2), "GiB": round(figures["GiB"], 3)}
        if plain:
            line["time / plain"] = round(figures["seconds"] / plain["seconds"], 2)
            pairs = zip(chain(*figures["gradients"]), chain(*plain["gradients"]))
            line["largest difference of gradients"] = max(abs(a - b) for a, b in pairs)
        print(json.dumps({**line, "threads": options.threads, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
