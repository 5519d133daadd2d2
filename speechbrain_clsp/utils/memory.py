"""The C library's allocator."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, for what it allocates next.

    By default glibc returns blocks of a tensor's size to the kernel at once, which hands them out
    again as zeroed pages: a fifth of the time of training and embedding on a CPU. In return the
    process stays as large as it ever was.

    Returns
    -------
    bool
        Whether the C library knows how: glibc does.

    Example
    -------
    >>> keep_freed_memory() in (True, False)
    True
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))
