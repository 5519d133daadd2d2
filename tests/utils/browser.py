"""A headless Chromium, driven over its DevTools pipe: JSON messages that end in a zero byte."""

import base64
import json
import os
import shutil
import subprocess
import time
from itertools import count
from pathlib import Path

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


class Browser:
    """One page; use as a context."""

    patience = 10.0  # seconds

    def __init__(
        self, folder: Path, width: int = 1000, height: int = 800, options: tuple[str, ...] = ()
    ) -> None:
        there, self._write = os.pipe()
        self._read, back = os.pipe()

        def descriptors() -> None:
            # Chromium reads from 3 and writes to 4; the pipe's own numbers may be just these.
            first, second = os.dup(there), os.dup(back)
            os.dup2(first, 3)
            os.dup2(second, 4)

        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--mute-audio"]
        command += ["--remote-debugging-pipe", f"--user-data-dir={folder / 'profile'}"]
        command += [f"--window-size={width},{height}", "--autoplay-policy=no-user-gesture-required"]
        self._process = subprocess.Popen(
            [*command, *options, "about:blank"],
            pass_fds=(3, 4, there, back),
            preexec_fn=descriptors,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(there)
        os.close(back)
        self._numbers, self._buffer, self._session = count(1), b"", None
        targets = self.send("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self.send("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]

    def send(self, method: str, **params) -> dict:
        """Send a command; returns its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._buffer:
                self._buffer += os.read(self._read, 2**16)
            line, _, self._buffer = self._buffer.partition(b"\0")
            answer = json.loads(line)
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def run(self, script: str):
        """Return the value of a script, which may be a promise."""
        options = {"awaitPromise": True, "returnByValue": True, "userGesture": True}
        return self.send("Runtime.evaluate", expression=script, **options)["result"].get("value")

    def wait(self, script: str) -> None:
        """Wait until a script is true."""
        end = time.monotonic() + self.patience
        while not self.run(script):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.02)

    def key(self, key: str) -> None:
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            codes = {"ArrowRight": 39, "Tab": 9}
            self.send(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=codes[key]
            )

    def screenshot(self, path: Path) -> None:
        """Write what is seen."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._read)
        os.close(self._write)
