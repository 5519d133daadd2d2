"""The command ``clsp judge``: which captions describe speech better, by a model or by people."""

from __future__ import annotations

import argparse
import csv
import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

RECORDS = "judge.jsonl"
ACTIONS = ("ask", "sheet", "read", "report")


def add_judge(commands, add_command: Callable) -> None:
    """Add the command.

    Arguments
    ---------
    commands : argparse subparsers
        Where it goes.
    add_command : callable
        (commands, run, name, description, example) -> parser, as in
        :mod:`speechbrain_clsp.cli.main`.
    """
    command = add_command(
        commands,
        run_judge,
        "judge",
        "compare captions of several sources: ask a model that hears (ask), let people score"
        " (sheet, then read), show tables (report)",
        "clsp judge ask --config recipes/FCaps/annotation/judge.yaml --manifest clips.arrow"
        " --captions ours=a.arrow cascaded=b.csv --output judged",
    )
    command.add_argument("action", choices=ACTIONS)
    command.add_argument("--output", required=True, help="folder for records, sheet and tables")
    command.add_argument("--manifest", help="ask, sheet: the clips")
    command.add_argument(
        "--captions",
        nargs="+",
        default=[],
        metavar="NAME=FILE",
        help="ask, sheet: each source's manifest (.arrow), or .csv or .jsonl with id and caption",
    )
    command.add_argument("--clips", type=int, help="ask, sheet: so many, drawn by --seed")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--config", help="ask: a .yaml file with the section judge")
    command.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="ask: instead of the file's"
    )
    command.add_argument("--kinds", nargs="+", choices=("score", "pair"), default=("score", "pair"))
    command.add_argument("--sheet", help="read: the filled .csv; its .key.csv must lie beside it")
    command.add_argument("--rater", help="read: who filled it in")


def run_judge(options: argparse.Namespace) -> None:
    """Do what is asked, then show the tables if there are records."""
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    {"ask": _ask, "sheet": _sheet, "read": _read, "report": _report}[options.action](
        options, output
    )


def _ask(options: argparse.Namespace, output: Path) -> None:
    from speechbrain_clsp.annotation.config import read_judge_settings
    from speechbrain_clsp.annotation.judge import judge_jobs
    from speechbrain_clsp.annotation.run import run_jobs

    settings = read_judge_settings(options.config, [*options.set, f"seed={options.seed}"])
    rows, captions = chosen(options)
    jobs = list(judge_jobs(rows, captions, settings, options.kinds))
    price = tuple(settings.price) if settings.price else None
    limits = {"total": len(jobs), "price": price, "failure_limit": settings.failure_limit}
    run_jobs(jobs, settings.client(), output / RECORDS, **limits)
    _report(options, output)


def _sheet(options: argparse.Namespace, output: Path) -> None:
    from speechbrain_clsp.ratings.sheet import write_sheet

    rows, captions = chosen(options)
    key = write_sheet(output / "sheet.csv", rows, captions, options.seed)
    print(f"Give copies of {output / 'sheet.csv'} to raters, without {key}, and read them with")
    print(f"  clsp judge read --output {output} --sheet THEIRS.csv --rater NAME")


def _read(options: argparse.Namespace, output: Path) -> None:
    from speechbrain_clsp.annotation.records import Records
    from speechbrain_clsp.ratings.sheet import read_sheet

    if not options.sheet or not options.rater:
        raise ValueError("clsp judge read needs --sheet and --rater")
    scores = list(read_sheet(options.sheet, output / "sheet.key.csv", options.rater))
    with Records(output / RECORDS) as records:
        count = sum(records.append(score) for score in scores)
    print(f"{count} items of {options.rater} read")
    _report(options, output)


def _report(options: argparse.Namespace, output: Path) -> None:
    """Write ``judge.json`` and ``judge.md`` and show the tables."""
    from speechbrain_clsp.annotation.records import read_records
    from speechbrain_clsp.annotation.verdicts import (
        agreement_table,
        judge_agreement,
        judge_figures,
        verdict_tables,
    )
    from speechbrain_clsp.evaluation.tables import pipes

    if not (output / RECORDS).is_file():
        raise ValueError(f"{output} has no {RECORDS}: run clsp judge ask, or read, first")
    records = list(read_records(output / RECORDS))
    figures: dict[str, Any] = {}
    parts = ["# Judges\n", f"{len(records)} answers; in brackets, 95 % bootstrap intervals.\n"]
    for judge in sorted({record["judge"] for record in records}):
        ours = [record for record in records if record["judge"] == judge]
        figures[judge] = judge_figures(ours, options.seed)
        for title, rows in verdict_tables(figures[judge]).items():
            parts.append(f"## {judge}: {title}\n\n{pipes(rows)}")
    agreement = judge_agreement(records)
    if agreement:
        parts.append(f"## Judges compared\n\n{pipes(agreement_table(agreement))}")
    text = json.dumps({"judges": figures, "agreement": agreement}, indent=1)
    (output / "judge.json").write_text(text + "\n", encoding="utf-8")
    (output / "judge.md").write_text("\n".join(parts), encoding="utf-8")
    print("\n".join(parts))


def chosen(options: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, dict[str, str]]]:
    """Return the clips that all sources describe, and each source's captions by id.

    Raises
    ------
    ValueError
        If names are missing or double, or no clip is common to all.
    """
    from speechbrain_clsp.dataio.manifest import Manifest

    if not options.manifest or not options.captions:
        raise ValueError(f"clsp judge {options.action} needs --manifest and --captions")
    captions: dict[str, dict[str, str]] = {}
    for word in options.captions:
        name, equals, path = word.partition("=")
        if not equals or name in captions:
            raise ValueError(f"--captions {word}: must be NAME=FILE, each name once")
        captions[name] = read_captions(path)
    common = set.intersection(*(set(found) for found in captions.values()))
    rows = [row for row in Manifest(options.manifest) if row["id"] in common]
    if not rows:
        raise ValueError("No clip of the manifest has a caption in all sources: do ids agree?")
    if options.clips and options.clips < len(rows):
        rows = random.Random(options.seed).sample(rows, options.clips)
    return rows, captions


def read_captions(path: str) -> dict[str, str]:
    """Read one caption per clip: a manifest's first fine one, or a file's column ``caption``.

    Raises
    ------
    ValueError
        If a line has no id or caption; names it.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.jsonl"
    >>> _ = path.write_text('{"id": "a", "caption": "A man."}')
    >>> read_captions(str(path))
    {'a': 'A man.'}
    """
    if path.endswith(".arrow"):
        from speechbrain_clsp.dataio.manifest import Manifest

        manifest = Manifest(path)
        pairs = zip(manifest.values("id"), manifest.values("fine_captions"))
        return {name: captions[0] for name, captions in pairs if captions}
    found = {}
    with open(path, encoding="utf-8", newline="") as file:
        lines = csv.DictReader(file) if path.endswith(".csv") else map(json.loads, file)
        for number, line in enumerate(lines, start=1):
            if not isinstance(line, Mapping) or not line.get("id") or not line.get("caption"):
                raise ValueError(f"{path}, entry {number}: needs id and caption")
            found[line["id"]] = line["caption"]
    return found
