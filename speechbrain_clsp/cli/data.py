"""The commands of ``clsp`` that make, check and export manifests."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from speechbrain_clsp.cli.common import (
    add_command,
    add_reading_options,
    check_list,
    list_entries,
    open_manifest,
    reading_settings,
    whole_number,
    write_list,
)
from speechbrain_clsp.utils.checks import LISTED

LEAKAGE_KINDS = ("id", "speaker", "audio", "caption")


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the commands to a parser."""
    prepare = add_command(
        commands,
        run_prepare,
        "prepare",
        "validate recordings with captions and write a manifest to train and evaluate on",
        "clsp prepare data.csv --output train.arrow",
    )
    add_reading_options(prepare, "", "OUTPUT.bad.txt")
    prepare.add_argument("--output", required=True, help="the .arrow file to write")
    prepare.add_argument(
        "--n-jobs", type=whole_number(1, 1000), default=4, help="threads; default: 4"
    )
    leakage = add_command(
        commands,
        run_check_leakage,
        "check-leakage",
        "find test clips whose id, speaker, sound or caption occurs in the training data; exit"
        " code 1 if there are any",
        "clsp check-leakage train.arrow test.arrow --report leaks.json",
    )
    leakage.add_argument("train")
    leakage.add_argument("test")
    leakage.add_argument(
        "--kinds",
        nargs="+",
        choices=LEAKAGE_KINDS,
        default=LEAKAGE_KINDS,
        metavar="KIND",
        help=f"of {', '.join(LEAKAGE_KINDS)}; default: all",
    )
    leakage.add_argument("--report", help="a .json file that lists all leaks")
    export = add_command(
        commands,
        run_export_cuts,
        "export-cuts",
        "write a manifest as lhotse cuts, JSON lines",
        "clsp export-cuts train.arrow cuts.jsonl.gz",
    )
    export.add_argument("manifest")
    export.add_argument("output", help="a .jsonl or .jsonl.gz file")
    export.add_argument(
        "--no-headers", action="store_true", help="trust lengths and rates, open no audio file"
    )


def run_prepare(options: argparse.Namespace) -> None:
    """Write a manifest of the user's own data."""
    from speechbrain_clsp.prepare.columns import Columns
    from speechbrain_clsp.prepare.entry import ReadOptions
    from speechbrain_clsp.prepare.own_data import prepare_own

    settings = reading_settings(options)
    names, ignored = settings.pop("columns"), settings.pop("ignore_columns")
    reading = ReadOptions(columns=Columns(names, ignored, tell=print), **settings)
    bad_list = Path(f"{options.output}.bad.txt")
    check_list(bad_list)
    count, errors = prepare_own(
        options.source, options.output, options.skip_bad, options.n_jobs, options=reading
    )
    print(f"{count} clips written to {options.output}")
    write_list(bad_list, errors)
    if errors:
        print(f"{len(errors)} rows left out, see {bad_list}:")
        print(list_entries(errors, bad_list))


def run_check_leakage(options: argparse.Namespace) -> int:
    """Print the leaks; return 1 if there are any."""
    from speechbrain_clsp.prepare.leakage import check_leakage
    from speechbrain_clsp.utils.files import atomic_write, check_replaceable

    if options.report and not options.report.endswith(".json"):
        raise ValueError(f"{options.report}: the name of the report must end in .json")
    if options.report:
        check_replaceable(options.report, holds_leaks, "a report of leaks")
    test = open_manifest(options.test)
    report = check_leakage(test, open_manifest(options.train), options.kinds)
    for kind, count in report.counts.items():
        print(f"{kind}: {count or 'no'} leaks among {len(test)} test clips")
        for leak in report.of_kind(kind)[:LISTED]:
            print(f"  {leak.test} (test) and {leak.train} (train): {leak.detail}")
        if count > LISTED:
            where = options.report or "give --report FILE.json for all"
            print(f"  and {count - LISTED} more: {where}")
    if options.report:
        found = {"counts": report.counts, "leaks": [vars(leak) for leak in report.leaks]}
        atomic_write(options.report, json.dumps(found, indent=1, ensure_ascii=False))
    return int(bool(report))


def holds_leaks(path: Path) -> bool:
    """Return whether a file is the report of leaks of an earlier run."""
    found = json.loads(path.read_bytes())
    return isinstance(found, dict) and found.keys() == {"counts", "leaks"}


def run_export_cuts(options: argparse.Namespace) -> None:
    """Write a manifest as cuts."""
    from speechbrain_clsp.prepare.cuts import write_cuts

    if not options.output.endswith((".jsonl", ".jsonl.gz")):
        raise ValueError(f"{options.output}: the name must end in .jsonl or .jsonl.gz")
    count = write_cuts(options.output, open_manifest(options.manifest), not options.no_headers)
    print(f"{count} cuts written to {options.output}")
