"""Tasks on a Ray cluster that is running already; needs the extra ``ray``.

Ray decides where a task runs and gives it again if its node dies. Whether its work is done is not
for Ray to say: tasks claim what they do and leave it complete, as processes without Ray do.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlsplit

from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

RETRIES = 10  # of a task whose node or process dies
SUBMITTED = 1000  # tasks that Ray has at a time
CONNECT_WITHIN = 10.0  # seconds
BUSY_PAUSE = 1.0  # seconds before a piece of work that another process has is tried again

Item = TypeVar("Item")
Result = TypeVar("Result")


class RayCluster:
    """A connection to a cluster; enter it as a context manager.

    The nodes need this package, in the same version, and a common file system. Tasks run in this
    process's working directory, where a node has it.

    Arguments
    ---------
    address : str
        ``HOST:PORT`` of the head node, ``ray://HOST:PORT`` of its client server, or ``auto`` on a
        machine of the cluster.
    cpus, gpus : int
        What a task takes of its node.

    Raises
    ------
    ConnectionError
        If no cluster answers there.
    ValueError
        If ``ray`` is not installed, or the cluster has another version of it or of Python.

    Example
    -------
    >>> RayCluster("nowhere")
    Traceback (most recent call last):
    ...
    ValueError: --ray nowhere: write HOST:PORT of the cluster's head node, or auto
    """

    def __init__(self, address: str, cpus: int = 1, gpus: int = 0) -> None:
        self.address, self.cpus, self.gpus = address, cpus, gpus
        try:
            place = urlsplit(address if "://" in address else f"ray://{address}")
            self._place = None if address == "auto" else (place.hostname or "", place.port or 0)
        except ValueError:
            self._place = ("", 0)
        if self._place is not None and not all(self._place):
            raise ValueError(
                f"--ray {address}: write HOST:PORT of the cluster's head node, or auto"
            )
        try:
            import ray
        except ImportError as error:
            raise ValueError(
                "--ray needs the package ray: pip install 'speechbrain-clsp[ray]'"
            ) from error
        self._ray = ray

    def __enter__(self) -> RayCluster:
        try:
            if self._place is not None:  # Ray itself would wait for minutes
                socket.create_connection(self._place, CONNECT_WITHIN).close()
            self._ray.init(self.address, logging_level="ERROR", log_to_driver=False)
        except OSError as error:
            raise ConnectionError(
                f"--ray {self.address}: no cluster answers there ({error}); start one by ray start"
            ) from error
        except RuntimeError as error:
            raise ValueError(f"--ray {self.address}: {error}") from error
        for name, wanted in (("CPU", self.cpus), ("GPU", self.gpus)):
            nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            if wanted > max((node.get(name, 0) for node in nodes), default=0):
                logger.warning(
                    "No node of %s has %d %s: tasks wait for one", self.address, wanted, name
                )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ray.shutdown()  # ends tasks that are still running

    def run(
        self, work: Callable[[Item], Result | None], items: Iterable[Item]
    ) -> Iterator[tuple[Item, Result]]:
        """Call a function in a task for each item; yield results in the order in which tasks end.

        Arguments
        ---------
        work : callable
            Can be pickled. Returns None if another process is at the item, which is then given
            again.
        items : iterable
            What it gets.

        Raises
        ------
        OSError
            If a task was lost with its process or node more often than Ray gives it again.
        Exception
            What ``work`` raises; tasks that are running are ended when the cluster is left.
        """
        task = self._ray.remote(
            num_cpus=self.cpus, num_gpus=self.gpus, max_retries=RETRIES, max_calls=0
        )(_call)
        shared, folder = self._ray.put(work), os.getcwd()
        waiting = deque(items)
        running: dict[Any, Any] = {}  # what each task that was given to Ray works on
        while waiting or running:
            while waiting and len(running) < SUBMITTED:
                item = waiting.popleft()
                running[task.remote(shared, item, folder)] = item
            (ended,), _ = self._ray.wait(list(running), num_returns=1)
            item = running.pop(ended)
            result = self._result(ended, item)
            if result is None:
                waiting.append(item)
            else:
                yield item, result

    def _result(self, reference: Any, item: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as error:
            raise error.cause from error
        except errors.RayError as error:
            reason = str(error).partition("\n")[0]
            raise OSError(
                f"--ray {self.address}: task {item} was lost {RETRIES + 1} times ({reason}); see"
                " the logs of the cluster, then give the same command again"
            ) from error


def _call(work: Callable[[Item], Result | None], item: Item, folder: str) -> Result | None:
    """Run in a process of the cluster."""
    with suppress(OSError):  # absolute paths may be all that is needed
        os.chdir(folder)
    result = work(item)
    if result is None:
        time.sleep(BUSY_PAUSE)
    return result
