"""The command line itself: its names, its help, its speed."""

import shlex
import socket
import subprocess
import sys

import pytest

from speechbrain_clsp import __version__
from speechbrain_clsp.cli.main import main, parser
from tests.utils.command_line import command_parsers
from tests.utils.small import tone, write

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


@pytest.mark.parametrize("option", ["--output=~/none/x.npz", "--model=~/none/model"])
def test_a_home_that_the_shell_leaves_is_expanded(option, monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("HOME", str(tmp_path))
    options = {"--output": str(tmp_path / "x.npz"), "--model": "absent"}
    others = [f"{name}={value}" for name, value in options.items() if name not in option]
    assert main(["embed", "a.wav", option, *others]) == 2
    assert f"{tmp_path}/none" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rate", "items.csv", "--output", "r.csv", "--port", "99999"], "from 0 to 65535"),
        (["prepare", "a.csv", "--output", "a.arrow", "--n-jobs", "0"], "from 1 to 1000"),
        (
            "judge sheet --manifest a --captions a=b --output c --clips 0".split(),
            "of at least 1",
        ),
    ],
)
def test_numbers_out_of_range_are_refused(words, said, capfd):
    with pytest.raises(SystemExit) as caught:
        main(words)
    error = capfd.readouterr().err
    assert caught.value.code == 2 and said in error and error.count("\n") == 1


def test_a_port_in_use_is_named(tmp_path, capfd):
    write(tmp_path / "a.wav", tone())
    (tmp_path / "items.csv").write_text("clip,caption,category\na.wav,A man speaks.,style\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        words = ["rate", str(tmp_path / "items.csv"), "--output", str(tmp_path / "r.csv")]
        assert main([*words, "--port", port]) == 2
    assert f"--port {port} cannot be used on 127.0.0.1 (Addr" in capfd.readouterr().err


def test_examples_in_help_can_be_copied(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "72")
    for name, command in PARSERS.items():
        if command.epilog is None:
            continue
        with pytest.raises(SystemExit):
            main([*name.split(), "--help"])
        printed = capsys.readouterr().out
        assert all(len(line) <= 80 for line in printed.splitlines()), name
        shown = printed[printed.index("example: ") :].replace("\\\n", "")
        assert shlex.split(shown) == shlex.split(command.epilog)
