"""The command ``clsp``: scores, embeddings and classes from the shell."""

from __future__ import annotations

import sys

from speechbrain_clsp import __version__
from speechbrain_clsp.cli import annotate, data, evaluate, judge, models, rate
from speechbrain_clsp.cli.common import Parser, run_command


def main(arguments: list[str] | None = None) -> int:
    """Run what follows ``clsp``, by default that of the command line; return the exit code.

    It is 0; 1 if a check found something; 2 after an error of the user's; see
    :func:`speechbrain_clsp.cli.common.run_command`.
    """
    options = parser().parse_args(arguments)
    return run_command(options.run, options)


def parser() -> Parser:
    """Return the command's parser."""
    top = Parser(
        prog="clsp",
        description="Compare speech with descriptions of how it is spoken.",
        epilog='example: clsp score a.wav "A man whispers." "A woman speaks quickly."',
    )
    top.add_argument("--version", action="version", version=f"clsp {__version__}")
    commands = top.add_subparsers(required=True)
    for module in (models, data, evaluate, annotate, judge, rate):
        module.add_commands(commands)
    return top


if __name__ == "__main__":
    sys.exit(main())
