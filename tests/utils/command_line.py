"""The command ``clsp`` in a process of its own, and what its parser knows."""

import argparse
import os
import subprocess
import sys

from speechbrain_clsp.cli.main import parser


def clsp_command(*arguments, cwd=None, **environment) -> subprocess.CompletedProcess:
    """Run ``clsp`` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "speechbrain_clsp.cli.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=120,
    )


def command_parsers(
    top: argparse.ArgumentParser | None = None,
) -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each command by name, of commands in a command as ``judge ask``."""
    found = {}
    for action in (top or parser())._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                found[name] = command
                found |= {f"{name} {more}": c for more, c in command_parsers(command).items()}
    return found
