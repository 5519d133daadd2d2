"""Atomic writes, hashes of files, and KEY=VALUE settings."""

import hashlib
import subprocess
import sys
import tracemalloc

import pytest

from speechbrain_clsp.utils import (
    atomic_path,
    atomic_write,
    check_replaceable,
    parse_key_values,
    sha256_of_file,
)

KILLED = """
import os, signal, sys
from speechbrain_clsp.utils import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_large_file_is_hashed_in_the_memory_of_a_block(tmp_path):
    content = bytes(range(256)) * (1 << 16)  # 16 MiB
    path = tmp_path / "large"
    path.write_bytes(content)
    tracemalloc.start()
    found = sha256_of_file(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == hashlib.sha256(content).hexdigest()
    assert peak < 4e6


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_what_was_there_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.txt"
    atomic_write(path, "old")
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_text("half of the new")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed_by_the_next_write(tmp_path):
    path, other = tmp_path / "a.txt", tmp_path / ".b.txt.partial"
    other.write_text("not ours")
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert not path.exists() and len(list(tmp_path.iterdir())) == 2
    atomic_write(path, "whole")
    assert path.read_text() == "whole" and sorted(tmp_path.iterdir()) == sorted([path, other])


@pytest.mark.parametrize("settings", [["a"], ["=b"], ["a=1", "a=2"]])
def test_settings_that_are_not_key_and_value_are_named(settings):
    with pytest.raises(ValueError, match=f"--folder '{settings[-1].partition('=')[0]}"):
        parse_key_values(settings, "--folder")


def test_only_what_is_recognized_may_be_replaced(tmp_path):
    path = tmp_path / "a.json"

    def is_ours(there) -> bool:
        return there.read_bytes().decode().startswith("{")

    path.touch()
    check_replaceable(path, is_ours, "a report")  # nothing is lost
    path.write_text("{}")
    check_replaceable(path, is_ours, "a report")
    for content in (b"my only copy", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(FileExistsError, match="a.json exists and is not a report"):
            check_replaceable(path, is_ours, "a report")
    with pytest.raises(FileExistsError, match="is not a report"):
        check_replaceable(tmp_path, is_ours, "a report")
