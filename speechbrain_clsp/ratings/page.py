"""A local web page on which people rate how well captions fit clips, from 0 to 5.

Every rater gets the pairs in an order of their own and goes on where they stopped. A rating is on
the disk before the page shows the next pair.
"""

from __future__ import annotations

import json
import mimetypes
import re
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from jinja2 import Template

from speechbrain_clsp.ratings.scales import SLIDER
from speechbrain_clsp.ratings.task import RatingTask, RequestError

LONGEST_BODY = 4096  # bytes of a request
PAGE = Path(__file__).with_suffix(".html")


class RatingHandler(BaseHTTPRequestHandler):
    """Answers the page's requests; ``task`` is set by :func:`rating_server`."""

    protocol_version = "HTTP/1.1"
    task: RatingTask

    def log_message(self, *_: Any) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        """Send the page, the next item or a clip."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Take a rating; answers with the next item."""
        self._answer(self._post)

    def _answer(self, work: Callable[[], None]) -> None:
        try:
            # A page from elsewhere must not reach this server by a name that resolves to it.
            host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
            if host not in ("127.0.0.1", "localhost"):
                raise RequestError(403, "only for this machine")
            work()
        except RequestError as error:
            self._refuse(error.status, error)
        except ValueError as error:
            self._refuse(400, error)

    def _refuse(self, status: int, error: Exception) -> None:
        self.close_connection = True  # a body may be left unread
        self._send_json(status, {"error": str(error)})

    def _get(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/":
            page = Template(PAGE.read_text(encoding="utf-8")).render(scale=SLIDER)
            self._send(200, page.encode(), {"Content-Type": "text/html; charset=utf-8"})
        elif url.path == "/next":
            (rater,) = parse_qs(url.query).get("rater", [""])[:1]
            self._send_json(200, self.task.next_item(rater))
        elif match := re.fullmatch(r"/audio/(\d{1,9})", url.path):
            self._send_file(self.task.audio(int(match[1])))
        else:
            raise RequestError(404, "there is no such page")

    def _post(self) -> None:
        length = self.headers.get("Content-Length", "")
        if urlsplit(self.path).path != "/rating":
            raise RequestError(404, "there is no such page")
        if self.headers.get_content_type() != "application/json":
            raise RequestError(415, "must be application/json")
        if not length.isdigit() or int(length) > LONGEST_BODY:
            raise RequestError(413, f"must have at most {LONGEST_BODY} bytes")
        try:
            body = json.loads(self.rfile.read(int(length)))
            rater, number, rating = (body[name] for name in ("rater", "item", "rating"))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError("must be an object with rater, item and rating") from error
        self.task.rate(rater, number, rating)
        self._send_json(200, self.task.next_item(rater))

    def _send_file(self, path: Path) -> None:
        """Send a file, or the part that is asked for: browsers seek by it."""
        content = path.read_bytes()
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        headers = {"Content-Type": kind, "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not asked or not (asked[1] or asked[2]):
            self._send(200, content, headers)
            return
        size = len(content)
        first = int(asked[1]) if asked[1] else max(0, size - int(asked[2]))
        last = min(size - 1, int(asked[2])) if asked[1] and asked[2] else size - 1
        if first > last:
            self._send(416, b"", {"Content-Range": f"bytes */{size}"})
            return
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        self._send(206, content[first : last + 1], headers)

    def _send_json(self, status: int, content: dict[str, Any]) -> None:
        headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
        self._send(status, json.dumps(content).encode(), headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        try:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the rater left the page


def rating_server(task: RatingTask, port: int = 0) -> ThreadingHTTPServer:
    r"""Return a server on this machine's loopback address.

    Arguments
    ---------
    task : RatingTask
        What is rated.
    port : int
        Default: any port that is free.

    Returns
    -------
    http.server.ThreadingHTTPServer
        Bound to its port; ``serve_forever`` answers.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "items.csv").write_text("clip,caption,category\na.wav,A man.,intrinsic\n")
    >>> _ = (folder / "a.wav").write_bytes(b"")
    >>> task = RatingTask(folder / "items.csv", folder, folder / "ratings.sqlite")
    >>> with rating_server(task) as server:
    ...     print(server.server_address[0])
    127.0.0.1
    """
    handler = type("Handler", (RatingHandler,), {"task": task})
    return ThreadingHTTPServer(("127.0.0.1", port), handler)
