#!/usr/bin/env python3
"""Open, memory and random access of our manifest, SpeechBrain's JSON and CSV, and lhotse's cuts.

The same synthetic rows, with captions as long as FCaps' fine ones, are written in each form; every
form is then opened in a process of its own, which reads rows at random, whole: all columns as
Python values. "private" is what one more worker costs; "shared" is pages of the file, which all
workers have in common and the system takes back when it needs them.

> python benchmarks/manifest.py --rows 1000000 --folder /tmp/manifests
> python benchmarks/manifest.py --rows 18000000 --folder /tmp/manifests --forms ours

lhotse is no dependency; ``--lhotse-python`` names an interpreter that has it (and this package).
"""

import argparse
import csv
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from speechbrain_clsp.dataio.manifest import SCHEMA, Manifest, write_manifest

AGES = ["twenties", "forties", "sixties"]
TRAITS = ["clear", "husky", "bright", "resonant", "slightly nasal", "breathy", "gravelly", "warm"]
PACES = ["moderate and even", "brisk", "slow and deliberate", "uneven, with short pauses", "lively"]
TONES = ["relaxed", "matter-of-fact", "amused", "tense", "tender", "ironic", "weary", "proud"]
ENDINGS = ["falls gently", "rises as if asking", "fades to a whisper", "stays level", "swells"]
FORMS = ("ours", "SpeechBrain JSON", "SpeechBrain CSV", "lhotse eager", "lhotse lazy")
LHOTSE = ("lhotse eager", "lhotse lazy")


def make_rows(number: int) -> Iterator[dict]:
    """Yield rows as those of Emilia in FCaps: a clip in a shard and one fine caption."""
    generator = random.Random(0)
    pick = generator.choice
    for i in range(number):
        caption = (
            f"A {pick(('male', 'female'))} speaker in the {pick(AGES)}"
            f" with a {pick(TRAITS)}, {pick(TRAITS)} voice speaks at a pace that is {pick(PACES)}."
            f" The tone is {pick(TONES)} at first and grows {pick(TONES)} towards the middle, where"
            f" single words are stressed and the pitch {pick(ENDINGS)}. Consonants are crisp,"
            f" vowels are drawn out a little, and the volume is steady until the last phrase, which"
            f" {pick(ENDINGS)} and leaves an impression that is {pick(TONES)} and {pick(TONES)}."
        )
        yield {
            "id": f"EN_B{i // 100000:05d}_S{i // 100 % 1000:05d}_W{i % 100:06d}",
            "audio": f"Emilia/EN/EN-B{i // 13000:06d}.tar",
            "offset": i % 13000 * 80000,
            "nbytes": 78000,
            "duration": round(generator.uniform(3, 30), 3),
            "sample_rate": 24000,
            "speaker": f"EN_B{i // 100000:05d}_S{i // 100 % 1000:05d}",
            "fine_captions": [caption],
            "split": "train",
            "source": "emilia",
        }


def build(form: str, path: Path, number: int) -> None:
    """Write the rows in one form."""
    rows = make_rows(number)
    if form == "ours":
        write_manifest(path, rows)
    elif form == "SpeechBrain JSON":
        with open(path, "w", encoding="utf-8") as file:
            lines = (f"{json.dumps(row.pop('id'))}: {json.dumps(row)}" for row in rows)
            file.write("{" + next(lines))
            file.writelines(f",\n{line}" for line in lines)
            file.write("}")
    elif form == "SpeechBrain CSV":
        with open(path, "w", encoding="utf-8", newline="") as file:
            first = next(rows)
            writer = csv.DictWriter(file, ["ID", *list(first)[1:]])
            writer.writeheader()
            for row in chain((first,), rows):
                row["fine_captions"] = row["fine_captions"][0]
                writer.writerow({"ID": row.pop("id"), **row})
    else:
        # Not at the top: it imports torch, whose memory would count as the manifest's.
        from speechbrain_clsp.prepare.cuts import cut_from_row

        with open(path, "w", encoding="utf-8") as file:
            empty = dict.fromkeys(SCHEMA.names)
            for row in rows:
                file.write(json.dumps(cut_from_row({**empty, **row})) + "\n")


def open_form(form: str, path: Path):
    """Open a file; returns how many rows there are and a function index -> row."""
    if form == "ours":
        manifest = Manifest(path)
        return len(manifest), manifest.__getitem__
    if form.startswith("SpeechBrain"):
        from speechbrain.dataio.dataset import DynamicItemDataset

        kind = DynamicItemDataset.from_json if "JSON" in form else DynamicItemDataset.from_csv
        dataset = kind(str(path), output_keys=["id", "audio", "duration", "fine_captions"])
        return len(dataset), dataset.__getitem__
    from lhotse import CutSet

    if form == "lhotse eager":
        cuts = CutSet.from_jsonl(path)
        return len(cuts), cuts.__getitem__
    return None, iter(CutSet.from_jsonl_lazy(path)).__next__


def memory() -> dict[str, float]:
    """Return this process' memory in MiB: private, and pages of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {key: int(fields[f"Rss{key}"].split()[0]) / 1024 for key in ("Anon", "File")}


def measure(form: str, path: Path, reads: int) -> dict:
    """Open a form and read rows of it; run in a process of its own."""
    if form.startswith("lhotse"):
        import lhotse  # noqa: F401 - its memory counts
    elif form != "ours":
        import speechbrain.dataio.dataset  # noqa: F401 - its memory counts
    before, start = memory(), time.perf_counter()
    size, read = open_form(form, path)
    opened, after = time.perf_counter() - start, memory()
    if size is None:  # in order, as there is no other way
        indices = None
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(reads):
            read()
    else:
        generator = random.Random(1)
        indices = [generator.randrange(size) for _ in range(reads)]
        for index in indices:  # once for the disk, then measured from the page cache
            read(index)
        start, cpu = time.perf_counter(), time.process_time()
        for index in indices:
            read(index)
    rate, cpu_rate = reads / (time.perf_counter() - start), reads / (time.process_time() - cpu)
    end = memory()
    return {
        "open_s": opened,
        "private_open_MiB": after["Anon"] - before["Anon"],
        "private_MiB": end["Anon"],
        "shared_MiB": end["File"],
        "rows_per_s": rate,
        "rows_per_cpu_s": cpu_rate,
        "order": "random" if indices else "sequential",
    }


def in_a_process(options: argparse.Namespace, task: str, form: str, path: Path) -> dict:
    """Run ``build`` or ``measure`` by this script in a fresh process; returns what it prints."""
    python = options.lhotse_python if form in LHOTSE and task == "measure" else sys.executable
    command = [python, __file__, "--task", task, "--forms", form, "--folder", str(path)]
    command += ["--rows", str(options.rows), "--reads", str(options.reads)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{task} {form}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def run_task(options: argparse.Namespace) -> None:
    """Do one task in this process and print its results as JSON."""
    form, path = options.forms[0], Path(options.folder)
    if options.task == "measure":
        print(json.dumps(measure(form, path, options.reads)))
        return
    start = time.perf_counter()
    build(form, path, options.rows)
    took = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"build_rows_per_s": options.rows / took, "build_peak_MiB": peak}))


def main() -> None:
    """Print one line of a Markdown table per form."""
    options = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="example: python benchmarks/manifest.py --rows 100000 --folder /tmp/manifests",
    )
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--reads", type=int, default=100_000)
    options.add_argument("--folder", required=True, help="for the files; they are kept")
    options.add_argument("--forms", nargs="+", default=FORMS[:3], choices=FORMS)
    options.add_argument("--lhotse-python", help="interpreter with lhotse; adds its forms")
    options.add_argument("--task", choices=("build", "measure"), help=argparse.SUPPRESS)
    options = options.parse_args()
    if options.task:
        return run_task(options)
    forms = [*options.forms, *(LHOTSE if options.lhotse_python else ())]
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    suffixes = dict(zip(FORMS, (".arrow", ".json", ".csv", ".jsonl", ".jsonl")))
    print(f"{options.rows:,} rows, {options.reads:,} reads, Python {sys.version.split()[0]}\n")
    columns = ["form", "GiB", "build rows/s", "build peak MiB", "open s", "private MiB after reads"]
    columns += ["shared MiB", "rows/s", "rows per CPU s"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for form in forms:
        path = folder / f"{options.rows}{suffixes[form]}"
        built = {} if path.exists() else in_a_process(options, "build", form, path)
        found = in_a_process(options, "measure", form, path)
        print(
            f"| {form} | {path.stat().st_size / 2**30:.2f}"
            f" | {built.get('build_rows_per_s', float('nan')):,.0f}"
            f" | {built.get('build_peak_MiB', float('nan')):,.0f}"
            f" | {found['open_s']:.3f} | {found['private_MiB']:,.0f}"
            f" | {found['shared_MiB']:,.0f} | {found['rows_per_s']:,.0f}"
            f" | {found['rows_per_cpu_s']:,.0f} {found['order']} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
