#!/usr/bin/env python3
"""What a service costs beside the model alone: throughput, latency and memory.

Clips are noise of 2 to 8 s, each sent once; a process of its own serves them. Throughput: many
clients, a clip per request, against ``CLSP.encode_files`` on the same files. Latency: one client,
against ``CLSP.score_file``; the difference of medians. Memory: the service's resident size over
many requests, whose clips are all different. Within three minutes:

> OMP_NUM_THREADS=1 python benchmarks/serve.py --model results/mini/model --requests 500

and within half an hour with 10,000 requests, the default.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import soundfile

from speechbrain_clsp import CLSP
from speechbrain_clsp.serve.client import _form

CAPTIONS = ["A man speaks slowly in a low voice.", "A woman speaks quickly."]
ROUNDS = 4  # of 64 clips, with the default
KEPT_SECONDS = 5.0  # less than the service keeps connections
LOCAL = threading.local()


def main() -> None:
    """Measure and print one line of JSON per claim."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="results/mini/model")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--clips", type=int, default=320)
    parser.add_argument("--requests", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = make_clips(Path(folder), options.clips)
        clsp = CLSP.from_pretrained(options.model)
        clsp.encode_files(paths[:8], progress=False)
        command = [sys.executable, "-m", "speechbrain_clsp.cli.main", "serve", "--port", "0"]
        process = subprocess.Popen(
            [*command, "--model", options.model], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        try:
            url = process.stdout.readline().split(" at ")[1].strip().rstrip("/")
            for path in paths[:8]:  # as the model beside it, it has run before
                ask(url, "/v1/embed/audio", {}, Path(path).read_bytes()[:-2])
            show(throughput(url, clsp, paths, options.clients, process.pid))
            short = make_clips(Path(folder), 50, seed=1, seconds=(3.0, 3.0))
            show(latency(url, clsp, short, process.pid))
            show(memory(url, process.pid, options.requests, options.clients))
        finally:
            process.terminate()
            process.wait()


def show(found: dict) -> None:
    """Print a result."""
    print(json.dumps(found), flush=True)


def make_clips(
    folder: Path, number: int, seed: int = 0, seconds: tuple[float, float] = (2.0, 8.0)
) -> list[str]:
    """Write noise, always the same; returns the files."""
    draw = np.random.default_rng(seed)
    paths = []
    for n in range(number):
        path = folder / f"{seed}-{n}.wav"
        samples = 0.1 * draw.standard_normal(int(draw.uniform(*seconds) * 16000))
        soundfile.write(path, samples.astype(np.float32), 16000, subtype="PCM_16")
        paths.append(str(path))
    return paths


def ask(url: str, path: str, fields: dict, content: bytes | None = None) -> dict:
    """Send a request over this thread's connection, which is new if it was idle for long."""
    if time.monotonic() - getattr(LOCAL, "used", -np.inf) > KEPT_SECONDS:
        LOCAL.connection = http.client.HTTPConnection(urlsplit(url).netloc)
    body, kind = _form(json.dumps(fields), [] if content is None else [content])
    LOCAL.connection.request("POST", path, body, {"Content-Type": kind})
    response = LOCAL.connection.getresponse()
    answer = json.loads(response.read())
    assert response.status == 200, answer
    LOCAL.used = time.monotonic()
    return answer


def throughput(url: str, clsp: CLSP, paths: list[str], clients: int, process: int) -> dict:
    """Return clips per second of many clients over those of ``encode_files``.

    Both work on the same clips in turn, in rounds of which the first is not counted. On a machine
    that does other work only the ratio of processor seconds means something.
    """
    rounds = np.array_split(np.array(paths), ROUNDS + 1)
    alone, served, difference = [], [], 0.0  # (seconds, seconds of the processor) of each round
    for some in map(list, rounds):
        start, before = time.perf_counter(), time.process_time()
        expected = clsp.encode_files(some, progress=False).numpy()
        alone.append((time.perf_counter() - start, time.process_time() - before))
        contents = [Path(path).read_bytes() for path in some]
        with ThreadPoolExecutor(clients) as pool:
            start, before = time.perf_counter(), processor_seconds(process)
            answers = list(pool.map(lambda c: ask(url, "/v1/embed/audio", {}, c), contents))
            seconds = time.perf_counter() - start
            served.append((seconds, processor_seconds(process) - before))
        found = np.array([answer["results"][0]["embedding"] for answer in answers])
        difference = max(difference, float(np.abs(found - expected).max()))
    alone_seconds, served_seconds = np.array(alone)[1:], np.array(served)[1:]
    wall, processor = alone_seconds.sum(axis=0) / served_seconds.sum(axis=0)
    counted = len(paths) - len(rounds[0])
    return {
        "claim": "throughput",
        "clients": clients,
        "clips": counted,
        "clips per second, served": round(counted / served_seconds[:, 0].sum(), 1),
        "clips per second, encode_files": round(counted / alone_seconds[:, 0].sum(), 1),
        "ratio": round(wall, 3),
        "ratio of processor seconds": round(processor, 3),
        "by round": (alone_seconds / served_seconds)[:, 1].round(3).tolist(),
        "largest difference": difference,
    }


def latency(url: str, clsp: CLSP, paths: list[str], process: int) -> dict:
    """Return milliseconds that a request of one clip takes more than ``score_file``.

    By the clock, and of processors: those of the client and the service together.
    """
    served, alone = [], []  # (seconds, seconds of processors) of each clip
    for path in [paths[0], *paths]:  # in turn, so that other work on the machine disturbs both
        start, before = time.perf_counter(), time.process_time()
        clsp.score_file(path, CAPTIONS)
        alone.append((time.perf_counter() - start, time.process_time() - before))
        start = time.perf_counter()
        before = time.process_time() + processor_seconds(process)
        ask(url, "/v1/score", {"captions": CAPTIONS}, Path(path).read_bytes())
        seconds = time.perf_counter() - start
        served.append((seconds, time.process_time() + processor_seconds(process) - before))
    alone_ms, served_ms = 1000 * np.array(alone)[1:], 1000 * np.array(served)[1:]
    medians = np.median(served_ms[:, 0]), np.median(alone_ms[:, 0])
    return {
        "claim": "latency",
        "median ms, served": round(medians[0], 1),
        "median ms, score_file": round(medians[1], 1),
        "added ms": round(medians[0] - medians[1], 1),
        # The mean: that of the service comes in ticks of the clock.
        "added ms of processors": round((served_ms - alone_ms)[:, 1].mean(), 1),
    }


def memory(url: str, process: int, requests: int, clients: int) -> dict:
    """Return the service's resident MiB over many requests, and how many it answered a second."""
    short = np.random.default_rng(2).standard_normal(3200).astype(np.float32) * 0.1
    sizes, tenth = [], max(1, requests // 10)

    def one(number: int) -> None:
        content = soundfile_bytes(np.roll(short, number % 3200) * (1 - number / 1e6))
        ask(url, "/v1/embed/audio", {}, content)

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        for first in range(0, requests, tenth):
            list(pool.map(one, range(first, min(requests, first + tenth))))
            sizes.append(resident(process))
    took = time.perf_counter() - start
    return {
        "claim": "memory",
        "requests": requests,
        "requests per second": round(requests / took, 1),
        "MiB after each tenth": [round(size) for size in sizes],
    }


def soundfile_bytes(samples: np.ndarray) -> bytes:
    """Return a wav file of a clip."""
    file = io.BytesIO()
    soundfile.write(file, samples, 16000, format="WAV", subtype="FLOAT")
    return file.getvalue()


def processor_seconds(process: int) -> float:
    """Return the seconds of processors that a process took so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(process: int) -> float:
    """Return a process's resident MiB."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()
