#!/usr/bin/env python3
"""Evaluate a CLSP on a test manifest: metrics.json, report.html and a table.

> python evaluate.py --model results/mini/model --manifest data/mini_fcaps/test.arrow \
    --output results/mini --training_log results/mini/train_log.txt

Authors
 * The speechbrain-clsp authors 2026
"""

import argparse
import sys

from speechbrain_clsp import CLSP
from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.evaluation.suite import evaluate, format_table


def main() -> int:
    """Run the evaluation; returns 2 after a mistake in the arguments."""
    parser = argparse.ArgumentParser(
        description="Evaluate a CLSP by retrieval and zero-shot classification.",
        epilog="example: python evaluate.py --model results/mini/model"
        " --manifest data/mini_fcaps/test.arrow --output results/mini",
    )
    parser.add_argument("--model", required=True, help="model folder or Hub repository")
    parser.add_argument("--manifest", required=True, help="test clips, an .arrow file")
    parser.add_argument("--output", required=True, help="folder for metrics.json and report.html")
    parser.add_argument("--prompts", default="mini", help="zero-shot prompts; default: mini")
    parser.add_argument("--training_log", help="train_log.txt, for the report's curves")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap")
    options = parser.parse_args()
    try:
        metrics = evaluate(
            CLSP.from_hparams(options.model, run_opts={"device": options.device}),
            Manifest(options.manifest),
            options.prompts,
            options.output,
            options.training_log,
            model_name=options.model,
            seed=options.seed,
        )
    except (OSError, ValueError) as error:
        print(f"evaluate.py: error: {error}", file=sys.stderr)
        return 2
    print(format_table(metrics))
    return 0


if __name__ == "__main__":
    sys.exit(main())
