"""The error boundary of ``clsp``: however a command ends, users get one line and an exit code.

==== ===========================================================================================
code
==== ===========================================================================================
0    the command did its work
1    it did, and a check found something
2    wrong input, a file or server that fails, or too little memory; the line says what to do
70   a fault of this package; the line names a file with the traceback
130  interrupted (Ctrl-C)
141  nobody reads standard output any more (``clsp ... | head``)
==== ===========================================================================================
"""

from __future__ import annotations

import faulthandler
import logging
import os
import platform
import re
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from io import TextIOWrapper
from types import FrameType
from typing import IO, Any

from speechbrain_clsp import __version__
from speechbrain_clsp.utils.checks import LISTED

USER_ERROR = 2
INTERNAL_ERROR = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
BROKEN_PIPE = 141  # 128 + SIGPIPE
LONGEST_MESSAGE = 3000  # characters
# What the package raises for wrong input; a TypeError names a wrong value in a JSON or YAML file.
EXPECTED_ERRORS = (OSError, ValueError, TypeError)
MEMORY_ERRORS = (RuntimeError, OSError, ImportError)
OF_THE_GPU = re.compile(r"CUDA|CUBLAS|CUDNN|GPU|HIP|MPS", re.IGNORECASE)
# What torch and its libraries call it, as RuntimeErrors; and a worker that the kernel ended.
OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|ALLOC_FAILED"
    r"|failed to map segment from shared object|can't start new thread"
    r"|DataLoader worker .* killed by signal: Killed",
    re.IGNORECASE,
)


class Interrupts:
    """Turns SIGINT into KeyboardInterrupt, and remembers it where a library swallows that."""

    def __init__(self) -> None:
        self.seen = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal."""
        self.seen = True
        raise KeyboardInterrupt


def run_command(run: Callable[[Any], int | None], options: Any) -> int:
    """Run a command; its errors end in one line on stderr and an exit code.

    Arguments
    ---------
    run : callable
        Gets the options; returns the exit code, or None for 0.
    options : Any
        What it gets.

    Returns
    -------
    int
        The exit code, see above. SystemExit passes, as of ``--help``.

    Example
    -------
    >>> run_command(lambda options: None, None)
    0
    """
    interrupts = Interrupts()
    with _handling(interrupts):
        try:
            try:
                return run(options) or 0
            finally:
                flush_stdout()
        except Exception as error:
            if interrupts.seen and not isinstance(error, EXPECTED_ERRORS):
                return _interrupted()
            return _report(error)
        except KeyboardInterrupt:
            return _interrupted()


def run_script(run: Callable[[], object], name: str) -> int:
    """Run a recipe; wrong input ends in one line on stderr, any other error in its traceback.

    Arguments
    ---------
    run : callable
        Does the work.
    name : str
        Of the script, for the line.

    Returns
    -------
    int
        The exit code, 0 or 2.

    Example
    -------
    >>> run_script(lambda: None, "train.py")
    0
    """
    try:
        run()
    except EXPECTED_ERRORS as error:
        try:
            text = "".join(traceback.format_exception(error))
            where = f" (traceback in {write_temporary('traceback', text)})"
        except OSError:
            where = ""
        say(f"error: {shorten(error)}{where}", name)
        return USER_ERROR
    return 0


def flush_stdout() -> None:
    """Write what is left of standard output; raise OSError, and drop it, if that fails."""
    try:
        sys.stdout.flush()
    except OSError as error:
        _discard(1)
        if isinstance(error, BrokenPipeError):
            raise
        raise OSError(f"Standard output cannot be written: {error.strerror or error}") from error


def prepare_process() -> None:
    """Make a process of its own ready for a command: open streams, and names in any encoding.

    Where standard streams are closed, files that a command opens would get their numbers, and what
    libraries print would be written into them.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def end_process(code: int) -> None:
    """End the process at once after an interrupt; otherwise let a further one end it silently.

    Python would wait for threads, which may have hours of work left.
    """
    if code == INTERRUPTED:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    _end_at_interrupts()


def _end_at_interrupts() -> None:
    with suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def _handling(interrupts: Interrupts) -> Iterator[None]:
    """Let SIGINT go to ``interrupts``; only the main thread can."""
    try:
        before = signal.signal(signal.SIGINT, interrupts)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupted() -> int:
    _end_at_interrupts()
    say("interrupted")
    return INTERRUPTED


def say(message: str, program: str = "clsp") -> None:
    """Print a line to stderr, if anybody reads it."""
    line = " ".join(message.split())
    # What servers and files say may hold sequences that terminals obey.
    shown = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in line)
    try:
        print(f"{program}: {shown}", file=sys.stderr, flush=True)
    except (OSError, ValueError, AttributeError):
        _discard(2)


def _discard(descriptor: int) -> None:
    """Let what is left for a standard stream go nowhere: it would raise when Python ends."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)


def _report(error: Exception) -> int:
    """Say what went wrong; return the exit code."""
    if isinstance(error, BrokenPipeError):
        _discard(1)
        return BROKEN_PIPE
    memory = explain_memory(error)
    if memory:
        say(f"error: {memory}")
    elif isinstance(error, EXPECTED_ERRORS):
        say(f"error: {shorten(error)}")
    else:
        _report_fault(error)
        return INTERNAL_ERROR
    return USER_ERROR


def explain_memory(error: BaseException) -> str:
    """Return what to do if an error says that memory is used up, else "".

    Example
    -------
    >>> explain_memory(MemoryError("Unable to allocate 9 TiB"))[:36]
    'out of memory: Unable to allocate 9 '
    >>> explain_memory(RuntimeError("something else"))
    ''
    """
    text = " ".join(str(error).split())
    known = isinstance(error, MemoryError) or "OutOfMemoryError" in type(error).__name__
    if not (known or (isinstance(error, MEMORY_ERRORS) and OUT_OF_MEMORY.search(text))):
        return ""
    reason = f": {text[:200].rstrip('.')}" if text else ""
    if OF_THE_GPU.search(f"{type(error).__module__} {text}"):
        return (
            f"out of memory on the GPU{reason}. Close other programs that use it (see nvidia-smi),"
            " give fewer or shorter recordings, choose another GPU, or run with --device cpu"
        )
    return (
        f"out of memory{reason}. Close other programs, give fewer or shorter recordings at a time,"
        " or use a machine with more memory"
    )


def shorten(error: BaseException) -> str:
    """Return an error's message; where it names ten of many entries, with where all of them are.

    Errors about many files have them as attribute ``entries``, a list of str.

    Example
    -------
    >>> from speechbrain_clsp.utils.checks import join_some
    >>> error = ValueError(f"12 bad files: {join_some('abcdefghijkl')}")
    >>> error.entries = list("abcdefghijkl")
    >>> shorten(error)  # doctest: +ELLIPSIS
    '12 bad files: a; b; c; d; e; f; g; h; i; j; and 2 more (all are in ...clsp-list-....txt)'
    """
    message = str(error) or type(error).__name__
    entries = list(map(str, getattr(error, "entries", ())))
    if len(entries) > LISTED:
        message += _write_list("\n".join(entries))
    if len(message) > LONGEST_MESSAGE:
        return f"{message[:LONGEST_MESSAGE]}...{_write_list(message)}"
    return message


def _write_list(text: str) -> str:
    try:
        return f" (all are in {write_temporary('list', text)})"
    except OSError:  # nowhere to write: the count must do
        return ""


def _report_fault(error: Exception) -> None:
    """Say that there is a fault of this package, and where its traceback is."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    text = "".join(
        [
            f"clsp {__version__}, Python {platform.python_version()}, {platform.platform()}\n",
            f"{' '.join(sys.argv)}\n\n",
            getattr(error, "printed", ""),  # by libraries
            *traceback.format_exception(error),
        ]
    )
    try:
        where = f"in {write_temporary('fault', text)}"
    except OSError:
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(text)
        where = "above"
    say(f"internal error: {reason}. This is a fault of clsp: please report it, traceback {where}")


def write_temporary(kind: str, text: str) -> str:
    """Write a file that stays, in the folder for temporary files; returns its path.

    Example
    -------
    >>> path = write_temporary("list", "a.wav is empty")
    >>> os.path.basename(path).startswith("clsp-list-")
    True
    >>> os.unlink(path)
    """
    descriptor, path = tempfile.mkstemp(".txt", f"clsp-{kind}-")
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    return path


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep what libraries log, warn of or print to stderr away from the user.

    SpeechBrain logs every file that it loads, and the mp3 decoder, which is written in C, prints
    notes about a corrupted file to file descriptor 2. Inside, ``sys.stderr`` is the terminal, for
    progress bars, and file descriptor 2 a temporary file, whose content an exception that passes
    gets as attribute ``printed``. A crash in C (a segmentation fault, an abort) still shows where:
    ``faulthandler`` writes to the terminal.
    """
    descriptor = os.dup(2)
    logging.disable(logging.WARNING)
    with (
        os.fdopen(descriptor, "w", errors="backslashreplace") as terminal,
        _temporary_file() as file,
        redirect_stderr(terminal),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        os.dup2(file.fileno(), 2)
        ours = not faulthandler.is_enabled()
        if ours:
            faulthandler.enable(terminal)
        try:
            yield
        except Exception as error:
            file.seek(0)
            vars(error)["printed"] = file.read()
            raise
        finally:
            if ours:
                faulthandler.disable()
            os.dup2(descriptor, 2)
            logging.disable(logging.NOTSET)


def _temporary_file() -> IO[str]:
    """Return a file that is removed when it is closed; where there is no place for one, no file."""
    try:
        return tempfile.TemporaryFile("w+", errors="replace")
    except OSError:
        return open(os.devnull, "w+", errors="replace")
