"""Several processes that train together.

Authors
 * The speechbrain-clsp authors 2026
"""

from __future__ import annotations

import atexit
from typing import Any

import torch
from speechbrain.utils.distributed import ddp_init_group


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
