#!/usr/bin/env python3
"""Recipe for the tables of the CLSP paper: several models side by side on the same data.

> python evaluate.py hparams/evaluate.yaml --suite=fcaps --test_data=/data/fcaps/test.arrow \
    --models="{ours: results/stage2/model, published: yfyeung/CLSP, random: random}"

``clsp evaluate`` does the same from the command line.
"""

import sys

import speechbrain as sb
from hyperpyyaml import load_hyperpyyaml

from speechbrain_clsp.evaluation.suites import fill_tables


def main() -> None:
    """Evaluate the models, write the tables and print them."""
    hparams_file, run_opts, overrides = sb.parse_arguments(sys.argv[1:])
    with open(hparams_file, encoding="utf-8") as fin:
        hparams = load_hyperpyyaml(fin, overrides)
    sb.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )
    data = hparams["test_data"]
    tables = fill_tables(
        hparams["suite"],
        hparams["models"],
        [data] if isinstance(data, str) else data,
        hparams["output_folder"],
        hparams["cache"],
        run_opts.get("device", "cpu"),
        prompts=hparams["prompts"],
        ensemble=hparams["ensemble"],
        train=hparams["train_manifest"],
        audio_root=hparams["audio_root"],
        beyond=hparams["beyond_paper"],
        seed=hparams["seed"],
    )
    print(tables)


if __name__ == "__main__":
    main()
