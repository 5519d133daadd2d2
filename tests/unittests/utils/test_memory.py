"""Memory that is freed stays in the process."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, resource, sys
from speechbrain_clsp.utils.memory import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(2**26)
    ctypes.memset(block, 1, 2**26)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if "keep" in sys.argv:
    assert keep_freed_memory()
print(faults(), faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
@pytest.mark.parametrize("keep", [False, True])
def test_a_block_costs_page_faults_once(keep):
    command = [sys.executable, "-c", SCRIPT, "keep" if keep else "default"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    first, second = map(int, output.split())
    assert (second < first / 10) == keep
