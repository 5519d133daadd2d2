"""The commands of ``clsp`` that train models."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from speechbrain_clsp.cli.common import (
    add_command,
    add_reading_options,
    check_device,
    check_folder,
    reading_settings,
    whole_number,
)

HPARAMS = Path(__file__).parents[1] / "hparams"
LOG_CONFIG = Path(__file__).with_name("log_config.yaml")


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the commands to a parser."""
    train = add_command(
        commands,
        run_train,
        "train",
        "train a model on your own recordings and captions, and evaluate it",
        "clsp train my_clips.csv --output my_model",
    )
    add_options(train, "own_data.yaml", epochs=10)
    finetune = add_command(
        commands,
        run_finetune,
        "finetune",
        "let a pretrained model learn from your own recordings and captions, and compare the two",
        "clsp finetune my_clips.csv --base yfyeung/CLSP --output my_model",
    )
    add_options(finetune, "finetune.yaml", epochs=6)
    finetune.add_argument(
        "--base", required=True, help="the model to start from: a folder or a Hub repository"
    )
    finetune.add_argument("--revision", help="of the Hub repository")
    finetune.add_argument(
        "--trust-hparams",
        action="store_true",
        help="run the hyperparams.yaml, which is code, of a Hub repository that has one",
    )
    finetune.add_argument(
        "--tune",
        choices=("lora", "heads"),
        default="lora",
        help="low-rank adapters of both towers, or their heads alone; default: lora",
    )
    finetune.add_argument(
        "--rank", type=whole_number(1), help="of the adapters that lora trains; default: 8"
    )
    finetune.add_argument(
        "--layers",
        nargs="+",
        metavar="NAME",
        help="layers of both towers that get adapters, such as 'encoder.*.in_proj' 'head.*';"
        " default: all linear ones and attention",
    )
    finetune.add_argument(
        "--rehearse",
        metavar="MANIFEST",
        help="old training data, a third of each batch, so that less of it is forgotten",
    )


def add_options(command: argparse.ArgumentParser, recipe: str, epochs: int) -> None:
    """Add what all commands have that train on a user's data, by a recipe with default epochs."""
    add_reading_options(command, "; or a manifest of clsp prepare", "OUTPUT/left_out.txt")
    command.add_argument(
        "--output",
        required=True,
        help="the folder for model, report and checkpoints; the same command goes on with a"
        " training that was stopped",
    )
    command.add_argument(
        "--prompts",
        help="a file of prompts for the attributes; default: OUTPUT/prompts.json, which is made",
    )
    command.add_argument("--seed", type=whole_number(0), default=1986, help="default: 1986")
    command.add_argument("--epochs", type=whole_number(1), help=f"default: {epochs}")
    command.add_argument("--device", default="cpu", help="such as cuda:0; default: cpu")
    command.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help=f"other settings of the recipe, such as batch_size=16; {recipe} has them all",
    )


def run_train(options: argparse.Namespace) -> None:
    """Prepare a user's data, train on it, and report."""
    train_by("own_data.yaml", options, {})


def run_finetune(options: argparse.Namespace) -> None:
    """Prepare a user's data, train adapters of a base model on it, and compare the two models."""
    of_lora = {name: getattr(options, name) for name in ("rank", "layers")}
    given = {name: value for name, value in of_lora.items() if value is not None}
    if options.tune == "heads" and given:
        raise ValueError(
            f"--{' and --'.join(given)} would do nothing: --tune heads trains the heads themselves,"
            " without adapters; leave it out, or take --tune lora"
        )
    names = ("base", "revision", "trust_hparams", "tune", "rehearse")
    train_by("finetune.yaml", options, {name: getattr(options, name) for name in names} | given)


def train_by(recipe: str, options: argparse.Namespace, own: dict[str, Any]) -> None:
    """Run a recipe with the values that the options of a command gave, ``own`` ones included."""
    import speechbrain as sb

    from speechbrain_clsp.training.recipe import run_recipe
    from speechbrain_clsp.training.yaml_keys import parse_settings

    check_folder(Path(options.output))
    check_device(options.device)
    overrides = (
        own
        | reading_settings(options)
        | {
            "source": options.source,
            "output_folder": options.output,
            "seed": options.seed,
            "prompts": options.prompts,
            "skip_bad": options.skip_bad,
        }
    )
    if options.epochs is not None:
        overrides["number_of_epochs"] = options.epochs
    hparams_file = HPARAMS / recipe
    further = parse_settings(hparams_file, options.set)
    if twice := sorted(set(further) & set(overrides)):
        raise ValueError(f"{twice[0]} has an option of its own: see --help")
    run_opts = sb.core.RunOptions.from_dictionary(
        {"device": options.device, "log_config": str(LOG_CONFIG)}
    )
    logging.disable(logging.NOTSET)  # for log.txt; what the user sees of it is up to LOG_CONFIG
    logging.getLogger().addHandler(logging.NullHandler())  # until that is in force
    run_recipe(hparams_file, run_opts, overrides | further)
