"""Small needs of all rooms, each once.

Files written atomically and their hashes, processes that train together, pieces of pages. Nothing
here knows about speech.
"""

from speechbrain_clsp.utils.files import (
    atomic_path,
    atomic_write,
    check_replaceable,
    parse_key_values,
    sha256_of_file,
)

__all__ = [
    "atomic_path",
    "atomic_write",
    "check_replaceable",
    "parse_key_values",
    "sha256_of_file",
]
