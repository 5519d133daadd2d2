#!/usr/bin/env python3
"""Results of the MiniFCaps recipe over several seeds, and without single parts of it.

Trains hparams/mini.yaml, and variants that lack one part, with every seed, and prints the mean and
the spread of retrieval, probes and zero-shot classification on the test set. Trainings that are
complete in --folder are not repeated.

The results of README, three trainings at a time:

> python benchmarks/seeds.py --folder /tmp/seeds --jobs 3

What each part gives, in trainings of a third of the length:

> python benchmarks/seeds.py --folder /tmp/parts --jobs 2 --clips 4000 --variants all
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path

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
    "without attribute heads": ["--attribute_weight=0"],
    "clean speech only": ["--recorded=0"],
}
DATA_OPTIONS = ("--twins", "--recorded")
PROBES = ("attribute", "order", "direction", "place", "event", "binding")
TASKS = ("gender", "speaking rate", "pitch", "accent", "loudness", "whisper", "change")


def train(job: tuple[int, str], options: argparse.Namespace) -> dict[str, float]:
    """Train with a seed a variant, unless that was done before; return its results in percent."""
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
    results = dict(read_results(output / "metrics.json"))
    print(json.dumps({"variant": variant, "seed": seed, **results}), flush=True)
    return results


def data_folder(variant: str, options: argparse.Namespace) -> Path:
    """Return the folder of a variant's data: some variants have data of their own."""
    changes = [o for o in VARIANTS[variant] if o.startswith(DATA_OPTIONS)]
    return options.folder / "_".join(["data", *changes]).replace("--", "").replace("=", "_")


def read_results(path: Path) -> Iterator[tuple[str, float]]:
    """Yield the names and values [%] of what is compared."""
    tables = json.loads(path.read_text(encoding="utf-8"))["tables"]

    def value(table: str, row: str) -> float:
        (columns,) = tables[table].values()
        return 100 * columns[row]["value"]

    for captions in ("global", "fine"):
        ways = ("speech_to_text", "text_to_speech")
        yield f"{captions} R@1", statistics.mean(value(captions, f"{way}_R@1") for way in ways)
    for probe in PROBES:
        for side in ("captions", "clips"):
            yield (
                f"{probe}, {side}",
                statistics.mean(
                    100 * cell["value"]
                    for columns in tables["probes"].values()
                    for name, cell in columns.items()
                    if name.startswith(f"{probe}: ") and name.endswith(f", {side}")
                ),
            )
    for task in TASKS:
        yield f"{task} UAR", value(task, "UAR")


def main() -> None:
    """Train every variant with every seed and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="for data and results")
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
    options.folder = options.folder.absolute()
    options.folder.mkdir(parents=True, exist_ok=True)
    variants = list(VARIANTS) if "all" in options.variants else options.variants
    jobs = list(product(options.seeds, variants))  # a table of one seed after a third of the time
    prepare(variants, options)
    with ThreadPoolExecutor(options.jobs) as pool:
        results = dict(zip(jobs, pool.map(partial(train, options=options), jobs)))
    print(f"| mean +- standard deviation of {len(options.seeds)} seeds | {' | '.join(variants)} |")
    print("|---" * (1 + len(variants)) + "|")
    for row in next(iter(results.values())):
        cells = []
        for variant in variants:
            values = [results[seed, variant][row] for seed in options.seeds]
            spread = f" +- {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{spread}")
        print(f"| {row} | {' | '.join(cells)} |")


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
