"""How commands end: exit codes, one line per error, and what a crash leaves on the terminal."""

import faulthandler
import logging
import os
import shlex
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from speechbrain_clsp.cli.boundary import quiet_libraries, run_command
from tests.utils.small import model_folder, tone, write


@pytest.mark.parametrize(
    "error, code, line",
    [
        (ValueError("row 3:\n no caption"), 2, "clsp: error: row 3: no caption\n"),
        (FileNotFoundError(2, "No such file", "a.wav"), 2, "a.wav"),
        (ValueError("\x1b[2Jgone: fl\u00fcstern"), 2, "error: \\x1b[2Jgone: fl\u00fcstern\n"),
        (KeyboardInterrupt(), 130, "clsp: interrupted\n"),
    ],
)
def test_an_expected_error_is_one_line_and_an_exit_code(capfd, error, code, line):
    def run(options):
        raise error

    assert run_command(run, None) == code
    printed = capfd.readouterr().err
    assert line in printed and printed.count("\n") == 1


def test_what_libraries_print_is_hidden_and_lies_beside_the_traceback_of_a_fault(capfd):
    @quiet_libraries()
    def run(options):
        os.write(2, b"note of a decoder\n")
        warnings.warn("a warning", stacklevel=1)
        logging.getLogger("library").warning("a log line")
        print("progress", file=sys.stderr)
        if options:
            raise RuntimeError("a fault\nof ours")

    assert run_command(run, False) == 0
    assert capfd.readouterr().err == "progress\n"
    assert run_command(run, True) == 70
    progress, line = capfd.readouterr().err.splitlines()
    assert progress == "progress"
    assert line.startswith("clsp: internal error: RuntimeError: a fault of ours. ")
    path = Path(line.split("traceback in ")[1])
    text = path.read_text(encoding="utf-8")
    path.unlink()
    assert "note of a decoder" in text and "Traceback (most recent call last)" in text
    assert 'raise RuntimeError("a fault' in text


def test_logging_and_file_descriptors_come_back(capfd):
    enabled, open_files = faulthandler.is_enabled(), os.listdir("/proc/self/fd")
    with quiet_libraries():
        assert not logging.getLogger("other").isEnabledFor(logging.WARNING)
    assert logging.getLogger("other").isEnabledFor(logging.WARNING)
    assert faulthandler.is_enabled() == enabled
    assert os.listdir("/proc/self/fd") == open_files
    os.write(2, b"here again")
    assert capfd.readouterr().err == "here again"


def run_python(code: str) -> subprocess.CompletedProcess:
    """Run code in a process of its own."""
    code = f"import os, sys\nfrom speechbrain_clsp.cli.boundary import *\n{code}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_a_crash_in_c_shows_where():
    done = run_python(
        "@quiet_libraries()\ndef run_it(options): os.abort()\nrun_command(run_it, None)"
    )
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
        "import sys, time; from speechbrain_clsp.cli.boundary import run_command\n"
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


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Return a folder with a model, a recording and 200 files that are none."""
    folder = tmp_path_factory.mktemp("recordings")
    model_folder(folder)
    write(folder / "a.wav", tone())
    for number in range(200):
        (folder / f"bad{number:03}.wav").write_text("no audio")
    return folder


def shell(command: str, folder, **environment) -> subprocess.CompletedProcess:
    """Run a command line of bash, in which ``clsp`` is the command, in a folder."""
    clsp = f'clsp() {{ {shlex.quote(sys.executable)} -m speechbrain_clsp.cli "$@"; }}'
    return subprocess.run(
        ["bash", "-c", f"{clsp}\n{command}"],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "CLSP_MODEL": "model", "PYTHONUNBUFFERED": "", **environment},
        timeout=120,
    )


@pytest.mark.parametrize(
    ("command", "code", "line"),
    [
        ("clsp score a.wav A. B. | true; echo ${PIPESTATUS[0]} >&2", 0, "141"),
        ("(sleep 0.3; clsp --help) | true; echo ${PIPESTATUS[0]} >&2", 0, "141"),
        ("clsp score a.wav A. B. <&- >&- 2>&-", 0, ""),
        ("clsp embed a.wav --output x.npz 2>&- && rm x.npz", 0, ""),
        ("clsp score absent.wav A. 2> /dev/full", 2, ""),
        (
            "clsp score a.wav A. > /dev/full",
            2,
            "clsp: error: Standard output cannot be written: No space left on device",
        ),
    ],
)
def test_streams_that_nobody_reads_do_no_harm(recordings, command, code, line):
    done = shell(command, recordings)
    assert (done.returncode, done.stderr.strip()) == (code, line)


def test_any_name_can_be_printed(recordings):
    done = shell("clsp embed $'\\xff.wav' --output x.npz", recordings)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "\\xff.wav" in done.stderr
    command = "clsp score a.wav 'Ein Mann fl\u00fcstert.'"
    done = shell(command, recordings, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")


def test_of_many_bad_files_ten_are_shown_and_all_are_in_a_file(recordings):
    done = shell("clsp embed *.wav --output x.npz", recordings)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("clsp: error: 200 bad files: bad000.wav")
    assert "bad009.wav" in done.stderr and "bad010.wav" not in done.stderr
    assert "and 190 more (all are in " in done.stderr
    path = Path(done.stderr.split("all are in ")[1].split(")")[0])
    assert len(path.read_text().splitlines()) == 200
    path.unlink()
    assert not (recordings / "x.npz").exists()


@pytest.mark.parametrize("point", ["speechbrain_clsp.cli.boundary", "argparse", "torch"])
def test_an_interrupt_during_imports_ends_with_one_line(recordings, point, tmp_path):
    """The signal is sent in the middle of an import, by a finder that knows nothing else."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in the background
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {point!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH") or os.getcwd()])
    done = subprocess.run(
        [sys.executable, "-m", "speechbrain_clsp.cli", "score", "a.wav", "A."],
        capture_output=True,
        text=True,
        cwd=recordings,
        env={**os.environ, "CLSP_MODEL": "model", "PYTHONPATH": path},
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "clsp: interrupted\n")


def test_an_interrupt_that_a_library_turns_into_another_error_is_one():
    done = run_python(
        "import signal\n"
        "def run(options):\n"
        "    try: os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(9)\n"
        "    except KeyboardInterrupt: raise ImportError('initialization failed')\n"
        "sys.exit(run_command(run, None))"
    )
    assert (done.returncode, done.stderr) == (130, "clsp: interrupted\n")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import torch; torch.empty(10**15)", "allocate memory"),
        ("import numpy; numpy.zeros(10**15)", "Unable to allocate"),
        ("raise ImportError('failed to map segment from shared object')", "more memory"),
        ("raise MemoryError", "clsp: error: out of memory. Close"),
        ("import torch; raise torch.OutOfMemoryError('CUDA out of memory.')", "--device cpu"),
        ("raise RuntimeError('CUDA error: out of memory')", "--device cpu"),
        ("raise RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED')", "--device cpu"),
        (
            "raise RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed. ')",
            "more memory",
        ),
    ],
)
def test_memory_that_is_used_up_is_one_line_with_the_way_out(code, said):
    done = run_python(
        f"def run(options):\n    {code.replace('; ', chr(10) + '    ')}\n"
        "sys.exit(run_command(run, None))"
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("clsp: error: out of memory") and said in done.stderr


def test_a_fault_is_told_even_where_no_file_can_be_written(tmp_path):
    done = run_python(
        f"import tempfile; tempfile.tempdir = {str(tmp_path / 'absent')!r}\n"
        "sys.exit(run_command(lambda options: {}['x'], None))"
    )
    assert done.returncode == 70 and "KeyError: 'x'" in done.stderr.splitlines()[-1]
    assert "Traceback" in done.stderr
