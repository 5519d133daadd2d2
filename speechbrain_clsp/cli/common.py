"""What all commands of ``clsp`` share: their form, their errors and what reaches the terminal."""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any, NoReturn

USER_ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
BROKEN_PIPE = 141  # 128 + SIGPIPE
# What the package raises for wrong input; a TypeError names a wrong value in a JSON or YAML file.
EXPECTED_ERRORS = (OSError, ValueError, TypeError)


class Parser(argparse.ArgumentParser):
    """An argument parser that reports a wrong command line in one line."""

    def error(self, message: str) -> NoReturn:
        """Print the message and leave with exit code 2."""
        self.exit(USER_ERROR, f"clsp: error: {message} (see {self.prog} --help)\n")


def add_command(
    commands: argparse._SubParsersAction,
    run: Callable[[argparse.Namespace], int | None],
    name: str,
    description: str,
    example: str,
) -> argparse.ArgumentParser:
    """Add a command with an example in its help.

    Arguments
    ---------
    commands : argparse subparsers
        Where it goes.
    run : callable
        Gets the parsed options; returns the exit code, or None for 0.
    name : str
        What follows ``clsp`` on the command line.
    description : str
        One sentence, in lower case and without a period.
    example : str
        A command line that a user can copy.

    Example
    -------
    >>> commands = Parser(prog="clsp").add_subparsers()
    >>> command = add_command(commands, print, "score", "compare by a CLSP", "clsp score a.wav")
    >>> command.prog, command.description, command.epilog
    ('clsp score', 'Compare by a CLSP', 'example: clsp score a.wav')
    """
    command = commands.add_parser(
        name,
        help=description,
        description=description[0].upper() + description[1:],
        epilog=f"example: {example}",
    )
    command.set_defaults(run=run)
    return command


def run_command(run: Callable[[Any], int | None], options: Any) -> int:
    """Run a command; its errors end in one line on stderr and an exit code.

    The code is what ``run`` returns, or 0; 2 after an error of the user's; 130 when interrupted;
    141 when nobody reads stdout any more. Other exceptions pass: they are faults of this package.
    """
    try:
        with quiet_libraries():
            code = run(options) or 0
            sys.stdout.flush()
            return code
    except BrokenPipeError:
        # What is left in the buffer would raise again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return BROKEN_PIPE
    except KeyboardInterrupt:
        print("clsp: interrupted", file=sys.stderr)
        return INTERRUPTED
    except EXPECTED_ERRORS as error:
        print(f"clsp: error: {' '.join(str(error).split())}", file=sys.stderr)
        return USER_ERROR


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep what libraries log, warn of or print to stderr away from the user.

    SpeechBrain logs every file that it loads, and the mp3 decoder, which is written in C, prints
    notes about a corrupted file to file descriptor 2. Inside, ``sys.stderr`` is the terminal, for
    progress bars, and file descriptor 2 a temporary file. A crash in C (a segmentation fault, an
    abort) still shows where: ``faulthandler`` writes to the terminal. If an unexpected exception
    passes, what was captured is printed before its traceback.
    """
    descriptor = os.dup(2)
    logging.disable(logging.WARNING)
    with (
        os.fdopen(descriptor, "w") as terminal,
        tempfile.TemporaryFile("w+", errors="replace") as captured,
        redirect_stderr(terminal),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        os.dup2(captured.fileno(), 2)
        ours = not faulthandler.is_enabled()
        if ours:
            faulthandler.enable(terminal)
        try:
            yield
        except (KeyboardInterrupt, *EXPECTED_ERRORS):
            raise
        except BaseException:
            captured.seek(0)
            shutil.copyfileobj(captured, terminal)
            raise
        finally:
            if ours:
                faulthandler.disable()
            os.dup2(descriptor, 2)
            logging.disable(logging.NOTSET)
