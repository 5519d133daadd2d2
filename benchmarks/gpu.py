#!/usr/bin/env python3
"""Proves and measures CLSP on a GPU: correctness, encoding, training, loss and reward.

> python benchmarks/gpu.py --output results/gpu
> python benchmarks/gpu.py --output results/gpu --parts correctness training
> python benchmarks/gpu.py --output /tmp/gpu --small --device cpu

Each part runs in a process of its own. A row is printed and written to ``gpu.json`` as soon as it
is known; a row that fails holds its error, and the others go on. ``gpu.md`` is written at the end.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from gpu_parts import PARTS
from gpu_parts.environment import environment
from gpu_parts.results import Results
from gpu_parts.tables import markdown

WHEELS = """
It needs no network. Of Python packages it needs torch, torchaudio, transformers, tokenizers,
safetensors, huggingface_hub, pyarrow, scipy, sentencepiece, numpy, joblib, packaging, requests and
tqdm, and besides them SpeechBrain and what SpeechBrain and the data reader need. Where the latter
are missing, collect them as wheels on a machine with a network (3.3 MiB for Python 3.12):

  python3 -m pip download --no-deps --only-binary=:all: --implementation cp \\
    --python-version 3.12 --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \\
    --platform manylinux2014_x86_64 --dest wheels \\
    speechbrain==1.1.2 hyperpyyaml==1.2.3 ruamel.yaml==0.18.17 ruamel.yaml.clib==0.2.15 \\
    soundfile==0.14.0 cffi==2.1.1 pycparser==3.12

and install them, on the machine with the GPU, into a folder that Python then looks into:

  python3 -m pip install --no-index --no-deps --target site wheels/*.whl
  PYTHONPATH=site python3 benchmarks/gpu.py --output results/gpu
"""


def run_part(name: str, options: argparse.Namespace, results: Results, seconds: float) -> None:
    """Run a part in its own process and stop it after ``seconds``; say how it ended."""
    begin = time.time()
    results.start(name, seconds)
    command = [sys.executable, __file__, "--output", str(options.output), "--part", name]
    command += ["--device", options.device, "--deadline", str(begin + seconds)]
    command += ["--threads", str(options.threads), *(["--small"] if options.small else [])]
    command += ["--fail", *options.fail] if options.fail else []
    # Products whose sums have one order, which an exact resume needs; they cost workspace.
    extra = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"} if name == "correctness" else {}
    log = options.output / f"{name}.log"
    with open(log, "w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            command, stderr=errors, start_new_session=True, env={**os.environ, **extra}
        )
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    shutil.rmtree(options.output / f"{name}_files", ignore_errors=True)  # gigabytes
    took = time.time() - begin
    if code is None:
        results.end(name, took, f"stopped after its {seconds:.0f} s")
    elif code:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        results.end(name, took, f"ended with exit code {code}: {' '.join(last)[:300]}")
    else:
        results.end(name, took, None)


def main() -> None:
    """Run the parts one after another, each with its portion of the time."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        epilog=WHEELS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for gpu.json, gpu.md")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), help=f"of {list(PARTS)}, or a-e")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all parts together")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="default: cuda if there is one")
    parser.add_argument("--small", action="store_true", help="tiny sizes: a check, no measurement")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; default: up to 8")
    # part:row raises and part!row aborts there, for the tests
    parser.add_argument("--fail", nargs="+", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--part", help=argparse.SUPPRESS)  # what a child process runs
    parser.add_argument("--deadline", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.threads = options.threads or min(8, os.cpu_count() or 1)
    letters = dict(zip("abcde", PARTS))
    options.parts = [letters.get(part, part) for part in options.parts]
    unknown = sorted(set(options.parts) - set(PARTS))
    if unknown:
        parser.error(f"--parts: {unknown} are not among {list(PARTS)}")
    if options.part:
        from gpu_parts.setting import run_rows

        run_rows(options)
        return
    begin = time.time()
    options.output.mkdir(parents=True, exist_ok=True)
    facts = environment(ROOT, options)
    options.device = facts["device type"]
    results = Results(options.output / "gpu.json")
    results.begin(facts)
    for number, name in enumerate(options.parts):
        left = begin + 60 * options.minutes - time.time()
        weights = [PARTS[other] for other in options.parts[number:]]
        run_part(name, options, results, max(1.0, left * weights[0] / sum(weights)))
    data = results.read()
    (options.output / "gpu.md").write_text(markdown(data), encoding="utf-8")
    print(f"\n{options.output / 'gpu.md'} and gpu.json after {time.time() - begin:.0f} s")
    sys.exit(0 if results.passed() else 1)


if __name__ == "__main__":
    main()
