"""Claims on pieces of work that many processes share, on one machine or on a shared file system.

A claim is a file that only one process can create. Its process touches it again and again; if that
stops, as after a kill, the claim is stale and another process takes it over. Two processes may, at
worst, do the same piece: what they write must not depend on who writes it.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import uuid
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from speechbrain_clsp.utils.files import HOST, is_running

STALE_AFTER = 120.0  # seconds without a sign of life


class Lease:
    """A claim that this process holds; leave it as a context manager.

    Arguments
    ---------
    path : pathlib.Path
        Its file, which names this process.
    token : str
        What the file holds.
    stale_after : float
        Seconds without a sign of life after which others take it over.
    """

    def __init__(self, path: Path, token: str, stale_after: float) -> None:
        self.path, self._token = path, token
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=self._beat, args=(stale_after / 6,), name="lease", daemon=True
        )

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        if self.is_held():
            self.path.unlink(missing_ok=True)

    def is_held(self) -> bool:
        """Return whether no other process has taken the claim over."""
        return _read(self.path) == self._token

    def _beat(self, pause: float) -> None:
        while not self._ended.wait(pause):
            with suppress(OSError):  # the next beat may succeed
                if not self.is_held():
                    return
                os.utime(self.path)


def claim(path: Path, stale_after: float = STALE_AFTER) -> Lease | None:
    """Claim a piece of work; returns None if another process has it.

    Arguments
    ---------
    path : pathlib.Path
        The file that stands for it, in a folder that is there.
    stale_after : float
        Seconds without a sign of life after which the claim of another process counts no more. That
        of a process that is dead and was on this machine never counts.

    Example
    -------
    >>> path = getfixture("tmp_path") / "1.lease"
    >>> with claim(path) as lease:
    ...     lease.is_held(), claim(path)
    (True, None)
    >>> path.exists()
    False
    """
    owner = {"host": HOST, "process": os.getpid(), "token": uuid.uuid4().hex}
    token = json.dumps(owner)
    if not _create(path, token):
        if not _is_stale(path, stale_after):
            return None
        moved = path.with_name(f"{path.name}.{owner['token']}")
        try:
            os.rename(path, moved)  # only one of several processes succeeds
        except FileNotFoundError:
            return None
        moved.unlink()
        if not _create(path, token):
            return None
    return Lease(path, token, stale_after)


def _create(path: Path, token: str) -> bool:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(token)
    return True


def _is_stale(path: Path, stale_after: float) -> bool:
    try:
        owner = json.loads(_read(path) or "{}")
        if owner.get("host") == HOST and not is_running(owner["process"]):
            return True
        # Times are compared as the file system gives them: clocks of machines differ.
        with tempfile.TemporaryFile(dir=path.parent) as probe:
            now = os.fstat(probe.fileno()).st_mtime
        return now - path.stat().st_mtime > stale_after
    except FileNotFoundError:  # it has just been given up
        return False


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
