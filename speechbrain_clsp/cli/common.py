"""What all commands of ``clsp`` share: the form of their options, and lists that they print."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from speechbrain_clsp.cli.boundary import SHOWN, USER_ERROR
from speechbrain_clsp.utils.files import atomic_write


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


def list_entries(entries: Sequence[str], path: Path, indent: str = "  ") -> str:
    """Return a list as commands print it: ten entries; of a longer one, where the rest is.

    Arguments
    ---------
    entries : sequence of str
        A line each.
    path : pathlib.Path
        Gets all of them if they are more than ten.
    indent : str
        In front of each.

    Example
    -------
    >>> print(list_entries([f"{n}.wav is empty" for n in range(99)],
    ...                    getfixture("tmp_path") / "x.npz.bad.txt")) # doctest: +ELLIPSIS
      0.wav is empty
    ...
      9.wav is empty
      and 89 more: .../x.npz.bad.txt
    """
    lines = list(entries[:SHOWN])
    if len(entries) > SHOWN:
        atomic_write(path, "\n".join(entries) + "\n")
        lines.append(f"and {len(entries) - SHOWN} more: {path}")
    return "\n".join(indent + line for line in lines)
