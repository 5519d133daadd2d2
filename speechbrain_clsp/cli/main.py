"""The command ``clsp``: scores, embeddings and classes from the shell.

Nothing but ``sys`` is imported before errors and interrupts are handled.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from speechbrain_clsp.cli.common import Parser


def main(arguments: list[str] | None = None) -> int:
    """Run what follows ``clsp`` on the command line; return the exit code.

    Arguments
    ---------
    arguments : list of str, optional
        Default: those of this process, which then ends with the command: its streams are prepared
        for it, and a second interrupt ends it at once.

    Returns
    -------
    int
        See :mod:`speechbrain_clsp.cli.boundary`.
    """
    try:
        from speechbrain_clsp.cli.boundary import end_process, prepare_process, run_command

        if arguments is None:
            prepare_process()
        code = run_command(_run, arguments)
        if arguments is None:
            end_process(code)
        return code
    except KeyboardInterrupt:  # in the imports above, or between two lines
        sys.stderr.write("clsp: interrupted\n")
        return 130


def _run(arguments: list[str] | None) -> int | None:
    from speechbrain_clsp.cli.boundary import quiet_libraries
    from speechbrain_clsp.cli.common import expand_home

    options = expand_home(parser().parse_args(arguments))
    with quiet_libraries():
        return options.run(options)


def parser() -> Parser:
    """Return the command's parser."""
    from speechbrain_clsp import __version__
    from speechbrain_clsp.cli import (
        annotate,
        data,
        evaluate,
        judge,
        models,
        rate,
        search,
        serve,
        train,
    )
    from speechbrain_clsp.cli.common import Parser

    top = Parser(
        prog="clsp",
        description="Compare speech with descriptions of how it is spoken.",
        epilog='example: clsp score a.wav "A man whispers." "A woman speaks quickly."',
    )
    top.add_argument("--version", action="version", version=f"clsp {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND")
    for module in (models, search, serve, data, train, evaluate, annotate, judge, rate):
        module.add_commands(commands)
    top.set_defaults(run=lambda _: top.error(f"name a command of {{{','.join(commands.choices)}}}"))
    return top


if __name__ == "__main__":
    sys.exit(main())
