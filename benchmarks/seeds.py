#!/usr/bin/env python3
"""Results of the MiniFCaps recipe over several seeds, and without single parts of it.

Trains hparams/mini.yaml, and variants that lack one part, with every seed, and prints the mean and
the standard deviation of retrieval, zero-shot classification and probes on the test set. Trainings
that are complete in --folder are not repeated, and those that are complete elsewhere are named by
--finished, instead of training.

The table of README, three trainings at a time, or of those of make demo with three seeds:

> python benchmarks/seeds.py --folder /tmp/seeds --jobs 3
> python benchmarks/seeds.py --finished results/mini results/mini_1987 results/mini_1988

What each part gives, in trainings of a third of the length:

> python benchmarks/seeds.py --folder /tmp/parts --jobs 2 --clips 4000 --variants all
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from hyperpyyaml import load_hyperpyyaml

RECIPE = Path(__file__).parents[1] / "recipes/FCaps/CLSP"
VARIANTS = {
    "mini.yaml": [],
    "mean pooling, as published": ["--model={speech_tower: {moments: 0}}"],
    "without spectral variation": ["--model={speech_tower: {variation_gain: null}}"],
    "negatives in attributes only": ["--swap_weights=[1, 0, 0, 0, 0, 0]"],
    "without negatives": ["--hard_negative_weight=0"],
    "without twins": ["--twins=False"],
    "without prompts": ["--prompt_weight=0"],
    "without attribute heads on captions": ["--caption_attribute_weight=0"],
    "without attribute heads": ["--attribute_weight=0", "--caption_attribute_weight=0"],
    "clean speech only": ["--recorded=0"],
    "windows of 25 ms": ["--model={window_seconds: 0.025, feature_mean: -6.6}"],
}
DATA_OPTIONS = ("--twins", "--recorded")
PROBES = ("attribute", "order", "direction", "place", "event", "binding")
TASKS = ("gender", "speaking rate", "pitch", "accent", "loudness", "whisper", "change")
WAYS = ("speech_to_text", "text_to_speech")
Results = dict[str, tuple[float, ...]]  # one value in a row, or one for each of two sides [%]


def train(job: tuple[int, str], options: argparse.Namespace) -> Results:
    """Train with a seed a variant, unless that was done before; return its results."""
    seed, variant = job
    number = list(VARIANTS).index(variant)
    output = options.folder / f"{number}_{seed}"
    if not (output / "metrics.json").is_file():
        settings = {
            "data_folder": data_folder(variant, options),
            "output_folder": output,
            "seed": seed,
            "n_train": options.clips,
            "number_of_epochs": options.epochs,
            "num_threads": 1,
        }
        overrides = [f"--{name}={value}" for name, value in settings.items()]
        command = [sys.executable, "train.py", "hparams/mini.yaml", "--device=cpu"]
        command += ["--noprogressbar", *overrides, *VARIANTS[variant]]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with open(options.folder / f"{number}_{seed}.log", "w", encoding="utf-8") as log:
            subprocess.run(command, check=True, cwd=RECIPE, env=environment, stdout=log, stderr=log)
    results = read_results(read_metrics(output))
    print(json.dumps({"variant": variant, "seed": seed, **results}), flush=True)
    return results


def data_folder(variant: str, options: argparse.Namespace) -> Path:
    """Return the folder of a variant's data: some variants have data of their own."""
    changes = [o for o in VARIANTS[variant] if o.startswith(DATA_OPTIONS)]
    return options.folder / "_".join(["data", *changes]).replace("--", "").replace("=", "_")


def read_metrics(folder: Path) -> dict[str, Any]:
    """Return the metrics of a training that has ended."""
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def read_results(metrics: dict[str, Any], key: str = "value") -> Results:
    """Return what is compared; ``key`` may also be "chance"."""

    def value(table: str, row: str) -> float:
        (columns,) = metrics["tables"][table].values()
        return 100 * columns[row][key]

    (probes,) = metrics["tables"]["probes"].values()
    results: Results = {}
    for captions in ("global", "fine"):
        name = f"R@1 of {captions} captions, speech to text / text to speech"
        results[name] = tuple(value(captions, f"{way}_R@1") for way in WAYS)
    results["mean R@1"] = (statistics.mean(v for pair in results.values() for v in pair),)
    for task in TASKS:
        results[f"zero-shot {task}, unweighted recall"] = (value(task, "UAR"),)
    for probe in PROBES:
        results[f"probe of {probe}, a false caption / a false clip"] = tuple(
            statistics.mean(
                value("probes", name)
                for name in probes
                if name.startswith(f"{probe}: ") and name.endswith(f", {side}")
            )
            for side in ("captions", "clips")
        )
    return results


def table(columns: dict[str, list[Results]], chance: Results, title: str) -> str:
    """Return a Markdown table: a row per result, a column per variant with its seeds' results."""
    lines = [f"| {title} | {' | '.join(columns)} | chance |", "|---" * (2 + len(columns)) + "|"]
    for row, by_chance in chance.items():
        cells = [cell([results[row] for results in column]) for column in columns.values()]
        guess = dict.fromkeys(f"{value:.1f}" for value in by_chance)
        lines.append(f"| {row} | {' | '.join(cells)} | {' / '.join(guess)} |")
    return "\n".join(lines)


def cell(values: list[tuple[float, ...]]) -> str:
    """Return the mean and, of more than one seed, the standard deviation of each side."""
    sides = []
    for side in zip(*values, strict=True):
        spread = f" ± {statistics.stdev(side):.1f}" if len(side) > 1 else ""
        sides.append(f"{statistics.mean(side):.1f}{spread}")
    return " / ".join(sides)


def title_of(seeds: list[int]) -> str:
    """Return what the first column is headed by."""
    kind = "%" if len(seeds) == 1 else "%, mean ± standard deviation"
    return f"{kind}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def summarize(folders: list[Path]) -> str:
    """Return the table of trainings that differ in their seed alone."""
    for folder in folders:
        if not (folder / "metrics.json").is_file():
            raise SystemExit(f"{folder} has no metrics.json: its training has not ended")
    runs = [read_metrics(folder) for folder in folders]
    seeds = [run["seed"] for run in runs]
    if len(set(seeds)) < len(seeds):
        raise SystemExit(f"--finished wants trainings of different seeds, and these have {seeds}")
    for folder, run in zip(folders, runs, strict=True):
        if tested_on(run) != tested_on(runs[0]):
            raise SystemExit(f"{folder} and {folders[0]} were tested on different data")
    columns = {"mini.yaml": [read_results(run) for run in runs]}
    return table(columns, read_results(runs[0], "chance"), title_of(seeds))


def tested_on(metrics: dict[str, Any]) -> list[tuple[str, int, str]]:
    """Return names, sizes and hashes of the data; manifests' hashes depend on where audio lies."""
    return [
        (d["name"], d["rows"], "" if d["name"].endswith(".arrow") else d["sha256"])
        for d in metrics["data"]
    ]


def main() -> None:
    """Train every variant with every seed, unless they are named, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--folder", type=Path, help="for data and results")
    where.add_argument(
        "--finished",
        type=Path,
        nargs="+",
        metavar="FOLDER",
        help="of trainings of mini.yaml that have ended, one of each seed",
    )
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, of one thread")
    parser.add_argument("--clips", type=int, default=12000, help="of the training set")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1986, 1987, 1988])
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=[*VARIANTS, "all"],
        default=["mini.yaml"],
        help="what is compared",
    )
    options = parser.parse_args()
    if options.finished:
        print(summarize(options.finished))
        return
    options.folder = options.folder.absolute()
    options.folder.mkdir(parents=True, exist_ok=True)
    variants = list(VARIANTS) if "all" in options.variants else options.variants
    jobs = list(product(options.seeds, variants))  # a table of one seed after a third of the time
    prepare(variants, options)
    with ThreadPoolExecutor(options.jobs) as pool:
        results = dict(zip(jobs, pool.map(partial(train, options=options), jobs), strict=True))
    columns = {name: [results[seed, name] for seed in options.seeds] for name in variants}
    first = options.folder / f"{list(VARIANTS).index(variants[0])}_{options.seeds[0]}"
    print(table(columns, read_results(read_metrics(first), "chance"), title_of(options.seeds)))


def prepare(variants: list[str], options: argparse.Namespace) -> None:
    """Make the data before several trainings want it."""
    sys.path.insert(0, str(RECIPE))
    for variant in variants:
        settings = [f"--data_folder={data_folder(variant, options)}", f"--n_train={options.clips}"]
        settings += [o for o in VARIANTS[variant] if o.startswith(DATA_OPTIONS)]
        overrides = "\n".join(o.removeprefix("--").replace("=", ": ") for o in settings)
        with open(RECIPE / "hparams/mini.yaml", encoding="utf-8") as file:
            load_hyperpyyaml(file, overrides)["prepare_data"]()


if __name__ == "__main__":
    main()
