"""A cluster that is not there, or cannot be reached, is told in one line; others: test_ray.py."""

import socket
import sys
import time

import pytest

from speechbrain_clsp.utils.cluster import RayCluster


@pytest.mark.parametrize("address", ["", "head", "head:", "head:port", ":6379", "ray://head"])
def test_addresses_without_host_and_port_are_refused(address):
    with pytest.raises(ValueError, match="write HOST:PORT of the cluster's head node, or auto"):
        RayCluster(address)


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}"])
def test_where_no_cluster_answers_it_ends_at_once(address):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = address.format(port=free.getsockname()[1])
    started = time.monotonic()
    with pytest.raises(ConnectionError, match="no cluster answers there .*ray start"):
        RayCluster(place).__enter__()
    assert time.monotonic() - started < 60


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'speechbrain-clsp\[ray\]'"):
        RayCluster("auto")
