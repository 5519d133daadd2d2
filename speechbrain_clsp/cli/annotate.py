"""The command ``clsp annotate``: captions of a corpus, written and checked by models on servers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechbrain_clsp.cli.boundary import INTERRUPTED, say
from speechbrain_clsp.cli.common import (
    add_command,
    add_ray_option,
    check_folder,
    open_manifest,
    whole_number,
)

if TYPE_CHECKING:
    from speechbrain_clsp.annotation import Annotation, AnnotationSettings
    from speechbrain_clsp.dataio.manifest import Manifest

RELEASE = "release"
STAGE_NAMES = ("caption", "verify", "filter", "select", RELEASE)


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    command = add_command(
        commands,
        run_annotate,
        "annotate",
        "write captions of a corpus in stages (experimental); run again to go on",
        "clsp annotate recipes/FCaps/annotation/emilia.yaml --manifest clips.arrow"
        " --output annotated --shard 0/8",
    )
    command.add_argument("config", help="a .yaml file, see recipes/FCaps/annotation")
    command.add_argument("--manifest", required=True, help="the clips, from clsp prepare")
    command.add_argument("--output", required=True, help="folder for records and the release")
    command.add_argument(
        "--stage",
        nargs="+",
        choices=STAGE_NAMES,
        metavar="STAGE",
        help=f"of {', '.join(STAGE_NAMES)}; default: all in order, with --shard all but release",
    )
    command.add_argument(
        "--shard",
        type=read_shard,
        default=(0, 1),
        metavar="I/N",
        help="work on part I, from 0, of N parts",
    )
    add_ray_option(command)
    command.add_argument(
        "--shards",
        type=whole_number(1),
        default=8,
        metavar="N",
        help="parts that the tasks of --ray are; default: 8",
    )
    command.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="SECTION.NAME=VALUE",
        help="instead of what the file says, such as caption.base_url=http://host:8000/v1",
    )


def run_annotate(options: argparse.Namespace) -> int:
    """Run stages and print what each did; an interrupt ends them after what is in flight."""
    from speechbrain_clsp.annotation import Annotation, read_settings, write_release
    from speechbrain_clsp.annotation.stages import STAGES

    settings = read_settings(options.config, options.set)
    manifest = open_manifest(options.manifest)
    check_folder(Path(options.output))
    if options.ray and options.shard[1] > 1:
        raise ValueError("--ray works on all shards: leave --shard out")
    all_stages = STAGES if options.shard[1] > 1 else (*STAGES, RELEASE)
    stages = options.stage or all_stages
    if options.ray:
        if shared := [stage for stage in stages if stage != RELEASE]:
            _run_on_ray(options, settings, manifest, shared)
        stages = [stage for stage in stages if stage == RELEASE]
    annotation = Annotation(options.output, manifest, settings, options.shard)
    for stage in stages:
        if stage == RELEASE:
            folder = f"{options.output}/{RELEASE}"
            made = write_release(options.output, manifest, folder)
            print(
                f"release: {made['captions']} captions of {made['clips']} clips,"
                f" {made['hours']:.2f} hours, {made['vocabulary']} words\n"
                f"Manifest, cuts and datasheet.html are in {folder}"
            )
        else:
            done = annotation.run(stage)
            _show(annotation, stage, done)
            if done.get("interrupted"):
                say(f"interrupted in the stage {stage}; the same command goes on")
                return INTERRUPTED
    return 0


def _run_on_ray(
    options: argparse.Namespace,
    settings: AnnotationSettings,
    manifest: Manifest,
    stages: list[str],
) -> None:
    """Run stages over all shards, in tasks of a cluster."""
    from speechbrain_clsp.annotation.pipeline import Annotation, ShardTask
    from speechbrain_clsp.utils.cluster import RayCluster

    count = options.shards
    task = ShardTask(options.output, options.manifest, settings, count, stages)
    with RayCluster(options.ray) as cluster:
        for shard, found in cluster.run(task, range(count)):
            annotation = Annotation(options.output, manifest, settings, (shard, count))
            for stage, done in found.items():
                _show(annotation, stage, done, f"shard {shard} of {count}, ")


def _show(annotation: Annotation, stage: str, done: dict[str, Any], of: str = "") -> None:
    """Print what a stage did."""
    print(f"{of}{stage}: {', '.join(f'{k} {_short(v)}' for k, v in done.items() if v)}")
    if done.get("in_quarantine"):
        path = annotation.path(stage).with_suffix(".quarantine.jsonl")
        print(f"{done['in_quarantine']} clips were put aside, with the reasons, in {path}")


def read_shard(text: str) -> tuple[int, int]:
    """Read ``I/N``.

    Example
    -------
    >>> read_shard("3/8")
    (3, 8)
    """
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit() and int(number) < int(count)):
        raise argparse.ArgumentTypeError(f"{text} must be I/N with I from 0 to N - 1")
    return int(number), int(count)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
