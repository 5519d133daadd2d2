"""The command ``clsp judge``: which captions describe speech better, by a model or by people."""

from __future__ import annotations

import argparse
import random
from collections import Counter
from pathlib import Path
from typing import Any

from speechbrain_clsp.cli.boundary import INTERRUPTED, say
from speechbrain_clsp.cli.common import (
    add_command,
    check_folder,
    list_entries,
    open_manifest,
    whole_number,
)

RECORDS, RATINGS = "judge.jsonl", "ratings.sqlite"
OURS = "--manifest clips.arrow --captions ours=a.arrow cascaded=b.csv --output judged"


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the command and its sub-commands."""
    command = add_command(
        commands,
        run_report,
        "judge",
        "compare captions of several sources, by an audio LLM or by people (experimental)",
        f"clsp judge ask --config recipes/FCaps/annotation/judge.yaml {OURS}",
    )
    actions = command.add_subparsers(required=True, metavar="{ask,sheet,read,report}")
    ask = add_command(
        actions,
        run_ask,
        "ask",
        "ask an audio LLM which captions describe the clips better, then show the tables",
        f"clsp judge ask --config recipes/FCaps/annotation/judge.yaml {OURS}",
    )
    ask.add_argument("--config", help="a .yaml file with the section judge")
    ask.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="instead of the file's"
    )
    ask.add_argument(
        "--kinds",
        nargs="+",
        choices=("score", "pair"),
        default=("score", "pair"),
        help="scores of single captions, choices between two; default: both",
    )
    sheet = add_command(
        actions,
        run_sheet,
        "sheet",
        "write a sheet on which people score the captions",
        f"clsp judge sheet --clips 50 {OURS}",
    )
    for parser in (ask, sheet):
        parser.add_argument("--manifest", required=True, help="the clips")
        parser.add_argument(
            "--captions",
            required=True,
            nargs="+",
            metavar="NAME=FILE",
            help="each source's manifest (.arrow), or .csv or .jsonl with id and caption",
        )
        parser.add_argument(
            "--clips", type=whole_number(1), help="so many, drawn by --seed; default: all"
        )
    read = add_command(
        actions,
        run_read,
        "read",
        "read a sheet that somebody filled in, then show the tables; a corrected sheet is read"
        " again by the same command",
        "clsp judge read --sheet filled_by_ann.csv --rater ann --output judged",
    )
    read.add_argument("--sheet", required=True, help="the filled .csv file")
    read.add_argument("--rater", required=True, help="who filled it in")
    report = add_command(
        actions,
        run_report,
        "report",
        "show the tables of what is known so far",
        "clsp judge report --output judged",
    )
    for parser in (ask, sheet, read, report):
        parser.add_argument("--output", required=True, help="folder of records, sheet and tables")
        parser.add_argument("--seed", type=int, default=0, help="of draws; default: 0")


def run_ask(options: argparse.Namespace) -> int:
    """Ask the model, then show the tables."""
    from speechbrain_clsp.annotation import judge_jobs, read_records, read_settings, run_jobs

    changes = [f"judge.{change}" for change in [*options.set, f"seed={options.seed}"]]
    settings = read_settings(options.config, changes).judge
    rows, captions = choose_clips(options)
    jobs = list(judge_jobs(rows, captions, settings, options.kinds))
    records = Path(options.output) / RECORDS
    report = run_jobs(jobs, settings, records, len(jobs))
    if report.interrupted:
        say(f"interrupted after {report.done} answers; the same command goes on")
        return INTERRUPTED
    aside = records.with_suffix(".quarantine.jsonl")
    refused = list(read_records(aside))
    if refused:
        print(f"{len(refused)} questions have no answer and are left out; see {aside}:")
        reasons = Counter(record["reason"] for record in refused).most_common()
        lines = [f"{count} times: {reason}" for reason, count in reasons]
        print(list_entries(lines, aside.with_suffix(".txt")))
    if not report.done and not any(True for _ in read_records(records)):
        raise ValueError(
            f"No question was answered, {len(refused)} were refused, the last since"
            f" {refused[-1]['reason']}: correct the cause, delete {aside} and run again"
            if refused
            else "No question was asked: --kinds pair needs two sources in --captions"
        )
    print(f"{report.done} answers are new, {report.skipped} were there or left out before")
    run_report(options)
    return 0


def run_sheet(options: argparse.Namespace) -> None:
    """Write a sheet and its key."""
    from speechbrain_clsp.ratings import write_sheet

    rows, captions = choose_clips(options)
    sheet = Path(options.output) / "sheet.csv"
    key = write_sheet(sheet, rows, captions, options.seed)
    print(f"Give copies of {sheet} to raters, without {key}, and read them with")
    print(f"  clsp judge read --output {options.output} --sheet THEIRS.csv --rater NAME")


def run_read(options: argparse.Namespace) -> None:
    """Read a filled sheet into the store of ratings, then show the tables."""
    from speechbrain_clsp.ratings import SCORES, RatingStore, read_sheet

    output = Path(options.output)
    if not (output / "sheet.key.csv").is_file():
        raise FileNotFoundError(
            f"{output / 'sheet.key.csv'} is not there: --output must be the folder that clsp judge"
            " sheet wrote the sheet to"
        )
    ratings = read_sheet(options.sheet, output / "sheet.key.csv", options.rater)
    with RatingStore(output / RATINGS) as store:
        changed = store.add(ratings, SCORES, replace=True)
        known = sum(rating.rater == options.rater for rating in store.ratings())
    print(f"{changed} of {len(ratings)} scores of {options.rater} are new or changed")
    if known > len(ratings):
        print(f"{known - len(ratings)} earlier ones, which this sheet leaves empty, are kept")
    run_report(options)


def run_report(options: argparse.Namespace) -> None:
    """Write ``judge.json`` and ``judge.md`` and show the tables."""
    from speechbrain_clsp.annotation.records import read_records
    from speechbrain_clsp.annotation.verdicts import people_records, write_report
    from speechbrain_clsp.ratings import RatingStore

    output = Path(options.output)
    records = list(read_records(output / RECORDS)) if (output / RECORDS).is_file() else []
    if (output / RATINGS).is_file():
        with RatingStore(output / RATINGS) as store:
            records += people_records(store.ratings())
    if not records:
        raise ValueError(f"{output} has no answers: run clsp judge ask, or read, first")
    print(write_report(records, output, options.seed))


def choose_clips(
    options: argparse.Namespace,
) -> tuple[list[dict[str, Any]], dict[str, dict[str, str]]]:
    """Return the clips that all sources describe, and each source's captions by id."""
    from speechbrain_clsp.utils.files import parse_key_values

    check_folder(Path(options.output))
    files = parse_key_values(options.captions, "--captions")
    captions = {name: read_captions(path) for name, path in files.items()}
    common = set.intersection(*(set(found) for found in captions.values()))
    manifest = open_manifest(options.manifest)
    rows = [row for row in manifest if row["id"] in common]
    if not rows:
        first = {"the manifest": manifest[0]["id"]}
        first |= {name: next(iter(found), "none") for name, found in captions.items()}
        ids = ", ".join(f"of {name} {found}" for name, found in first.items())
        raise ValueError(
            "No clip of the manifest has a caption in all sources: do ids agree? The first are"
            f" {ids}"
        )
    if options.clips and options.clips < len(rows):
        rows = random.Random(options.seed).sample(rows, options.clips)
    return rows, captions


def read_captions(path: str) -> dict[str, str]:
    """Read a caption by id: a manifest's first fine one, or a file's column ``caption``."""
    from speechbrain_clsp.annotation.texts import read_texts
    from speechbrain_clsp.dataio.manifest import Manifest

    if not path.endswith(".arrow"):
        return read_texts(path, "caption")
    manifest = Manifest(path)
    pairs = zip(manifest.values("id"), manifest.values("fine_captions"))
    return {name: captions[0] for name, captions in pairs if captions}
