#!/usr/bin/env python3
"""Time, memory, disk and recall of the engines of an index, beside faiss, by size of the corpus.

Vectors are as narrow as those of real models: a caption has a cosine of about 0.5 with its clip and
of 0.2 to 0.45 with others, which lie in clusters. Each engine builds and searches in processes of
its own; recall is that of the ten best against the exact engine, without condition, with one that
half of the clips fulfil, and with one that 0.25 % do. ``faiss`` is what people do by hand:
IVF,SQ8, the square root of the number of clips as partitions, 64 of them searched.

> python benchmarks/search.py --sizes 200000 500000
> python benchmarks/search.py --sizes 2000000 --engines exact lancedb faiss --threads 2
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from speechbrain_clsp.dataio.manifest import write_manifest
from speechbrain_clsp.search import EmbeddingStore, StyleIndex, write_store

SIZE, CLUSTERS, K, PROBES = 512, 2000, 10, 64
CONDITIONS = {"all": None, "half": "gender = 'female'", "0.25 %": "source = 's7'"}
SOURCES = 400


def memory_mib() -> float:
    """Return the process's memory without mapped files, which the system may take back."""
    return int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


class PeakMemory:
    """The most memory of this process while a block runs."""

    def __enter__(self) -> "PeakMemory":
        self.before = self.mib = memory_mib()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            self.mib = max(self.mib, memory_mib())

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors of unit norm."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def speech_vectors(count: int, dtype: type = np.float16) -> np.ndarray:
    """Return [count, 512]: a common direction, a cluster and noise."""
    draw = np.random.default_rng(0)
    common = unit(draw.standard_normal(SIZE, np.float32))
    centers = unit(draw.standard_normal((CLUSTERS, SIZE), np.float32))
    vectors = np.empty((count, SIZE), dtype)
    for start in range(0, count, 20_000):
        n = min(20_000, count - start)
        own = unit(draw.standard_normal((n, SIZE), np.float32))
        rest = unit(centers[draw.integers(0, CLUSTERS, n)] + own)
        vectors[start : start + n] = unit(0.8 * common + 0.6 * rest)
    return vectors


def captions_of(vectors: np.ndarray, count: int) -> np.ndarray:
    """Return [count, 512] float32: vectors of captions of some clips."""
    draw = np.random.default_rng(1)
    common = unit(np.random.default_rng(0).standard_normal(SIZE, np.float32))
    clips = vectors[draw.choice(len(vectors), count, replace=False)].astype(np.float32)
    rest = unit(clips - (clips @ common)[:, None] * common)
    noise = unit(draw.standard_normal((count, SIZE), np.float32))
    return unit(0.4 * common + 0.3 * rest + 0.866 * noise)


def write_corpus(folder: Path, count: int, queries: int) -> None:
    """Write a store, its manifest and queries."""
    vectors = speech_vectors(count)
    rows = (
        {
            "id": f"clip{n}",
            "audio": f"{n % 1000}.tar",
            "duration": 9.0,
            "gender": ("male", "female")[n * 7919 % 2],
            "source": f"s{n * 7919 // 2 % SOURCES}",
            "speaker": f"p{n // 50}",
        }
        for n in range(count)
    )
    write_manifest(folder / "clips.arrow", rows)
    ids = [f"clip{n}" for n in range(count)]
    source = str(folder / "clips.arrow")
    write_store(folder / "store", ids, vectors, weights_sha256="0", source=source)
    captions = captions_of(vectors, queries)
    np.save(folder / "queries.npy", captions)
    others = vectors[:5000].astype(np.float32) @ captions.T
    print(
        json.dumps(
            {
                "clips": count,
                "cosines with other clips, 1 and 99 %": np.quantile(others, (0.01, 0.99)).tolist(),
            }
        ),
        flush=True,
    )


def bytes_of(folder: Path) -> int:
    """Return the size of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def build(folder: Path, engine: str) -> None:
    """Build in this process."""
    if engine != "faiss":
        StyleIndex.create(folder / engine, folder / "store", engine=engine)
        return
    import faiss

    store = EmbeddingStore(folder / "store")
    parts = round(len(store) ** 0.5)
    index = faiss.index_factory(SIZE, f"IVF{parts},SQ8", faiss.METRIC_INNER_PRODUCT)
    vectors = store.vectors()
    draw = np.random.default_rng(0).choice(len(vectors), min(len(vectors), 64 * parts), False)
    index.train(vectors[np.sort(draw)].astype(np.float32))
    for start in range(0, len(vectors), 50_000):
        index.add(vectors[start : start + 50_000].astype(np.float32))
    (folder / engine).mkdir()
    faiss.write_index(index, str(folder / engine / "index"))


def searcher(folder: Path, engine: str) -> Callable[[np.ndarray, str], list[int]]:
    """Return a function of a query and a condition's name, that returns numbers of clips."""
    if engine != "faiss":
        index = StyleIndex.open(folder / engine)

        def search(query: np.ndarray, name: str) -> list[int]:
            found = index.search(query, K, CONDITIONS[name]).column("id").to_pylist()
            return [int(clip.removeprefix("clip")) for clip in found]

        return search
    import faiss

    index = faiss.read_index(str(folder / engine / "index"), faiss.IO_FLAG_MMAP)
    numbers = np.arange(index.ntotal)
    kept = {
        "half": numbers[numbers * 7919 % 2 == 1],
        "0.25 %": numbers[numbers * 7919 // 2 % SOURCES == 7],
    }
    options = {
        name: faiss.SearchParametersIVF(nprobe=PROBES, sel=faiss.IDSelectorBatch(chosen))
        for name, chosen in kept.items()
    }
    options["all"] = faiss.SearchParametersIVF(nprobe=PROBES)

    def search(query: np.ndarray, name: str) -> list[int]:
        return index.search(query[None], K, params=options[name])[1][0].tolist()

    return search


def measure(folder: Path, engine: str, step: str) -> dict:
    """Build or search in this process."""
    start = time.perf_counter()
    if step == "build":
        with PeakMemory() as memory:
            build(folder, engine)
        return {
            "build s": round(time.perf_counter() - start, 1),
            "build CPU s": round(time.process_time(), 1),
            "disk MiB": round(bytes_of(folder / engine) / 2**20),
            "build MiB": round(memory.mib),
            "MiB before": round(memory.before),
        }
    result: dict = {}
    with PeakMemory() as memory:
        search, queries = searcher(folder, engine), np.load(folder / "queries.npy")
        for name in CONDITIONS:
            search(queries[0], name)
            hits, seconds, cpu = [], [], time.process_time()
            for query in queries:
                start = time.perf_counter()
                hits.append(search(query, name))
                seconds.append(time.perf_counter() - start)
            result[name] = {
                "median ms": round(1000 * float(np.median(seconds)), 2),
                "CPU ms": round(1000 * (time.process_time() - cpu) / len(queries), 2),
                "hits": hits,
            }
    return {**result, "query MiB": round(memory.mib)}


def main() -> None:
    """Measure; print a line of JSON per size and engine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[200_000])
    parser.add_argument("--engines", nargs="+", default=["exact", "lancedb", "faiss"])
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="for the files; default: a temporary one")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        folder, engine, step = options.child
        print(json.dumps(measure(Path(folder), engine, step)))
        return
    names = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "TOKIO_WORKER_THREADS", "LANCE_CPU_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, str(options.threads))}
    for size in options.sizes:
        folder = Path(tempfile.mkdtemp(dir=options.folder))
        try:
            write_corpus(folder, size, options.queries)
            best: dict = {}
            for engine in dict.fromkeys(["exact", *options.engines]):
                row: dict = {"engine": engine, "clips": size}
                for step in ("build", "search"):
                    command = [sys.executable, sys.argv[0], "--child", str(folder), engine, step]
                    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE)
                    done.check_returncode()
                    row |= json.loads(done.stdout)
                for name in CONDITIONS:
                    hits = row[name].pop("hits")
                    best.setdefault(name, hits)
                    pairs = [
                        len(set(one) & set(two)) / len(two) for one, two in zip(hits, best[name])
                    ]
                    row[name]["recall@10"] = round(float(np.mean(pairs)), 4)
                print(json.dumps(row), flush=True)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
