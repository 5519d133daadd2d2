#!/usr/bin/env python3
"""Memory and time to load the published architecture at full size (2.9 GB of weights).

Writes a checkpoint of random weights with the published keys and shapes, then loads it in a fresh
process, embeds one clip, and reports the peak memory as a ratio to the weights.

> python benchmarks/load.py clsp_xlarge_keys.json --folder /tmp/clsp_xlarge
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

CHILD = """
import json, re, sys, time
import torch
from speechbrain_clsp import CLSP
torch.set_num_threads(int(sys.argv[2]))
CLSP.from_pretrained  # imports are not part of the load
import speechbrain_clsp.pretrained.hub, transformers.models.roberta.modeling_roberta
# getrusage would give the parent's peak, which a new process inherits.
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 2**20
before, start = peak(), time.perf_counter()
clsp = CLSP.from_pretrained(sys.argv[1])
loaded = time.perf_counter()
at_load = peak()
clsp.encode_batch(0.1 * torch.randn(1, 80000))
done = time.perf_counter()
print(json.dumps({
    "load seconds": round(loaded - start, 2),
    "first embedding of 5 s, seconds": round(done - loaded, 2),
    "GiB before": round(before, 2),
    "peak GiB at load": round(at_load, 2),
    "peak GiB with embedding": round(peak(), 2),
}))
"""


def write_checkpoint(keys_file: Path, folder: Path) -> float:
    """Write random weights with the keys and shapes of a JSON file; returns their GiB."""
    shapes = json.loads(keys_file.read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    weights = {f"model.{key}": 0.02 * torch.randn(shape) for key, shape in shapes.items()}
    save_file(weights, folder / "model.safetensors")
    return sum(weight.numel() for weight in weights.values()) * 4 / 2**30


def main() -> None:
    """Measure and print one line of JSON."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("keys", type=Path, help="JSON file {key: shape}")
    options.add_argument("--folder", type=Path, required=True, help="where the weights go")
    options.add_argument("--threads", type=int, default=2)
    options = options.parse_args()
    size = write_checkpoint(options.keys, options.folder)
    command = [sys.executable, "-c", CHILD, str(options.folder), str(options.threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    metrics = json.loads(done.stdout.splitlines()[-1])
    metrics["GiB of weights"] = round(size, 2)
    metrics["peak / weights"] = round(metrics["peak GiB with embedding"] / size, 2)
    print(json.dumps(metrics))


if __name__ == "__main__":
    main()
