"""Small needs of all rooms, each once.

Text files of users, files written atomically and their hashes, processes that train together,
pieces of pages. Nothing here knows about speech.
"""

from speechbrain_clsp.utils.files import (
    atomic_path,
    atomic_write,
    check_replaceable,
    parse_key_values,
    sha256_of_file,
)
from speechbrain_clsp.utils.reading import read_csv, read_json, read_json_lines, read_text

__all__ = [
    "atomic_path",
    "atomic_write",
    "check_replaceable",
    "parse_key_values",
    "read_csv",
    "read_json",
    "read_json_lines",
    "read_text",
    "sha256_of_file",
]
