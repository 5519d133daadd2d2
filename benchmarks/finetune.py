#!/usr/bin/env python3
"""What `clsp finetune` learns from 300 clips, how long it takes, and what the model forgets.

The clips are those of benchmarks/own_data.py: five languages over a telephone, by new voices in the
test. The base model speaks of MiniFCaps, which is English. Printed are the zero-shot recognition of
the language, before and after, and the retrieval of MiniFCaps' test clips, before and after; with
``--rehearse`` MiniFCaps' training clips are a third of each batch.

> python benchmarks/finetune.py --folder /tmp/finetune --base results/mini/1986/model \
    --mini_fcaps data/mini_fcaps --rehearse
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

from own_data import make_clips

from speechbrain_clsp.evaluation.models import ClspModel
from speechbrain_clsp.evaluation.suites import run_suite
from speechbrain_clsp.training.finetuning import AFTER, BEFORE, describe_changes

CLIPS = {"train": 4, "test": 4}  # of each voice and language: 320 and 120


def main() -> None:
    """Make the clips, fine-tune, and print what was learned and what was forgotten."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="for clips and models")
    parser.add_argument("--base", required=True, help="model folder")
    parser.add_argument("--mini_fcaps", type=Path, required=True, help="prepared data")
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--tune", default="lora")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--settings", nargs="*", default=[], help="KEY=VALUE, for clsp finetune")
    options = parser.parse_args()
    table = options.folder / "clips.csv"
    if not table.is_file():
        make_clips(options.folder, CLIPS, options.seed)
    way = f"{options.tune}{'-rehearsed' if options.rehearse else ''}"
    output = options.folder / f"{way}-{options.seed}"
    command = [sys.executable, "-m", "speechbrain_clsp.cli", "finetune", str(table)]
    command += ["--base", options.base, "--tune", options.tune]
    command += ["--output", str(output), "--seed", str(options.seed)]
    if options.settings:
        command += ["--set", *options.settings]
    if options.rehearse:
        command += ["--rehearse", str(options.mini_fcaps / "train.arrow")]
    start = time.monotonic()
    subprocess.run(command, check=True)
    seconds = time.monotonic() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime  # of all cores, also where others use them
    print(f"{way}: {seconds:.0f} s, {cpu:.0f} s of CPU time. On MiniFCaps:")
    models = {AFTER: ClspModel.open(str(output / "model")), BEFORE: ClspModel.open(options.base)}
    test = options.mini_fcaps / "test.arrow"
    found = run_suite("mini", models, [test])
    print("\n".join(describe_changes(found, found.data[0]["rows"])))


if __name__ == "__main__":
    main()
