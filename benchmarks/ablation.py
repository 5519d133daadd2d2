#!/usr/bin/env python3
"""What single choices of the MiniFCaps recipe are worth: short trainings, several seeds each.

Every variant is hparams/mini.yaml with one thing changed. Trainings are short (a tenth of
``make demo``), so figures are far from those of a full one; compare them with each other.

> python benchmarks/ablation.py --folder /tmp/ablation --threads 1
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

RECIPE = Path(__file__).parents[1] / "recipes/FCaps/CLSP"
HARD = """captions: !new:speechbrain_clsp.captions.policies.WithHardNegatives
    policy: !new:speechbrain_clsp.captions.policies.TwoCaptions
        global_probability: 0.6
    swap: !new:speechbrain_clsp.captions.perturbation.AttributeSwap
        tables: !name:speechbrain_clsp.mini_fcaps.wording.swap_tables
hard_negative_weight: 0.2
"""
TWO = """captions: !new:speechbrain_clsp.captions.policies.TwoCaptions
    global_probability: 0.6
"""
ONE = "captions: !new:speechbrain_clsp.captions.policies.OneFineCaption\n"
SCALED = """opt_class: !name:speechbrain_clsp.nnet.optim.ScaledAdam
    lr: !ref <lr>
    clipping_scale: 2.0
"""
ADAMW = "opt_class: !name:torch.optim.AdamW\n    lr: !ref <lr>\n"
HEADS = "\n    attribute_heads: !ref <attribute_heads>\n"  # among the modules
TEXT = "text_weight: 1.0"
BATCH, CHUNK = "batch_size: 32\n", "gradcache_chunk_seconds: null"
VARIANTS = {
    "mini.yaml": {},
    "one fine text per clip": {TWO: ONE, TEXT: "text_weight: 0.0"},
    "hard negatives": {TWO: HARD},
    "batch 128 by GradCache": {BATCH: "batch_size: 128\n", CHUNK: "gradcache_chunk_seconds: 100"},
    "AdamW, lr 0.001": {SCALED: ADAMW, "lr: 0.035": "lr: 0.001"},
    "without attribute heads": {HEADS: "\n"},
}


def write_variant(changes: dict[str, str], path: Path) -> None:
    """Write mini.yaml with the changes, every one of which must find its place."""
    text = (RECIPE / "hparams/mini.yaml").read_text(encoding="utf-8")
    folder = RECIPE.parents[2] / "hparams"
    text = text.replace("../../../../hparams", str(folder))
    for old, new in changes.items():
        if old not in text:
            raise ValueError(f"mini.yaml has no {old!r}: adapt VARIANTS")
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def train(yaml: Path, output: Path, options: argparse.Namespace, seed: int) -> dict:
    """Train once, unless it was done before; returns test figures in percent."""
    metrics = output / "metrics.json"
    if not metrics.is_file():
        command = [sys.executable, "train.py", str(yaml), "--device=cpu", "--noprogressbar"]
        settings = {
            "data_folder": options.folder / "data",
            "output_folder": output,
            "seed": seed,
            "n_train": options.clips,
            "number_of_epochs": options.epochs,
            "num_threads": options.threads,
        }
        command += [f"--{name}={value}" for name, value in settings.items()]
        subprocess.run(command, check=True, cwd=RECIPE, capture_output=True)
    retrieval = json.loads(metrics.read_text(encoding="utf-8"))["retrieval"]
    return {
        f"{kind} R@1": 100
        * statistics.mean(retrieval[kind][f"{way}_R@1"]["value"] for way in retrieval_ways())
        for kind in retrieval
    }


def retrieval_ways() -> tuple[str, str]:
    """Both directions."""
    return "speech_to_text", "text_to_speech"


def main() -> None:
    """Train every variant with every seed and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="for data and results")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clips", type=int, default=1200)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[dict]] = {name: [] for name in VARIANTS}
    for seed in options.seeds:  # all variants of a seed first: a table after a third of the time
        for number, (name, changes) in enumerate(VARIANTS.items()):
            yaml = options.folder / f"variant{number}.yaml"
            write_variant(changes, yaml)
            figures = train(yaml, options.folder / f"{number}_{seed}", options, seed)
            found[name].append(figures)
            print(json.dumps({"variant": name, "seed": seed, **figures}), flush=True)
    print("| variant | global R@1 | fine R@1 |\n|---|---|---|")
    for name, runs in found.items():
        cells = []
        for kind in ("global R@1", "fine R@1"):
            values = [run[kind] for run in runs]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.1f} +- {spread:.1f}")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
