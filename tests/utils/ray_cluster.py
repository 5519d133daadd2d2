"""A Ray cluster of real nodes on this machine, any of which can be killed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def two_nodes() -> Iterator:
    """Start a head node without processors, and two nodes with one each; yields the cluster."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    node = {"include_dashboard": False, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **node})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, **node)
        yield cluster
    finally:
        cluster.shutdown()


def kill_node_of(cluster, process: int) -> bool:
    """Kill the node that a worker process belongs to; returns False if the process has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False
    parent = int(status.partition("PPid:")[2].split()[0])
    for node in list(cluster.worker_nodes):
        if node.all_processes["raylet"][0].process.pid == parent:
            cluster.remove_node(node, allow_graceful=False)
            return True
    return False
