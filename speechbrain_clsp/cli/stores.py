"""What ``clsp embed`` does with a corpus."""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from speechbrain_clsp.cli.common import (
    add_ray_option,
    check_device,
    list_entries,
    name_of_model,
    whole_number,
    write_list,
)

MAX_BAD = 0.1  # of a shard
SHARD_ROWS = 1024


def add_store_options(command: argparse.ArgumentParser) -> None:
    """Add the options of ``clsp embed`` that only a store has."""
    store = command.add_argument_group("options of a store")
    store.add_argument(
        "--captions", choices=["global", "fine"], help="embed the manifest's captions instead"
    )
    store.add_argument(
        "--precision",
        choices=["fp32", "bf16", "fp16"],
        help="default: fp32; of an exported model, its own",
    )
    store.add_argument(
        "--reuse",
        nargs="+",
        default=[],
        metavar="STORE",
        help="take vectors from these stores where the audio is the same, so that it is only read",
    )
    store.add_argument(
        "--shard-rows",
        type=whole_number(1),
        default=SHARD_ROWS,
        help=f"clips in a shard, the unit of work that a kill loses; default: {SHARD_ROWS}",
    )
    store.add_argument(
        "--workers",
        type=whole_number(0),
        default=1,
        help="threads that decode ahead of the model; default: 1",
    )
    add_ray_option(store)


def refuse_store_options(options: argparse.Namespace) -> None:
    """Raise ValueError if an option is given that an .npz file has no use for."""
    defaults: dict[str, Any] = {"captions": None, "precision": None, "reuse": []}
    defaults |= {"shard_rows": SHARD_ROWS, "workers": 1, "ray": None}
    given = [name for name, value in defaults.items() if getattr(options, name) != value]
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(
            f"{names} is for a store: let --output be a folder, not {options.output}, or leave it"
            " out"
        )


def embed_store(options: argparse.Namespace) -> None:
    """Embed a corpus into a store, together with other processes that do so."""
    from speechbrain_clsp import CLSP
    from speechbrain_clsp.search.embed import KnownVectors, Settings, describe_run, embed_corpus
    from speechbrain_clsp.search.sources import open_source
    from speechbrain_clsp.search.store import BAD, EmbeddingStore, check_store_folder
    from speechbrain_clsp.utils.cluster import RayCluster

    folder, device = Path(options.output), options.device
    on_gpus = device.startswith("cuda")
    if options.ray and on_gpus:
        device = "cpu"  # here, the model only tells what it is
    if device == "cuda" and "LOCAL_RANK" in os.environ:  # started by torchrun, one per GPU
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    check_store_folder(folder)
    source = name_of_model(options)
    check_device(device)
    cluster = None
    if options.ray:
        cluster = RayCluster(options.ray, max(1, options.workers), int(on_gpus))
    known = (
        KnownVectors([EmbeddingStore(each) for each in options.reuse]) if options.reuse else None
    )
    manifest = open_source(options.audio, folder)
    clsp = CLSP.from_pretrained(source, run_opts={"device": device})
    about = describe_run(
        clsp,
        manifest,
        options.captions or "speech",
        options.precision,
        options.shard_rows,
    )
    if known is not None:
        known.check(about)
    if cluster is None:
        clsp.set_precision(about.precision)
    settings = Settings(
        MAX_BAD if options.skip_bad else 0.0, options.workers, progress=sys.stderr.isatty()
    )
    with cluster or nullcontext():
        store = embed_corpus(clsp, manifest, folder, about, settings, known, cluster)
    bad = [f"{name}: {reason}" for name, reason in store.bad]
    write_list(folder / BAD, bad)
    hours = sum(mark.seconds for mark in store.marks) / 3600
    summary = {"output": str(folder), "embeddings": len(store), "dim": about.dim, "bad": len(bad)}
    if options.json:
        print(json.dumps({**summary, "hours": hours}))
    else:
        of = f" of {hours:.2f} hours" if about.kind == "speech" else f" of {about.kind} captions"
        print(f"{len(store)} embeddings{of}, of size {about.dim}, are in {folder}")
    if bad:
        print(f"{len(bad)} left out, see {folder / BAD}:", file=sys.stderr)
        print(list_entries(bad, folder / BAD), file=sys.stderr)
