"""A training that is killed and resumed is the training that was never killed."""

import multiprocessing
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from tqdm import tqdm

from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.training.checkpointer import AtomicCheckpointer
from tests.utils.buzzes import fit, new_brain, write_buzzes

EPOCHS = 3
# Forked processes share what is imported already, and are there at once.
FORK = multiprocessing.get_context("fork")


def train(folder: Path, data: Path, rank: int = 0, world_size: int = 1) -> None:
    """Train with a checkpoint at every step; at last write down everything."""
    os.setpgid(0, 0) if world_size == 1 else None
    torch.set_num_threads(1)
    # tqdm's own lock is one for all forks of a process: whoever is killed with it stops the others.
    tqdm.set_lock(threading.RLock())
    options = {"ckpt_interval_steps": 1, "ckpt_interval_minutes": 0}
    if world_size > 1:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
        store = f"file://{folder}/store{os.environ['ATTEMPT']}"
        torch.distributed.init_process_group(
            "gloo", init_method=store, rank=rank, world_size=world_size
        )
        options |= {"distributed_launch": True, "distributed_backend": "gloo"}
    brain = new_brain(EPOCHS, AtomicCheckpointer(folder / "save"), **options)
    fit_batch = brain.fit_batch

    def noted(batch):
        loss = fit_batch(batch)
        place = (brain.epoch_counter.current, brain.step)
        with open(folder / f"seen{rank}", "a", encoding="utf-8") as file:
            file.write(f"{place} {batch.ids} {loss.item()!r} {torch.rand(1).item()!r}\n")
        return loss

    brain.fit_batch = noted
    fit(brain, Manifest(data / "train.arrow"), batch_size=4 // world_size)
    if rank == 0:
        everything = {
            "weights": {k: v for k, v in brain.modules.state_dict().items()},
            "optimizer": brain.optimizer.state_dict(),
            "average": brain.model_average.state_dict(),
        }
        torch.save(everything, folder / "end.partial")
        os.replace(folder / "end.partial", folder / "end.pt")
    os._exit(0)  # no destructors: see processes.py


def start(folder: Path, data: Path, world_size: int, attempt: int) -> list:
    """Start all ranks."""
    os.environ["ATTEMPT"] = str(attempt)
    processes = [
        FORK.Process(target=train, args=(folder, data, rank, world_size))
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    return processes


def finish(processes: list) -> None:
    """Wait for an end without an error."""
    for process in processes:
        process.join(120)
        assert process.exitcode == 0


def seen(folder: Path, rank: int) -> dict[str, str]:
    """Return what each step saw, the last time that it was done."""
    lines = (folder / f"seen{rank}").read_text(encoding="utf-8").splitlines()
    return dict(line.split(") ", 1) for line in lines)


@pytest.mark.parametrize("world_size, kills", [(1, 50), (2, 6)])
def test_kills_at_any_moment_change_nothing(tmp_path, world_size, kills):
    """If this fails, a preempted job trains another model, or cannot go on at all."""
    data, whole, killed = (tmp_path / name for name in ("data", "whole", "killed"))
    for folder in (data, whole, killed):
        folder.mkdir()
    write_buzzes(data)
    begin = time.perf_counter()
    finish(start(whole, data, world_size, 0))
    length = time.perf_counter() - begin
    chance, n_kills = random.Random(world_size), 0
    for attempt in range(10 * kills):
        processes = start(killed, data, world_size, attempt)
        time.sleep(chance.uniform(0.1, 0.8) * length)
        if (killed / "end.pt").exists() or all(p.exitcode == 0 for p in processes):
            finish(processes)
            if n_kills >= kills:
                break
            # Too quick for this time: begin again.
            for path in (killed / "end.pt", killed / "seen0", killed / "seen1"):
                path.unlink(missing_ok=True)
            os.rename(killed / "save", killed / f"save{attempt}")
            continue
        n_kills += 1
        for process in processes:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
    finish(start(killed, data, world_size, 10 * kills))
    assert n_kills >= kills
    for rank in range(world_size):
        assert seen(killed, rank) == seen(whole, rank)
    expected, found = (torch.load(f / "end.pt", weights_only=True) for f in (whole, killed))
    torch.testing.assert_close(found, expected, atol=0, rtol=0)
