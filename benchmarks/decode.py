#!/usr/bin/env python3
"""Decoded seconds of audio per second: ours from tars of mp3, against SpeechBrain and lhotse.

The same mp3 clips (24 kHz, 3-20 s) lie in tar files and as plain files. All read them through
torch's DataLoader, resample to 16 kHz and pad batches of 16. SpeechBrain and lhotse read plain
files: neither reads a member of a tar at random. Rounds of all readers alternate; the best counts.
Speed is given per second of CPU time, workers' included, which a busy machine changes little, and
per second of the clock and core (one for 0 workers).

> python benchmarks/decode.py --folder /tmp/decode --clips 200

lhotse takes part if it is installed.
"""

import argparse
import importlib.util
import os
import sys
import tarfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch.utils.data import DataLoader

from speechbrain_clsp.captions.policies import OneFineCaption
from speechbrain_clsp.dataio.dataset import CaptionedSpeechDataset
from speechbrain_clsp.dataio.manifest import Manifest, write_manifest
from speechbrain_clsp.dataio.shards import scan_shard
from speechbrain_clsp.prepare.cuts import write_cuts

BATCH, RATE, SHARDS = 16, 24000, 4


def make_files(folder: Path, number: int) -> None:
    """Write clips of modulated noise as mp3 files and tars, and the manifests of both."""
    (folder / "mp3").mkdir(parents=True, exist_ok=True)
    chance, tars, rows = np.random.default_rng(0), [], {"files": [], "tars": []}
    seconds = {}
    for shard in range(SHARDS):
        tars.append(folder / f"EN-B{shard:06d}.tar")
        with tarfile.open(tars[-1], "w") as tar:
            for i in range(shard, number, SHARDS):
                name, seconds[f"{i}.mp3"] = f"{i}.mp3", chance.uniform(3, 20)
                time_axis = np.arange(int(seconds[name] * RATE)) / RATE
                speech = chance.standard_normal(len(time_axis)) * np.sin(9 * time_axis) ** 2
                smooth = np.convolve(speech, np.hanning(24), mode="same") / 24
                soundfile.write(folder / "mp3" / name, smooth, RATE, format="MP3")
                tar.add(folder / "mp3" / name, name)
    common = {"fine_captions": ["A voice."], "sample_rate": RATE}
    for name, length in seconds.items():
        row = {"id": name, "audio": f"mp3/{name}", "duration": length, **common}
        rows["files"].append(row)
    for path in tars:
        for member in scan_shard(path).members:
            place = {"audio": path.name, "offset": member.offset, "nbytes": member.nbytes}
            rows["tars"].append(
                {"id": member.name, "duration": seconds[member.name], **place, **common}
            )
    for kind, found in rows.items():
        write_manifest(folder / f"{kind}.arrow", found)


def pad(wavs: list[torch.Tensor]) -> torch.Tensor:
    """Join clips into a batch."""
    return torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)


def ours(folder: Path, kind: str, workers: int) -> Iterable[torch.Tensor]:
    """Return a loader of our data set."""
    dataset = CaptionedSpeechDataset(Manifest(folder / f"{kind}.arrow"), OneFineCaption())
    return DataLoader(
        dataset, BATCH, num_workers=workers, collate_fn=lambda clips: pad([c["wav"] for c in clips])
    )


def speechbrain(folder: Path, workers: int) -> Iterable[torch.Tensor]:
    """Return a loader as SpeechBrain's recipes make it."""
    import torchaudio
    from speechbrain.dataio.dataio import read_audio
    from speechbrain.dataio.dataset import DynamicItemDataset

    manifest = Manifest(folder / "files.arrow")
    dataset = DynamicItemDataset({row["id"]: {"wav": row["audio"]} for row in manifest})
    resample = torchaudio.transforms.Resample(RATE, 16000)
    dataset.add_dynamic_item(lambda wav: resample(read_audio(wav)), takes="wav", provides="signal")
    dataset.set_output_keys(["id", "signal"])
    from speechbrain.dataio.batch import PaddedBatch
    from speechbrain.dataio.dataloader import SaveableDataLoader

    loader = SaveableDataLoader(dataset, BATCH, num_workers=workers, collate_fn=PaddedBatch)
    return (batch.signal.data for batch in loader)


def lhotse_loader(folder: Path, workers: int) -> Iterable[torch.Tensor]:
    """Return a loader as lhotse's documentation makes it."""
    from lhotse import CutSet
    from lhotse.dataset import SimpleCutSampler
    from lhotse.dataset.collation import collate_audio

    class Audio(torch.utils.data.Dataset):
        def __getitem__(self, cuts):
            return collate_audio(cuts)[0]

    path = folder / "cuts.jsonl"
    if not path.exists():
        write_cuts(path, Manifest(folder / "files.arrow"))
    cuts = CutSet.from_jsonl(path).resample(16000)
    sampler = SimpleCutSampler(cuts, max_cuts=BATCH, shuffle=False)
    return DataLoader(Audio(), sampler=sampler, batch_size=None, num_workers=workers)


def cpu_seconds() -> float:
    """Return the CPU time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def measure(make: Callable[[], Iterable[torch.Tensor]]) -> tuple[float, float, float]:
    """Read all once; returns seconds by the clock, CPU seconds, seconds of audio."""
    clock, cpu = time.perf_counter(), cpu_seconds()
    audio = 0
    loader = make()
    for batch in loader:
        audio += int((batch != 0).sum())  # decoded noise is nowhere exactly zero
    del loader
    return time.perf_counter() - clock, cpu_seconds() - cpu, audio / 16000


def main() -> None:
    """Print a Markdown table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--folder", required=True, help="for the clips; they are kept")
    options.add_argument("--clips", type=int, default=200)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    options = options.parse_args()
    torch.set_num_threads(1)
    folder = Path(options.folder)
    if not (folder / "tars.arrow").exists():
        make_files(folder, options.clips)
    total = sum(Manifest(folder / "tars.arrow").array("duration"))
    readers = {
        "ours, tars": lambda workers: ours(folder, "tars", workers),
        "ours, files": lambda workers: ours(folder, "files", workers),
        "SpeechBrain, files": lambda workers: speechbrain(folder, workers),
    }
    if importlib.util.find_spec("lhotse"):
        readers["lhotse, files"] = lambda workers: lhotse_loader(folder, workers)
    for reader in readers.values():  # imports, page cache
        measure(partial(reader, 0))
    print(f"{options.clips} clips, {total:.0f} s, Python {sys.version.split()[0]}\n")
    print("| reader | workers | audio s per CPU s | audio s per s and core |\n|---|---|---|---|")
    for workers in options.workers:
        best: dict[str, list[float]] = {name: [0.0, 0.0] for name in readers}
        for _ in range(options.rounds):
            for name, reader in readers.items():
                clock, cpu, audio = measure(partial(reader, workers))
                if abs(audio - total) > 0.02 * total:
                    raise RuntimeError(f"{name} read {audio:.0f} s instead of {total:.0f} s")
                speeds = audio / cpu, audio / clock / max(1, workers)
                best[name] = [max(pair) for pair in zip(best[name], speeds)]
        for name, (per_cpu, per_core) in best.items():
            print(f"| {name} | {workers} | {per_cpu:,.0f} | {per_core:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
