"""Hashes of files.

Authors
 * The speechbrain-clsp authors 2026
"""

from __future__ import annotations

import hashlib
import os

BLOCK = 1 << 20  # bytes


def sha256_of_file(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file's contents, which are read in blocks.

    Arguments
    ---------
    path : str or path
        A file of any size.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    OSError
        If the file cannot be read.

    Example
    -------
    >>> path = getfixture("tmp_path") / "empty"
    >>> path.touch()
    >>> sha256_of_file(path)[:8]
    'e3b0c442'
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
