"""The commands of ``clsp`` that make and search an index."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from speechbrain_clsp.cli.common import InsteadOf, add_command, check_device, whole_number

if TYPE_CHECKING:
    from speechbrain_clsp import CLSP
    from speechbrain_clsp.search.index import IndexInfo, StyleIndex
    from speechbrain_clsp.search.store import Provenance


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the commands."""
    index = add_command(
        commands,
        run_index,
        "index",
        "make an index of a store of embeddings, or change one",
        "clsp index train_store --output train_index",
    )
    store = index.add_argument("store", nargs="*", help="from clsp embed; added if INDEX is there")
    index.add_argument("--output", required=True, metavar="INDEX", help="the index, a folder")
    index.add_argument(
        "--manifest", help="of the store's clips; default: where it was when they were embedded"
    )
    index.add_argument(
        "--engine",
        choices=["exact", "lancedb", "qdrant"],
        help="exact up to a million clips (default), lancedb for more (extra: search), qdrant for"
        " a server whose address is in QDRANT_URL (extra: qdrant)",
    )
    index.add_argument(
        "--delete",
        action=InsteadOf,
        positional=store,
        nargs="+",
        default=[],
        metavar="ID",
        help="remove clips; or one .txt file with an id per line",
    )
    search = add_command(
        commands,
        run_search,
        "search",
        "find clips by description, or by examples",
        'clsp search train_index "A woman whispers." --where "duration > 2"',
    )
    search.add_argument("index", help="from clsp index")
    search.add_argument("captions", nargs="*", help="all of which should hold")
    search.add_argument(
        "--like", nargs="+", default=[], metavar="AUDIO", help="recordings that hits are to be like"
    )
    search.add_argument(
        "--not", nargs="+", default=[], dest="excluded", metavar="CAPTION", help="what not to find"
    )
    search.add_argument(
        "--where", default="", help="condition on the manifest's columns, as in SQL"
    )
    search.add_argument("--top", type=whole_number(1, 10_000), default=10, help="hits; default: 10")
    search.add_argument(
        "--offset", type=whole_number(0), default=0, help="leave out the first ones"
    )
    search.add_argument("--per", default="", metavar="COLUMN", help="one hit each, as of a speaker")
    search.add_argument(
        "--fold",
        type=float,
        nargs="?",
        const=0.98,
        default=0.0,
        metavar="COSINE",
        help="put hits that are nearly the same below the best of them; default cosine: 0.98",
    )
    search.add_argument("--explain", action="store_true", help="what each phrase contributes")
    search.add_argument("--output", help="also write a .jsonl, .arrow (manifest) or .html file")
    search.add_argument("--json", action="store_true", help="print JSON lines")
    search.add_argument("--model", help="default: the one that the index was made with")
    search.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...; default: cpu")
    coverage = add_command(
        commands,
        run_coverage,
        "coverage",
        "how much of each attribute a corpus has, by zero-shot classes of its store",
        "clsp coverage train_store --prompts mini --output coverage.html",
    )
    coverage.add_argument("store", help="from clsp embed")
    coverage.add_argument(
        "--prompts", required=True, help="a set of prompts or a .json file, as for clsp evaluate"
    )
    coverage.add_argument("--output", help="also write an .html page with tables and charts")
    coverage.add_argument("--json", action="store_true", help="print JSON")
    coverage.add_argument("--model", help="default: the one that the store was made with")
    coverage.add_argument("--device", default="cpu", help="cpu, cuda, ...; default: cpu")
    dedupe = add_command(
        commands,
        run_dedupe,
        "dedupe",
        "find clips that are nearly the same in style and sound",
        "clsp dedupe train_store --index train_index --output repeated.json",
    )
    dedupe.add_argument("store", help="from clsp embed")
    dedupe.add_argument("--index", required=True, help="of the store, from clsp index")
    dedupe.add_argument(
        "--output",
        required=True,
        help="a .json file for the groups; beside it, a .txt file lists all but the first of each",
    )
    dedupe.add_argument(
        "--cosine", type=float, default=0.99, help="from which on clips are the same; default: 0.99"
    )


def run_index(options: argparse.Namespace) -> None:
    """Make or change an index."""
    from speechbrain_clsp.search.index import INDEX, StyleIndex
    from speechbrain_clsp.utils.reading import read_text

    folder, stores = Path(options.output), list(options.store)
    if options.manifest and len(stores) > 1:
        raise ValueError("--manifest is that of one store: add several stores one after the other")
    if (folder / INDEX).is_file() or not stores:
        index = StyleIndex.open(folder)
        if options.engine not in (None, index.info.engine):
            raise ValueError(f"{folder} has the engine {index.info.engine}, not {options.engine}")
        if not (stores or options.delete):
            raise ValueError("Name a store to add, or ids to --delete")
    else:
        engine = options.engine or "exact"
        index = StyleIndex.create(folder, stores.pop(0), options.manifest, engine)
        options.manifest = None
    for store in stores:
        print(f"{index.add(store, options.manifest)} clips of {store} added")
    ids = list(options.delete)
    if len(ids) == 1 and ids[0].endswith(".txt"):
        ids = [line.strip() for line in read_text(ids[0]).splitlines() if line.strip()]
    if ids:
        print(f"{index.delete(ids)} of {len(ids)} clips deleted")
    if stores or ids:
        index.optimize()
    stats = index.stats()
    print(f"{stats['rows']} clips are in {folder} (engine {stats['engine']}, size {stats['dim']})")


def run_search(options: argparse.Namespace) -> None:
    """Print and write what is found."""
    from speechbrain_clsp.cli.models import refuse_files
    from speechbrain_clsp.search.index import StyleIndex
    from speechbrain_clsp.search.queries import Query, find
    from speechbrain_clsp.search.results import check_output, to_record, to_text, write_hits

    refuse_files([*options.captions, *options.excluded])
    query = Query(
        options.captions,
        options.like,
        options.excluded,
        options.where,
        options.top,
        options.offset,
        options.per,
        options.fold,
        options.explain,
    )
    if options.output:
        check_output(options.output)
    index = StyleIndex.open(options.index)
    index.condition(query.where or None)  # found wrong before a model is loaded
    clsp = open_model_of(options, index.folder, index.info)
    hits = find(index, clsp, query)
    if not hits:
        raise ValueError(_why_nothing(index, query.where, query.offset))
    if options.output:
        words = [*options.captions, *(f"like {path}" for path in options.like)]
        write_hits(options.output, hits, " + ".join(words))
    if options.json:
        for hit in hits:
            print(json.dumps(to_record(hit), ensure_ascii=False))
    else:
        print(to_text(hits))


def open_model_of(options: argparse.Namespace, folder: Path, about: Provenance | IndexInfo) -> CLSP:
    """Load the model of stored vectors, or the same one from where the options name it."""
    from speechbrain_clsp import CLSP
    from speechbrain_clsp.search.store import check_model

    check_device(options.device)
    source = options.model or about.model
    if not source:
        raise ValueError(f"{folder} does not say of which model it is: give --model")
    if not options.model and os.path.isabs(source) and not os.path.isdir(source):
        raise FileNotFoundError(
            f"{folder} was made with the model {source}, which is not there: give --model"
        )
    clsp = CLSP.from_pretrained(source, run_opts={"device": options.device})
    check_model(folder, about.model, about.weights_sha256, clsp.weights_sha256(), source)
    return clsp


def _why_nothing(index: StyleIndex, where: str, offset: int) -> str:
    """Return why a search found nothing."""
    if not len(index):
        return f"{index.folder} is empty"
    if offset:
        return f"there are no hits behind the first {offset}: lower --offset"
    return f"no clip of {len(index)} fulfils --where {where}"


def run_coverage(options: argparse.Namespace) -> None:
    """Print and write how much of each attribute a corpus has."""
    from speechbrain_clsp.evaluation.zero_shot import read_tasks
    from speechbrain_clsp.search.coverage import measure_coverage, write_coverage
    from speechbrain_clsp.search.store import EmbeddingStore
    from speechbrain_clsp.utils.files import check_replaceable

    if options.output:
        if not options.output.endswith(".html"):
            raise ValueError(f"--output {options.output}: the name must end in .html")
        title = "Coverage of "
        mark = f"<title>{title}"
        check_replaceable(options.output, lambda p: mark in p.read_text("utf-8"), "a coverage")
    store, tasks = EmbeddingStore(options.store), read_tasks(options.prompts)
    clsp = open_model_of(options, store.folder, store.provenance)
    found = measure_coverage(store, tasks, clsp.encode_text)
    if options.output:
        write_coverage(options.output, found, f"{title}{options.store}")
    if options.json:
        print(json.dumps({each.name: each.counts for each in found}))
        return
    for each in found:
        print(each.name)
        for label, count, percent in each.rows():
            print(f"  {percent:>5} %  {count:>8}  {label}")


def run_dedupe(options: argparse.Namespace) -> None:
    """Print and write groups of clips that are nearly the same."""
    from tqdm import tqdm

    from speechbrain_clsp.search.dedupe import find_duplicates
    from speechbrain_clsp.search.index import StyleIndex
    from speechbrain_clsp.search.store import EmbeddingStore
    from speechbrain_clsp.utils.files import atomic_write, check_replaceable
    from speechbrain_clsp.utils.reading import read_json

    output = Path(options.output)
    if output.suffix != ".json":
        raise ValueError(f"--output {output}: the name must end in .json")
    rest = output.with_suffix(".txt")
    check_replaceable(output, lambda path: {*read_json(path)} == {"cosine", "groups"}, "a report")
    check_replaceable(rest, lambda path: output.is_file(), "a list of clsp dedupe")
    store, index = EmbeddingStore(options.store), StyleIndex.open(options.index)
    with tqdm(total=len(store), unit="clip", disable=None) as bar:
        groups = find_duplicates(store, index, options.cosine, bar.update)
    report = {"cosine": options.cosine, "groups": groups}
    atomic_write(output, json.dumps(report, indent=1, ensure_ascii=False))
    further = [name for group in groups for name in group[1:]]
    atomic_write(rest, "".join(f"{name}\n" for name in further))
    print(f"{len(groups)} groups in {output}; {len(further)} of {len(store)} clips repeat others")
    if further:
        print(f"to leave them out: clsp index --output {index.folder} --delete {rest}")
