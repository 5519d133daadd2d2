"""Run a function in real gloo processes, with a deadline."""

import os
import time
from collections.abc import Callable

import torch
import torch.multiprocessing


def _enter(rank: int, function: Callable, world_size: int, folder: str, args: tuple) -> None:
    """Join the process group, call the function and leave without destructors."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size
    )
    function(rank, folder, *args)
    torch.distributed.barrier()
    # torch 2.11's DDP frees the gloo group while it holds the GIL; gloo's thread may want the GIL
    # to free a tensor at that moment, and the process would never end.
    os._exit(0)


def run_processes(
    function: Callable, world_size: int, folder, *args, seconds: float = 120.0
) -> None:
    """Call ``function(rank, folder, *args)`` in each process; kill all after ``seconds``."""
    context = torch.multiprocessing.spawn(
        _enter, (function, world_size, str(folder), args), nprocs=world_size, join=False
    )
    deadline = time.time() + seconds
    try:
        while not context.join(timeout=1):
            assert time.time() < deadline, (
                f"no end after {seconds} s: processes wait for each other"
            )
    finally:
        for process in context.processes:
            process.kill()
