"""The command line itself: its names, its help, its speed."""

import shlex
import subprocess
import sys

import pytest

from speechbrain_clsp import __version__
from speechbrain_clsp.cli.main import main, parser
from tests.utils.command_line import command_parsers

PARSERS = command_parsers()


def test_a_wrong_command_line_gets_one_line(capfd):
    for arguments, pattern in ((["score", "a.wav"], "captions"), ([], "score,embed,classify")):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        error = capfd.readouterr().err
        assert error.startswith("clsp: error: ") and error.count("\n") == 1
        assert pattern in error


@pytest.mark.parametrize("name", PARSERS)
def test_every_example_in_help_is_a_valid_command_line(name):
    example = PARSERS[name].epilog
    if example is None:  # a command of commands, each with an example of its own
        assert any(other.startswith(f"{name} ") for other in PARSERS)
        return
    assert example.startswith(f"example: clsp {name} ")
    assert callable(parser().parse_args(shlex.split(example)[2:]).run)


def test_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"clsp {__version__}\n"


def test_help_imports_no_heavy_library():
    code = (
        "import sys, speechbrain_clsp, speechbrain_clsp.cli.main as m; m.parser().format_help();"
        "print({'torch', 'numpy', 'pandas', 'speechbrain', 'yaml'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr
