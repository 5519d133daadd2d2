"""Files written atomically, file hashes, and ``KEY=VALUE`` settings of command lines."""

from __future__ import annotations

import glob
import hashlib
import os
import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

HOST = platform.node() or "localhost"  # in the names of temporary files


def expand(path: str | os.PathLike) -> Path:
    """Return a path whose ``~`` is replaced by the home folder, as a shell does.

    Example
    -------
    >>> expand("~/a.wav") == Path.home() / "a.wav"
    True
    """
    return Path(os.path.expanduser(path))


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that takes its place when the block ends well.

    The file is synced to disk before it is renamed, so that ``path`` is complete whenever it
    exists, also after a kill or a power cut. If the block raises, the temporary file is removed and
    what was at ``path`` before stays. What a killed process left is removed by the next one.

    Arguments
    ---------
    path : str or path
        The file to write; its folder is made if it does not exist.

    Yields
    ------
    pathlib.Path
        Where to write. It has the suffix of ``path``, since libraries choose formats by it.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.txt"
    >>> with atomic_path(path) as temporary:
    ...     _ = temporary.write_text("all of it")
    >>> path.read_text(), [file.name for file in path.parent.iterdir()]
    ('all of it', ['a.txt'])
    """
    path = expand(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    temporary = path.with_name(f".{path.stem}.{HOST}-{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _remove_abandoned(path: Path) -> None:
    """Remove temporary files of ``path`` whose process, on this machine, was killed."""
    start = f".{path.stem}.{HOST}-"
    for left in path.parent.glob(f"{glob.escape(start)}*.partial{glob.escape(path.suffix)}"):
        process = left.name.removeprefix(start).partition(".")[0]
        if process.isdigit() and not is_running(int(process)):
            left.unlink(missing_ok=True)


def is_running(process: int) -> bool:
    """Return whether a process of this machine is alive, by its number.

    Example
    -------
    >>> is_running(os.getpid())
    True
    """
    if os.name == "nt":  # signal 0 is Ctrl-C there
        return True
    try:
        os.kill(process, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)  # else it belongs to somebody else
    return True


def atomic_write(path: str | os.PathLike, content: str | bytes) -> None:
    """Write a file atomically; see :func:`atomic_path`.

    Arguments
    ---------
    path : str or path
        The file to write or replace.
    content : str or bytes
        All of it; text is written as UTF-8.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.json"
    >>> atomic_write(path, "{}")
    >>> path.read_text()
    '{}'
    """
    content = content.encode() if isinstance(content, str) else content
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def check_replaceable(
    path: str | os.PathLike, is_ours: Callable[[Path], bool], content: str
) -> None:
    """Raise if there is something at a path that may not be replaced.

    Whoever writes a file whose name a user chose calls this before any work.

    Arguments
    ---------
    path : str or path
        What is about to be written.
    is_ours : callable
        Takes the path of a file that is not empty and returns whether it holds what this package
        writes there. ValueError means no.
    content : str
        What such a file holds, for the message.

    Raises
    ------
    FileExistsError
        If there is another file, or a folder.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.json"
    >>> check_replaceable(path, lambda path: False, "a report")
    >>> _ = path.write_text("my only copy")
    >>> check_replaceable(path, lambda path: False, "a report")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    FileExistsError: .../a.json exists and is not a report: ...
    """
    path = expand(path)
    if not path.exists():
        return
    try:
        known = path.is_file() and (not path.stat().st_size or is_ours(path))
    except ValueError:
        known = False
    if not known:
        raise FileExistsError(
            f"{path} exists and is not {content}: it is left as it is; move it away, or choose"
            " another name"
        )


def sha256_of_file(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file's content.

    Arguments
    ---------
    path : str or path
        The file, which is streamed.

    Returns
    -------
    str
        64 hexadecimal digits.

    Example
    -------
    >>> path = getfixture("tmp_path") / "empty"
    >>> path.touch()
    >>> sha256_of_file(path)[:8]
    'e3b0c442'
    """
    digest = hashlib.sha256()
    with open(expand(path), "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def parse_key_values(settings: Iterable[str], option: str = "setting") -> dict[str, str]:
    """Read the ``KEY=VALUE`` arguments of a command-line option.

    Arguments
    ---------
    settings : iterable of str
        The arguments.
    option : str
        What messages call the option.

    Returns
    -------
    dict of str to str
        In the order given.

    Raises
    ------
    ValueError
        If an argument has no ``=``, an empty key, or a key that occurred before.

    Example
    -------
    >>> parse_key_values(["ears=data/ears", "voxceleb1=data/vox=1"])
    {'ears': 'data/ears', 'voxceleb1': 'data/vox=1'}
    """
    found: dict[str, str] = {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator or not key:
            raise ValueError(f"{option} {setting!r} is not of the form KEY=VALUE")
        if key in found:
            raise ValueError(f"{option} {key!r} is given twice")
        found[key] = value
    return found
