"""How commands end: exit codes, one line per error, and what a crash leaves on the terminal."""

import faulthandler
import logging
import os
import signal
import subprocess
import sys
import warnings

import pytest

from speechbrain_clsp.cli.common import run_command


@pytest.mark.parametrize(
    "error, code, line",
    [
        (ValueError("row 3:\n no caption"), 2, "clsp: error: row 3: no caption\n"),
        (FileNotFoundError(2, "No such file", "a.wav"), 2, "a.wav"),
        (KeyboardInterrupt(), 130, "clsp: interrupted\n"),
    ],
)
def test_an_expected_error_is_one_line_and_an_exit_code(capfd, error, code, line):
    def run(options):
        raise error

    assert run_command(run, None) == code
    printed = capfd.readouterr().err
    assert line in printed and printed.count("\n") == 1


def test_what_libraries_print_is_hidden_unless_an_unexpected_error_passes(capfd):
    def run(options):
        os.write(2, b"note of a decoder\n")
        warnings.warn("a warning", stacklevel=1)
        logging.getLogger("library").warning("a log line")
        print("progress", file=sys.stderr)
        if options:
            raise RuntimeError("a fault of ours")

    assert run_command(run, False) == 0
    assert capfd.readouterr().err == "progress\n"
    with pytest.raises(RuntimeError):
        run_command(run, True)
    assert capfd.readouterr().err == "progress\nnote of a decoder\n"


def test_logging_and_file_descriptors_come_back(capfd):
    enabled, open_files = faulthandler.is_enabled(), os.listdir("/proc/self/fd")
    run_command(lambda options: 0, None)
    assert logging.getLogger("other").isEnabledFor(logging.WARNING)
    assert faulthandler.is_enabled() == enabled
    assert os.listdir("/proc/self/fd") == open_files
    os.write(2, b"here again")
    assert capfd.readouterr().err == "here again"


def run_python(code: str) -> subprocess.CompletedProcess:
    """Run code in a process of its own."""
    code = f"import os, sys\nfrom speechbrain_clsp.cli.common import run_command\n{code}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_a_crash_in_c_shows_where():
    done = run_python("def run_it(options): os.abort()\nrun_command(run_it, None)")
    assert done.returncode < 0
    assert "Aborted" in done.stderr and "run_it" in done.stderr


def test_a_closed_pipe_ends_quietly():
    done = run_python(
        "reader, writer = os.pipe(); os.close(reader); os.dup2(writer, 1)\n"
        "sys.exit(run_command(lambda options: print('much ' * 9999), None))"
    )
    assert (done.returncode, done.stderr) == (141, "")


def test_an_interrupt_ends_a_process_with_one_line():
    code = (
        "import sys, time; from speechbrain_clsp.cli.common import run_command\n"
        "sys.exit(run_command(lambda options: print('ready', flush=True) or time.sleep(60), None))"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[1] == "clsp: interrupted\n"
    assert process.returncode == 130
