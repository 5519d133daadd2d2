"""A real HTTP server that speaks the chat-completions protocol, badly if asked to.

Its faults are drawn per request. Every complete answer is written to a log, a JSON line each,
so that a test can count what was asked how often even after clients were killed.
"""

import argparse
import hashlib
import json
import os
import random
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MODEL = "test-captioner"
FAULTS = ("429", "429 in seconds", "429 at a date", "500", "503", "slow", "cut", "closed")
FAULTS += ("garbage", "no choices", "empty", "drip")
SENTENCE = "A person number {number} speaks in a calm and steady voice at a moderate pace. " * 2


def captions(digest: str, count: int) -> list[str]:
    """Return what is answered to a request: the same each time."""
    return [f"{SENTENCE.format(number=n)}{digest[:12]}." for n in range(count)]


def completion(texts: list[str]) -> dict:
    """Return an answer with a choice per text."""
    choices = [
        {"index": n, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        for n, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    answer = {"id": "x", "object": "chat.completion", "created": 0, "model": MODEL}
    return {**answer, "choices": choices, "usage": usage}


@contextmanager
def chat_server(folder: Path, **options: float) -> Iterator[tuple[str, Path]]:
    """Run a server in a process of its own; yields its address and log."""
    log = folder / "served.jsonl"
    words = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, __file__, f"--log={log}", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1", log
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextmanager
def answering(
    reply: Callable[[dict], object],
    tls: ssl.SSLContext | None = None,
    parse: Callable[[bytes], object] = json.loads,
) -> Iterator[str]:
    """Serve, from a thread, what a function of the request returns; yields the address without /v1.

    The function gets the request's JSON (or what ``parse`` makes of its body), or its path if it is
    a GET, and returns a JSON object, bytes, or a tuple of status, one of these, and headers.
    """

    class Answering(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            """Stay silent."""

        def do_GET(self):
            self.answer(reply(self.path))

        def do_POST(self):
            self.answer(reply(parse(self.rfile.read(int(self.headers["Content-Length"])))))

        def answer(self, found):
            status, content, headers = found if isinstance(found, tuple) else (200, found, {})
            headers = {"Content-Type": "application/json", **headers}
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            try:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_):
            """Stay silent where clients break off."""

    server = Quiet(("127.0.0.1", 0), Answering)
    server.daemon_threads = True
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"{'https' if tls else 'http'}://localhost:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state = None  # argparse options and counters, see serve

    def log_message(self, *_):
        """Stay silent."""

    def do_GET(self):
        self.send(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        digest = hashlib.sha256(body).hexdigest()
        request = json.loads(body)
        if self.headers.get("Authorization") == "Bearer wrong":
            return self.send(401, {"error": {"message": "wrong key"}})
        text = json.dumps(request["messages"])
        if "POISON" in text:
            return self.send(400, {"error": {"message": "cannot process that"}})
        if "CRASH" in text:
            return self.send(500, {"error": {"message": "this one always fails"}})
        with self.state.lock:
            self.state.asked += 1
            spent = 0 < self.state.most < self.state.asked
        if spent and self.state.then == "dies":
            os._exit(1)
        if spent:
            return self.send(int(self.state.then), {"error": {"message": "the quota is used up"}})
        with self.state.lock:
            faulty = self.state.random.random() < self.state.faults
            faults = (self.state.only,) if self.state.only else FAULTS
            fault = self.state.random.choice(faults) if faulty else ""
        if fault and self.fail(fault):
            return None
        time.sleep(self.state.delay)
        self.send(200, completion(captions(digest, request.get("n", 1))))
        with self.state.lock:
            line = json.dumps({"digest": digest, "request": request.get("n", 1)})
            self.state.log.write(line + "\n")
            self.state.log.flush()

    def fail(self, fault: str) -> bool:
        """Fail in a way; returns False if the request is to be answered all the same."""
        error = {"error": {"message": fault}}
        if fault == "slow":
            time.sleep(self.state.slow)
            return False
        if fault.startswith("429"):
            date = formatdate(time.time() + 1, usegmt=True)
            after = {"429": None, "429 in seconds": "1"}.get(fault, date)
            self.send(429, error, {} if after is None else {"Retry-After": after})
        elif fault in ("500", "503"):
            self.send(int(fault), error)
        elif fault == "cut":
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "5000")
            self.end_headers()
            self.wfile.write(b'{"id": "x", "choices": [{"mess')
            self.close_connection = True
        elif fault == "drip":
            self.drip(json.dumps(completion(["slow"])).encode())
        elif fault == "closed":
            self.close_connection = True
        elif fault == "garbage":
            self.send_bytes(200, b'{"id": "x", "choices": [{"mess', {})
        else:
            self.send(200, completion([] if fault == "no choices" else [""]))
        return True

    def drip(self, body: bytes) -> None:
        """Send an answer so slowly that no gap is long, but the whole takes for ever."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            for byte in body:
                self.wfile.write(bytes([byte]))
                time.sleep(0.2)
        except (BrokenPipeError, ConnectionResetError):
            pass
        self.close_connection = True

    def send(self, status: int, content: dict, headers: dict | None = None):
        self.send_bytes(status, json.dumps(content).encode(), headers or {})

    def send_bytes(self, status: int, body: bytes, headers: dict):
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True


def serve() -> None:
    """Serve until killed; prints the port."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", required=True)
    parser.add_argument("--faults", type=float, default=0.0)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--slow", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=FAULTS)
    parser.add_argument("--most", type=int, default=0, help="requests that are answered; 0: all")
    parser.add_argument("--then", default="429", help="status of further ones, or dies")
    state = parser.parse_args()
    state.random, state.lock, state.asked = random.Random(state.seed), threading.Lock(), 0
    state.log = open(state.log, "a", encoding="utf-8")
    Handler.state = state
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    serve()
