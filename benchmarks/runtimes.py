#!/usr/bin/env python3
"""Speed, memory, size and cold start of a model in torch, ONNX Runtime and OpenVINO.

Every row is a process of its own. Cold start is the time from its start to the first score, of a
clip of three seconds with one caption, with files in the system's cache; speed is that of a second
pass over clips of 2 to 12 s, in batches of similar length; memory is the highest resident set of
the whole process. With ``--isa`` the processor pretends to be an older one to oneDNN, which
computes for OpenVINO, and for torch in bf16; ONNX Runtime and torch in fp32 take no notice.
``xlarge`` has the published architecture and random weights.

> python benchmarks/runtimes.py mini=results/mini/model xlarge --threads 2 --folder results/runtimes
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROWS = (
    *("torch-fp32", "torch-bf16"),
    *("onnx-fp32", "onnx-fp16", "onnx-int8"),
    *("openvino-fp32", "openvino-fp16", "openvino-bf16", "openvino-int8"),
)
FLAGS = ("amx_bf16", "amx_int8", "avx512_bf16", "avx512_vnni", "avx512f", "avx_vnni", "avx2")
CAPTION = "A man whispers."


def describe_processor() -> str:
    """Return the processor's name and those of its instruction sets that matter here."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    about = {key.strip(): value for key, _, value in (line.partition(":") for line in lines)}
    known = about.get("flags", "").split()
    return f"{about.get('model name', '').strip()}: {', '.join(f for f in FLAGS if f in known)}"


def make_xlarge(folder: Path) -> None:
    """Write a model folder of the published architecture with random weights."""
    import torch
    from hyperpyyaml import load_hyperpyyaml
    from tokenizers import Tokenizer, models, pre_tokenizers

    from speechbrain_clsp.pretrained.folder import save_model_folder
    from speechbrain_clsp.pretrained.official import define

    torch.manual_seed(0)
    definition = define({"speech_tower": {"joint_dim": 512}})
    words = Tokenizer(models.WordLevel({"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    path = folder.with_name("tokenizer.json")
    words.save(str(path))
    modules = load_hyperpyyaml(definition)["modules"]
    save_model_folder(folder, definition, modules, {"tokenizer.json": path})


def export(model: str, rows: dict[str, Path], manifest: str | None) -> None:
    """Export in several ways; what the checks found is printed, and in ``config.json``."""
    from speechbrain_clsp import CLSP
    from speechbrain_clsp.inference import export as exporting

    clsp = CLSP.from_pretrained(model, run_opts={"device": "cpu"})
    with tempfile.TemporaryDirectory() as traced:
        for name in ("trace_speech", "trace_text"):  # which is the same for all
            setattr(exporting, name, _once(getattr(exporting, name), Path(traced)))
        if manifest is None:  # of random weights there is no R@1, and int8 is not refused
            exporting.read_pairs = lambda manifest: [None]
            exporting.check_results = lambda *_: None
            exporting.compare_on_pairs = lambda clsp, other, pairs: exporting.compare_towers(
                clsp.mods, other.mods, clsp.hparams.tokenizer
            )
        for row, folder in rows.items():
            runtime, precision = row.split("-")
            clips = (manifest or "none") if precision == "int8" else None
            checks = clsp.export(folder, runtime, precision, clips).checks
            print(json.dumps({"exported": folder.name, "checks": checks}), flush=True)


def _once(trace: Callable, cache: Path) -> Callable:
    """Return a function that traces a tower at its first call only."""

    def cached(*arguments: Any) -> None:
        *inputs, path = arguments
        place = cache / path.stem
        if not place.is_dir():
            place.mkdir()
            trace(*inputs, place / path.name)
        shutil.copytree(place, path.parent, dirs_exist_ok=True)

    return cached


def measure(model: str, precision: str | None, threads: int, clips: int, started: float) -> dict:
    """Return one row; ``started`` is when the process did."""
    import torch

    torch.set_num_threads(threads)
    from speechbrain_clsp import CLSP
    from speechbrain_clsp.inference.files import pad, plan_batches

    imported = time.time()
    clsp = CLSP.from_pretrained(model, precision=precision, run_opts={"device": "cpu"})
    generator = torch.Generator().manual_seed(0)
    clsp.score_batch(0.1 * torch.randn(3 * 16000, generator=generator), [CAPTION])
    scored, cpu = time.time(), time.process_time()
    lengths = [2.0 + 10.0 * n / max(1, clips - 1) for n in range(clips)]
    wavs = [0.1 * torch.randn(int(each * 16000), generator=generator) for each in lengths]
    batches = [pad([wavs[n] for n in some]) for some in plan_batches(lengths, 60.0)]
    for _ in range(2):
        start, start_cpu = time.perf_counter(), time.process_time()
        for batch in batches:
            clsp.encode_batch(*batch)
        took, took_cpu = time.perf_counter() - start, time.process_time() - start_cpu
    files = [path for path in Path(model).iterdir() if path.is_file()]
    return {
        "seconds of audio per second": round(sum(lengths) / took, 2),
        "per second of processor time": round(sum(lengths) / took_cpu, 2),
        "cold start s": round(scored - started, 2),
        "of which imports s": round(imported - started, 2),
        "cold start, processor s": round(cpu, 2),
        "peak MiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "files MiB": round(sum(path.stat().st_size for path in files) / 2**20, 1),
    }


def run_again(words: list[str], options: argparse.Namespace, isa: str = "") -> None:
    """Run this script in a process of its own, which prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    if isa:
        environment["ONEDNN_MAX_CPU_ISA"] = isa
    words += ["--threads", str(options.threads), "--clips", str(options.clips)]
    done = subprocess.run([sys.executable, __file__, *words], env=environment)
    if done.returncode:
        print(json.dumps({"failed": words, "code": done.returncode}), flush=True)


def main() -> None:
    """Export, measure and print one line of JSON per row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help="NAME=FOLDER, or xlarge")
    parser.add_argument("--folder", type=Path, default=Path("results/runtimes"))
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--isa", nargs="+", default=[], help="values of ONEDNN_MAX_CPU_ISA")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--manifest", help="for the checks of int8")
    parser.add_argument("--export", help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.export:
        rows = dict(word.split("=") for word in options.models)
        places = {row: Path(folder) for row, folder in rows.items()}
        export(options.export, places, options.manifest)
        return
    if options.measure:
        model, precision, started = options.measure
        found = measure(model, precision, options.threads, options.clips, float(started))
        print(json.dumps(found), flush=True)
        return
    print(json.dumps({"processor": describe_processor(), "load": os.getloadavg()}), flush=True)
    options.folder.mkdir(parents=True, exist_ok=True)
    for word in options.models:
        name, _, path = word.partition("=")
        model = Path(path) if path else options.folder / name
        if not path and not model.is_dir():
            make_xlarge(model)
        folders = {
            row: model if row.startswith("torch") else options.folder / f"{name}-{row}"
            for row in options.rows
        }
        absent = [f"{row}={place}" for row, place in folders.items() if not place.is_dir()]
        if absent:
            manifest = ["--manifest", options.manifest] if path and options.manifest else []
            run_again(["--export", str(model), *absent, *manifest], options)
        for isa in ("", *options.isa):
            for row, place in folders.items():
                about = {"model": name, "row": row, "isa": isa or "own", "load": os.getloadavg()[0]}
                print(json.dumps(about), flush=True)
                words = ["--measure", str(place), row.split("-")[1], str(time.time())]
                run_again(words, options, isa)


if __name__ == "__main__":
    main()
