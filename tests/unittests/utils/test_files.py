"""Hashes of files."""

import hashlib
import tracemalloc

from speechbrain_clsp.utils import sha256_of_file


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
