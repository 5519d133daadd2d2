"""Several processes that train together: joining them, and gathering their embeddings."""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed
from speechbrain.utils.distributed import ddp_init_group
from torch import Tensor
from torch.distributed.nn.functional import all_gather
from torch.nn.functional import pad


def rank_and_world_size() -> tuple[int, int]:
    """Return (rank, world size); (0, 1) without distributed training.

    Example
    -------
    >>> rank_and_world_size()
    (0, 1)
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def all_gather_scalars(numbers: Sequence[float], device: torch.device | str) -> list[list[float]]:
    """Gather some numbers of every process.

    Arguments
    ---------
    numbers : sequence of float
        This process's n numbers.
    device : torch.device
        Where the backend works: ``cpu`` for gloo, the GPU for nccl.

    Returns
    -------
    list of list of float
        n lists of W numbers in the order of ranks.

    Example
    -------
    >>> all_gather_scalars([3, 4], "cpu")
    [[3.0], [4.0]]
    """
    if rank_and_world_size()[1] == 1:
        return [[float(number)] for number in numbers]
    mine = torch.tensor([numbers], dtype=torch.float64, device=device)
    everyones = mine.new_empty(rank_and_world_size()[1], len(numbers))
    torch.distributed.all_gather_into_tensor(everyones, mine)
    return everyones.T.tolist()


def gather_embeddings(local: Tensor, counts: Sequence[int] | None = None) -> Tensor:
    """Join the embeddings of all processes along the batch, so that gradients flow to their owners.

    Each process's gradient is the sum of what all processes' losses contribute. DDP then averages
    over processes, which gives the gradient of the mean of their losses, exactly.

    Arguments
    ---------
    local : Tensor
        [..., B, D]. Integers are gathered too, without gradients.
    counts : sequence of int, optional
        B of every process, 0 allowed; default: the same everywhere.

    Returns
    -------
    Tensor
        [..., sum of counts, D] in the order of ranks; ``local`` itself in a single process.

    Raises
    ------
    ValueError
        If this process's count is not B.

    Example
    -------
    >>> gather_embeddings(torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """
    rank, world_size = rank_and_world_size()
    if world_size == 1:
        return local
    size = local.shape[-2]
    counts = [size] * world_size if counts is None else counts
    if counts[rank] != size:
        raise ValueError(f"Rank {rank} has {size} rows, not {counts[rank]} as counts say")
    padded = pad(local, (0, 0, 0, max(counts) - size)).contiguous()
    parts = all_gather(padded)
    return torch.cat([part[..., :count, :] for part, count in zip(parts, counts)], dim=-2)


def join_processes(run_opts: dict[str, Any]) -> None:
    """Join the other processes that torchrun started, if any, and leave them in good order.

    Without leaving, threads of the process group may be alive when Python ends, which aborts the
    process ("terminate called without an active exception") and makes torchrun stop the others.

    Arguments
    ---------
    run_opts : dict
        As ``speechbrain.parse_arguments`` returns it; names the backend.

    Example
    -------
    >>> join_processes({"distributed_backend": "gloo"})  # alone: nothing to join
    """
    ddp_init_group(run_opts)
    if torch.distributed.is_initialized():
        atexit.register(torch.distributed.destroy_process_group)
