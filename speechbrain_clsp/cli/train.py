"""The commands of ``clsp`` that train models."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from speechbrain_clsp.cli.common import add_command, check_device, check_folder, whole_number

HPARAMS = Path(__file__).parents[1] / "hparams"


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the commands to a parser."""
    train = add_command(
        commands,
        run_train,
        "train",
        "train a model on your own recordings and captions, and evaluate it",
        "clsp train my_clips.csv --output my_model",
    )
    train.add_argument("source", help="as for clsp prepare; or a manifest that it wrote")
    train.add_argument(
        "--output",
        required=True,
        help="the folder for model, report and checkpoints; the same command goes on with a"
        " training that was stopped",
    )
    train.add_argument(
        "--prompts",
        help="a file of prompts for the attributes; default: OUTPUT/prompts.json, which is made",
    )
    train.add_argument("--seed", type=whole_number(0), default=1986, help="default: 1986")
    train.add_argument("--epochs", type=whole_number(1), help="default: 10")
    train.add_argument("--device", default="cpu", help="such as cuda:0; default: cpu")
    train.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="other settings of the recipe, such as batch_size=16; own_data.yaml has them all",
    )
    train.add_argument("--skip-bad", action="store_true", help="leave bad rows out")
    train.add_argument(
        "--ignore-columns", nargs="+", default=[], metavar="NAME", help="columns to leave out"
    )


def run_train(options: argparse.Namespace) -> None:
    """Prepare a user's data, train on it, and report."""
    check_folder(Path(options.output))
    check_device(options.device)
    overrides = {
        "source": options.source,
        "output_folder": options.output,
        "seed": options.seed,
        "prompts": options.prompts,
        "skip_bad": options.skip_bad,
        "ignore_columns": options.ignore_columns,
    }
    if options.epochs is not None:
        overrides["number_of_epochs"] = options.epochs
    train_by(HPARAMS / "own_data.yaml", options.device, overrides, options.set)


def train_by(
    hparams_file: Path, device: str, overrides: dict[str, Any], settings: list[str]
) -> None:
    """Run a recipe with values that options gave, and with ``settings``, ``KEY=VALUE`` each."""
    import speechbrain as sb
    import yaml

    from speechbrain_clsp.training.recipe import run_recipe
    from speechbrain_clsp.training.yaml_keys import check_overrides

    wrong = [setting for setting in settings if "=" not in setting or setting.startswith("-")]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is no setting: write KEY=VALUE, such as batch_size=16")
    arguments = [str(hparams_file), f"--device={device}", *(f"--{each}" for each in settings)]
    _, run_opts, given = sb.parse_arguments(arguments)
    further = yaml.safe_load(given) or {}
    if twice := sorted(set(further) & set(overrides)):
        raise ValueError(f"{twice[0]} has an option of its own: see --help")
    check_overrides(hparams_file, further)
    run_recipe(hparams_file, run_opts, overrides | further)
