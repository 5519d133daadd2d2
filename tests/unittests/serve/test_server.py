"""The command in a process of its own: its end, its address and what it prints."""

import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.client import HTTPConnection

import pytest

from speechbrain_clsp.cli.main import main
from speechbrain_clsp.serve.server import open_socket
from speechbrain_clsp.serve.service import StyleService
from tests.utils.live_service import live, post, wav_bytes
from tests.utils.small import CAPTIONS


@contextmanager
def command(*arguments):
    """Run ``clsp serve`` on any port; yields its address and process."""
    words = [sys.executable, "-m", "speechbrain_clsp.cli.main", "serve", "--port", "0"]
    process = subprocess.Popen(
        [*words, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process.stdout.readline().split(" at ")[1].strip().rstrip("/"), process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_sigterm_loses_no_accepted_request(small_folder):
    with command("--model", small_folder) as (url, process):
        found = []

        def ask(n):
            files = [wav_bytes(4.0, frequency=60.0 + 7 * n + k) for k in range(6)]
            found.append(post(f"{url}/v1/score", {"captions": CAPTIONS}, files)[0])

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        while "clsp_batch_clips_count 0.0" in metrics(url):  # until it has begun
            time.sleep(0.01)
        time.sleep(0.3)  # all have been sent
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(60)
        assert found == [200] * 8
        assert process.wait(30) == 0
        assert "all accepted requests were answered" in process.stdout.read()
        assert process.stderr.read() == ""


def metrics(url: str) -> str:
    import urllib.request

    with urllib.request.urlopen(f"{url}/metrics") as response:
        return response.read().decode()


def test_another_address_says_what_that_means(small_folder, tmp_path):
    (tmp_path / "token").write_text("secret\n")
    options = "--model", small_folder, "--host", "0.0.0.0", "--token-file", tmp_path / "token"
    with command(*options) as (url, process):
        port = url.rsplit(":", 1)[1]
        ask = f"http://127.0.0.1:{port}/v1/embed/text", {"texts": ["a man"]}
        assert post(*ask)[0] == 401 and post(*ask, Authorization="Bearer secret")[0] == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        note = process.stderr.read()
        assert "others can reach this service" in note and "token" in note and "TLS" in note


def test_a_port_in_use_is_named():
    with open_socket("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(OSError, match=f"--port {port} cannot be used .*: choose another"):
            open_socket("127.0.0.1", port)


def test_small_answers_do_not_wait_for_acknowledgements(clsp):
    """If this fails, each answer over a kept connection takes 40 ms more (Nagle's algorithm)."""
    with live(StyleService(clsp)) as url:
        connection = HTTPConnection(url.removeprefix("http://"))
        seconds = []
        for _ in range(40):
            start = time.monotonic()
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            seconds.append(time.monotonic() - start)
        connection.close()
    assert sorted(seconds)[10] < 0.03  # a busy machine may delay some


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--token-file", "nowhere"], "--token-file nowhere is not a file"),
        (["--token-file", "two"], "one word of ASCII"),
        (["--recognizer", "{model}"], "could not be opened as SpeechBrain's EncoderASR"),
        (["--background", "two"], "two is not a manifest"),
        (["--index", "nowhere"], "nowhere is not an index"),
        (["--host", "8.8.8.8"], "cannot be used on 8.8.8.8"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_what_keeps_it_from_starting_is_a_sentence(
    small_folder, tmp_path, monkeypatch, capsys, options, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two").write_text("two words")
    words = [word.format(model=small_folder) for word in options]
    assert main(["serve", "--model", str(small_folder), "--port", "0", *words]) == 2
    said = capsys.readouterr().err
    assert message in said and "Errno" not in said
