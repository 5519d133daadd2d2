"""The public names and command-line options, as two sorted lists that a test compares with files.

After a change that is meant, write the files anew:

> python -m tests.consistency.frozen_names
"""

import argparse
import importlib
import inspect
import pkgutil
from pathlib import Path

import speechbrain_clsp
from tests.utils.command_line import command_parsers

FOLDER = Path(__file__).parent
NAMES_FILE = FOLDER / "public_names.txt"
OPTIONS_FILE = FOLDER / "cli_options.txt"


def public_names() -> list[str]:
    """Return ``room.Name(signature)`` of what each room hands on in ``__all__``."""
    rooms = [module.name for module in pkgutil.iter_modules(speechbrain_clsp.__path__)]
    lines = []
    for room in ["speechbrain_clsp", *(f"speechbrain_clsp.{room}" for room in rooms)]:
        module = importlib.import_module(room)
        for name in getattr(module, "__all__", ()):
            lines.append(f"{room}.{name}{_arguments(getattr(module, name))}")
    return sorted(lines)


def _arguments(value: object) -> str:
    """Return the names of a callable's arguments, ``=`` after those with a default."""
    if not callable(value):
        return ""
    try:
        parameters = inspect.signature(value).parameters.values()
    except ValueError:  # exceptions, and other classes written in C
        return ""
    marks = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return "({})".format(
        ", ".join(
            f"{marks.get(p.kind, '')}{p.name}{'' if p.default is p.empty else '='}"
            for p in parameters
        )
    )


def cli_options() -> list[str]:
    """Return ``clsp command argument`` for each positional argument and option."""
    lines = []
    for name, parser in command_parsers().items():
        for action in parser._actions:
            if not isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
                needed = " (required)" if action.required and action.option_strings else ""
                lines.append(
                    f"clsp {name} {'/'.join(action.option_strings) or action.dest}{needed}"
                )
    return sorted(lines)


if __name__ == "__main__":
    for path, lines in ((NAMES_FILE, public_names()), (OPTIONS_FILE, cli_options())):
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{len(lines)} lines written to {path}")
