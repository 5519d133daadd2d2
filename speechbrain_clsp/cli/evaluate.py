"""The command ``clsp evaluate``: tables of one or several models."""

from __future__ import annotations

import argparse
import sqlite3
import zipfile
from collections.abc import Sequence
from contextlib import closing
from difflib import get_close_matches
from pathlib import Path

from speechbrain_clsp.cli.common import add_command, check_device, check_folder, open_manifest
from speechbrain_clsp.evaluation import SUITES

MAEB = "maeb"  # tasks of the library mteb, which brings its own data
MINI = Path("data/mini_fcaps")
RATED = ("similarity", "speech-similarity")  # of which --data is what people said
# What suites evaluate on if --data is not given.
DEFAULT_DATA = {"mini": MINI / "test.arrow", "probes": MINI / "probes.arrow"}
# Options of some suites only, and these suites.
SPECIAL = {
    "data": SUITES,
    "seed": SUITES,
    "tasks": (MAEB,),
    "prompts": ("mini", "zero-shot", "probes"),
    "pairs": ("probes",),
    "ensemble": ("mini", "zero-shot"),
    "train_manifest": ("mini", "fcaps", "zero-shot", "probes"),
    "audio_root": RATED,
}


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the command to a parser's subparsers."""
    command = add_command(
        commands,
        run_evaluate,
        "evaluate",
        "tables of retrieval, zero-shot classes, minimal pairs or style similarity, models side"
        " by side",
        "clsp evaluate --suite mini --model ours=results/mini/model random --output results/tables",
    )
    command.add_argument(
        "--model",
        nargs="+",
        required=True,
        help="[NAME=]SPEC: folder or Hub repository of a CLSP; clap:REPOSITORY for a CLAP of"
        " transformers; paraspeechclap:, paraclap: or voiceclap:REPOSITORY; file:EMBEDDINGS.npz; as"
        " bounds random, untrained:FOLDER, oracle:MANIFEST, bag-of-words:MANIFEST."
        " A repository may end in @REVISION",
    )
    suites = (*SUITES, MAEB)
    command.add_argument(
        "--suite",
        required=True,
        choices=suites,
        metavar="SUITE",
        help=f"what is evaluated: {', '.join(suites)}",
    )
    command.add_argument(
        "--data",
        nargs="+",
        help="manifests, or ratings for the suites similarity and speech-similarity; default for"
        f" mini and probes: {DEFAULT_DATA['mini']}, {DEFAULT_DATA['probes']}",
    )
    command.add_argument("--output", required=True, help="folder for metrics.json and tables")
    command.add_argument("--cache", help="SQLite file of embeddings; default: in --output")
    command.add_argument("--seed", type=int, default=0, help="of resampling")
    command.add_argument("--device", default="cpu", help="cpu, cuda, ...; default: cpu")
    pairs = command.add_argument_group("minimal pairs (suite probes)")
    pairs.add_argument(
        "--pairs",
        help="JSON lines of pairs; default: made from captions, or those of the default data",
    )
    classes = command.add_argument_group("classes (suites mini, zero-shot and probes)")
    classes.add_argument(
        "--prompts",
        help="prompt file or set, for probes in unseen wording; default: that of the data's source",
    )
    classes.add_argument(
        "--ensemble", action="store_true", help="use the prompt file's further wordings as well"
    )
    tasks = command.add_argument_group("tasks of MTEB (suite maeb)")
    tasks.add_argument(
        "--tasks",
        nargs="+",
        help="names, such as RavdessZeroshot CREMA_D IEMOCAPGender, or of a benchmark, MAEB; data"
        " are downloaded",
    )
    leaks = command.add_argument_group("leaks (suites mini, fcaps, zero-shot, probes)")
    leaks.add_argument("--train-manifest", help="training data, to look for leaks")
    people = command.add_argument_group("ratings (suites similarity and speech-similarity)")
    people.add_argument("--audio-root", help="folder of the ratings' clips; default: that of them")


def run_evaluate(options: argparse.Namespace) -> None:
    """Evaluate, write the results and print the tables."""
    for name, suites in SPECIAL.items():
        if getattr(options, name) and options.suite not in suites:
            raise ValueError(
                f"--{name.replace('_', '-')} is an option of the suites {', '.join(suites)}, not of"
                f" {options.suite}"
            )
    data, pairs = options.data, options.pairs
    if not data and options.suite in DEFAULT_DATA:
        data = [str(DEFAULT_DATA[options.suite])]
        if options.suite == "probes" and not pairs:
            pairs = str(MINI / "pairs.jsonl")
    needed = "tasks" if options.suite == MAEB else "data"
    if not (options.tasks if options.suite == MAEB else data):
        raise ValueError(f"--suite {options.suite} needs --{needed}")
    specs = _name_models(options.model)
    from speechbrain_clsp.evaluation.models import CachedModel, open_model
    from speechbrain_clsp.evaluation.report import write_results
    from speechbrain_clsp.evaluation.suites import run_suite
    from speechbrain_clsp.evaluation.tables import markdown_tables
    from speechbrain_clsp.utils.files import check_replaceable

    cache = Path(options.cache or Path(options.output) / "embeddings.sqlite")
    check_folder(Path(options.output))
    check_device(options.device)
    check_specs(list(specs.values()))
    check_replaceable(cache, holds_vectors, "a cache of embeddings")
    if options.suite == MAEB:
        from speechbrain_clsp.integrations import evaluate_tasks, load_tasks

        try:
            tasks = load_tasks(options.tasks)  # before models are opened, which may take long
        except ModuleNotFoundError as error:
            raise ValueError(str(error)) from error
    elif options.suite not in RATED:
        check_columns(data, options.prompts)
    models = {
        name: CachedModel(open_model(spec, options.device), cache) for name, spec in specs.items()
    }
    if options.suite == MAEB:
        evaluation = evaluate_tasks(models, tasks, Path(options.output) / "mteb")
    else:
        evaluation = run_suite(
            options.suite,
            models,
            data,
            prompts=options.prompts,
            pairs=pairs,
            ensemble=options.ensemble,
            train=options.train_manifest,
            audio_root=options.audio_root,
            seed=options.seed,
        )
    write_results(evaluation, options.output)
    print(markdown_tables(evaluation))


def check_specs(specs: Sequence[str]) -> None:
    """Raise if a file of embeddings that a specification names is none, or was cut off."""
    for spec in specs:
        kind, _, path = spec.partition(":")
        if kind == "file" and not Path(path).is_file():
            raise FileNotFoundError(f"--model {spec}: there is no file {path}")
        if kind == "file" and not zipfile.is_zipfile(path):
            raise ValueError(f"--model {spec}: {path} is not an .npz file, or was cut off")


def holds_vectors(path: Path) -> bool:
    """Return whether a file is a cache of embeddings; raise ValueError if it is no database."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as base:
            tables = base.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    except sqlite3.Error as error:
        raise ValueError(f"{path} is no SQLite database: {error}") from error
    return {name for (name,) in tables} <= {"vectors"}


def check_columns(paths: Sequence[str], prompts: str | None) -> None:
    """Raise ValueError if a manifest has no column that a task of the prompt file names.

    So it is found before models are loaded; manifests that cannot be used raise by themselves.
    """
    from speechbrain_clsp.evaluation.zero_shot import read_tasks

    tasks = read_tasks(prompts) if prompts else []
    for path in paths:
        manifest = open_manifest(path)
        if not tasks:
            continue
        known = set(manifest[0]) - {"labels"}
        known |= {f"labels.{key}" for labels in manifest.values("labels") for key in dict(labels)}
        for task in tasks:
            if task.column not in known:
                near = get_close_matches(task.column, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(sorted(known))}"
                raise ValueError(
                    f"{prompts}, task {task.name!r}: {path} has no column {task.column}: {hint}"
                )


def _name_models(words: list[str]) -> dict[str, str]:
    """Return specifications by name, from words NAME=SPEC; without one, the spec is the name."""
    models: dict[str, str] = {}
    for word in words:
        name, _, spec = word.partition("=")
        if name in models or not name:
            raise ValueError(f"--model {word}: every model needs a name of its own, NAME=SPEC")
        models[name] = spec or name
    return models
