"""A service in a thread of this process, and requests to it without a client library."""

import io
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import soundfile

from speechbrain_clsp.serve.app import create_app
from speechbrain_clsp.serve.client import _form
from speechbrain_clsp.serve.server import open_socket, run_server
from speechbrain_clsp.serve.service import StyleService
from tests.utils.small import tone


@contextmanager
def live(service: StyleService, **options) -> Iterator[str]:
    """Serve from a thread; yields the address, without a slash at the end."""
    opened, started, servers = open_socket("127.0.0.1", 0), threading.Event(), []

    def on_start(server):
        servers.append(server)
        started.set()

    app = create_app(service, **options)
    arguments = (app, opened, service.limits, on_start)
    thread = threading.Thread(target=run_server, args=arguments, daemon=True)
    thread.start()
    assert started.wait(30)
    try:
        yield f"http://127.0.0.1:{opened.getsockname()[1]}"
    finally:
        servers[0].should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def wav_bytes(
    seconds: float = 1.0, rate: int = 16000, frequency: float = 150.0, **options
) -> bytes:
    """Return what an audio file of a buzz holds."""
    file = io.BytesIO()
    samples = tone(seconds, rate, frequency)
    soundfile.write(file, samples, rate, **{"format": "WAV", "subtype": "FLOAT", **options})
    return file.getvalue()


def npy_bytes(samples) -> bytes:
    """Return a ``.npy`` file."""
    file = io.BytesIO()
    np.save(file, samples)
    return file.getvalue()


def post(url: str, fields: dict, files=None, **headers) -> tuple[int, dict]:
    """Send JSON, or a form with files; returns status and answer."""
    if files is None:
        body, kind = json.dumps(fields).encode(), "application/json"
    else:
        body, kind = _form(json.dumps(fields), files)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, body, {"Content-Type": kind, **names})
    return answer_of(request)


def answer_of(request) -> tuple[int, dict]:
    """Return status and answer of a request, or of a GET of an address."""
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, {**json.loads(error.read()), "headers": dict(error.headers)}
