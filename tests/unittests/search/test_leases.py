"""Claims: one holder at a time, taken over from the dead and from the silent, not from others."""

import json
import multiprocessing
import os
import time

from speechbrain_clsp.search.leases import claim
from speechbrain_clsp.utils.files import HOST


def foreign(path, host="elsewhere", process=1):
    """Write the claim of another process."""
    path.write_text(json.dumps({"host": host, "process": process, "token": "x"}))


def test_only_one_process_gets_a_claim(tmp_path):
    path = tmp_path / "a.lease"
    with claim(path) as lease:
        assert lease.is_held()
        assert claim(path) is None
    assert list(tmp_path.iterdir()) == []
    assert claim(path) is not None


def test_the_claim_of_a_dead_process_counts_no_more(tmp_path):
    path = tmp_path / "a.lease"
    child = multiprocessing.get_context("fork").Process(target=os._exit, args=(0,))
    child.start()
    child.join()
    foreign(path, HOST, child.pid)
    assert claim(path) is not None
    foreign(path, "elsewhere", child.pid)  # what lives there is not known here
    assert claim(path) is None


def test_a_claim_without_sign_of_life_is_taken_over_and_one_with_is_not(tmp_path):
    path = tmp_path / "a.lease"
    foreign(path)
    assert claim(path, stale_after=60) is None
    os.utime(path, (time.time() - 61, time.time() - 61))
    with claim(path, stale_after=0.3) as lease:
        time.sleep(0.6)  # heartbeats go on
        assert claim(path, stale_after=0.3) is None
        foreign(path)
        assert not lease.is_held()
    assert path.exists()  # what another process holds is not given up
