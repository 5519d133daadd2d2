#!/usr/bin/env python3
"""How near ``clsp embed`` comes to the encoder's own speed, from mp3 in tar files.

The published architecture at full size embeds the same clips once from batches that were decoded
before, which is the encoder's own speed, and then as ``clsp embed`` does, with threads that decode
ahead of it. Weights are random: the time does not depend on them.

> python benchmarks/embed.py --threads 2 --clips 8 --workers 1 0
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from decode import make_files
from encode import make_model

from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.dataio.shards import ClipReader
from speechbrain_clsp.inference.clsp import CLSP
from speechbrain_clsp.inference.files import batch_windows, plan_batches
from speechbrain_clsp.search import Provenance, Settings, embed_corpus

LONGEST = 60.0  # seconds of a batch, as of clsp embed


def timed(act: Callable) -> tuple[float, float]:
    """Return seconds of the clock and of the processor."""
    clock, cpu = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - clock, time.process_time() - cpu


def embed_as_command(clsp: CLSP, manifest: Manifest, folder: Path, workers: int) -> None:
    """Embed into a new store."""
    about = Provenance(
        "speech", "random weights", None, "", "fp32", 512, "", "", len(manifest), 1024, LONGEST
    )
    embed_corpus(clsp, manifest, folder, about, Settings(num_workers=workers))


def main() -> None:
    """Measure and print one line of JSON per way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_files(folder, options.clips)
        manifest, clsp = Manifest(folder / "tars.arrow"), make_model()
        seconds = [row["duration"] for row in manifest]
        read = ClipReader(1)

        def decode(clip: int):
            return read.read_windows(manifest[clip], CLSP.WINDOW_SECONDS)

        groups = plan_batches(seconds, LONGEST)
        batches: list = []
        decoding = timed(lambda: batches.extend(batch_windows(groups, decode, LONGEST)))
        clsp.embed_windows([batches[0][:1]], str)  # what the first call sets up
        encoder = timed(lambda: clsp.embed_windows(batches, str))
        rows = {"decoding alone": decoding, "encoder alone": encoder}
        for workers in options.workers:
            place = folder / f"store{workers}"
            rows[f"clsp embed --workers {workers}"] = timed(
                lambda place=place, workers=workers: embed_as_command(
                    clsp, manifest, place, workers
                )
            )
        for name, (clock, cpu) in rows.items():
            print(
                json.dumps(
                    {
                        "way": name,
                        "seconds": round(clock, 2),
                        "CPU seconds": round(cpu, 2),
                        "of the encoder's speed": round(encoder[0] / clock, 3),
                        "of it, by CPU time": round(encoder[1] / cpu, 3),
                        "speech seconds": round(sum(seconds)),
                        "threads": options.threads,
                        "torch": torch.__version__,
                    }
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
