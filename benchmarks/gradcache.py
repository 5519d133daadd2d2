#!/usr/bin/env python3
"""Memory and time of a large batch by GradCache, against small batches.

The towers of speechbrain_clsp/hparams/clsp_mini.yaml on clips of three seconds with two texts;
every way runs steps on the same number of clips, in a process of its own. Memory is the process's
peak over what it holds before the first step.

> python benchmarks/gradcache.py --threads 1 --clips 1024
"""

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_clsp.dataio.dataset import CaptionedSpeech
from speechbrain_clsp.nnet.gradcache import GradCache
from speechbrain_clsp.nnet.losses import contrastive_loss

DEFINITION = Path(__file__).parents[1] / "speechbrain_clsp" / "hparams" / "clsp_mini.yaml"
SECONDS, TOKENS, TEXTS, SMALL = 3, 40, 2, 32


def peak_gib() -> float:
    """Return the process's peak memory."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 2**20


def make_batch(clips: int) -> CaptionedSpeech:
    """Return noise and random tokens."""
    draw = torch.Generator().manual_seed(0)
    return CaptionedSpeech(
        [str(i) for i in range(clips)],
        0.1 * torch.randn(clips, SECONDS * 16000, generator=draw),
        torch.ones(clips),
        torch.randint(5, 400, (TEXTS * clips, TOKENS), generator=draw),
        torch.zeros(TEXTS * clips, TOKENS, dtype=torch.bool),
        torch.empty(clips, 0, dtype=torch.long),
        torch.arange(TEXTS * clips).view(TEXTS, clips),
        n_positives=TEXTS,
    )


def measure(way: str, clips: int, threads: int) -> dict:
    """Run one pass over the clips; returns figures."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    modules = load_hyperpyyaml(DEFINITION.read_text())["modules"]
    speech_tower, text_tower = modules["speech_tower"], modules["text_tower"]
    scale = torch.tensor([14.3])

    def encode(batch):
        text = text_tower(batch.tokens, batch.padding_mask)
        return speech_tower(batch.wavs, batch.wav_lens), text.view(TEXTS, -1, text.shape[-1])

    batch = make_batch(clips)
    chunks = batch.split(SMALL * SECONDS)
    contrastive_loss(*encode(chunks[0].split(4 * SECONDS)[0]), scale).backward()  # warm up
    before, start = peak_gib(), time.perf_counter()
    if way == "gradcache":
        cache = GradCache(encode)
        contrastive_loss(*cache.encode(chunks), scale).backward()
        cache.backward()
    else:
        for part in [batch] if way == "one plain batch" else chunks:
            contrastive_loss(*encode(part), scale).backward()
    return {"seconds": time.perf_counter() - start, "GiB": peak_gib() - before}


def main() -> None:
    """Measure and print one line of JSON per way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clips", type=int, default=1024)
    parser.add_argument(
        "--plain", action="store_true", help="also one plain batch: 13 GiB per 1024"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child, options.clips, options.threads)))
        return
    baseline = None
    ways = [f"batches of {SMALL}", "gradcache"] + ["one plain batch"] * options.plain
    for way in ways:
        command = [sys.executable, *sys.argv, "--child", way]
        done = subprocess.run(command, capture_output=True, text=True)
        line = {"way": way, "clips": options.clips, "threads": options.threads}
        if done.returncode:
            line["failed"] = (done.stderr.splitlines() or [f"exit {done.returncode}"])[-1]
        else:
            figures = json.loads(done.stdout)
            baseline = baseline or figures
            line |= {name: round(value, 2) for name, value in figures.items()}
            line["time / small batches"] = round(figures["seconds"] / baseline["seconds"], 2)
            line["memory / small batches"] = round(figures["GiB"] / baseline["GiB"], 2)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
