"""A local web page on which people rate how well captions fit clips, from 0 to 5.

Every rater gets the pairs in an order of their own, goes on where they stopped, and loses nothing:
a rating is on the disk before the page shows the next pair.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import math
import mimetypes
import os
import random
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from speechbrain_clsp.evaluation.similarity import COLUMNS

ITEM_COLUMNS = ("clip", "caption", "category")
HIGHEST = 5.0
LONGEST_NAME, LONGEST_BODY = 64, 4096
PAGE = Path(__file__).with_suffix(".html")


class Refusal(ValueError):
    """A request that is wrong, with the status to answer."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class RatingStore:
    """Pairs of clip and caption, and what raters said of them.

    Arguments
    ---------
    items : str or path
        CSV file with the columns clip, caption, category.
    audio_root : str or path
        Folder that ``clip`` is relative to.
    output : str or path
        CSV file of ratings, made or gone on with; the suite ``similarity`` reads it.
    seed : int
        Of the orders.

    Raises
    ------
    ValueError
        If a column is missing or a line cannot be used; names it.
    FileNotFoundError
        If clips are not there; names the first ones.
    BlockingIOError
        If another process has the output open.
    """

    def __init__(
        self,
        items: str | os.PathLike,
        audio_root: str | os.PathLike,
        output: str | os.PathLike,
        seed: int = 0,
    ) -> None:
        self.items, self.root, self.seed = _read_items(items), Path(audio_root), seed
        absent = [item["clip"] for item in self.items if not (self.root / item["clip"]).is_file()]
        if absent:
            raise FileNotFoundError(f"{len(absent)} clips are not in {self.root}: {absent[:3]}")
        self._numbers = {(i["clip"], i["caption"]): n for n, i in enumerate(self.items)}
        self._lock = threading.Lock()
        self._file = open(output, "a+", encoding="utf-8", newline="")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise BlockingIOError(f"{output}: another process collects into it") from error
        self.rated = self._resume(output)

    def _resume(self, output: str | os.PathLike) -> dict[str, set[int]]:
        """Cut off a line that a kill tore, then read who rated what."""
        content = Path(output).read_bytes()
        whole = content.rfind(b"\n") + 1
        os.truncate(output, whole)
        if not whole:
            self._write(COLUMNS)
        rated: dict[str, set[int]] = {}
        lines = csv.DictReader(io.StringIO(content[:whole].decode("utf-8-sig")))
        for line in lines:
            number = self._numbers.get((line.get("clip"), line.get("caption")))
            if number is None or not line.get("rater"):
                raise ValueError(
                    f"{output}, line {lines.line_num}: not a rating of these items; name another"
                    " --output"
                )
            rated.setdefault(line["rater"], set()).add(number)
        return rated

    def next_item(self, rater: str) -> dict[str, Any]:
        """Return the pair that a rater gets next, or that there is none left.

        Raises
        ------
        Refusal
            If the name cannot be used.
        """
        done = self.rated.get(_checked_name(rater), set())
        count = {"done": len(done), "total": len(self.items)}
        order = list(range(len(self.items)))
        random.Random(f"{self.seed} {rater}").shuffle(order)
        for number in order:
            if number not in done:
                shown = {"item": number, "caption": self.items[number]["caption"]}
                return {"finished": False, **shown, **count}
        return {"finished": True, **count}

    def rate(self, rater: Any, number: Any, rating: Any) -> None:
        """Write a rating to the disk.

        Raises
        ------
        Refusal
            If the name, the item or the rating cannot be used, or the item was rated before.
        """
        rater = _checked_name(rater)
        if isinstance(number, bool) or not isinstance(number, int):
            raise Refusal(400, f"item {number!r} is no number")
        if not 0 <= number < len(self.items):
            raise Refusal(404, f"there is no item {number}")
        if isinstance(rating, bool) or not isinstance(rating, int | float):
            raise Refusal(400, f"rating {rating!r} is no number")
        if not (math.isfinite(rating) and 0 <= rating <= HIGHEST):
            raise Refusal(400, f"rating {rating} is not from 0 to {HIGHEST:g}")
        item = self.items[number]
        with self._lock:
            if number in self.rated.get(rater, set()):
                raise Refusal(409, f"{rater} rated item {number} before")
            self._write([item[name] for name in ITEM_COLUMNS] + [rater, f"{rating:g}"])
            self.rated.setdefault(rater, set()).add(number)

    def audio(self, number: int) -> Path:
        """Return an item's file."""
        return self.root / self.items[number]["clip"]

    def _write(self, cells: Any) -> None:
        csv.writer(self._file, lineterminator="\n").writerow(cells)
        self._file.flush()
        os.fsync(self._file.fileno())


class RatingHandler(BaseHTTPRequestHandler):
    """Answers the page's requests; ``store`` is set by :func:`rating_server`."""

    protocol_version = "HTTP/1.1"
    store: RatingStore

    def log_message(self, *_: Any) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        """Send the page, the next item or a clip."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Take a rating; answers with the next item."""
        self._answer(self._post)

    def _answer(self, work: Any) -> None:
        try:
            # A page from elsewhere must not reach this server by a name that resolves to it.
            if urlsplit(f"//{self.headers.get('Host', '')}").hostname not in (
                "127.0.0.1",
                "localhost",
            ):
                raise Refusal(403, "only for this machine")
            work()
        except Refusal as refusal:
            self.close_connection = True  # a body may be left unread
            self._send_json(refusal.status, {"error": str(refusal)})

    def _get(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/":
            self._send(200, PAGE.read_bytes(), {"Content-Type": "text/html; charset=utf-8"})
        elif url.path == "/next":
            (rater,) = parse_qs(url.query).get("rater", [""])[:1]
            self._send_json(200, self.store.next_item(rater))
        elif match := re.fullmatch(r"/audio/(\d{1,9})", url.path):
            if int(match[1]) >= len(self.store.items):
                raise Refusal(404, f"there is no item {match[1]}")
            self._send_file(self.store.audio(int(match[1])))
        else:
            raise Refusal(404, "there is no such page")

    def _post(self) -> None:
        length = self.headers.get("Content-Length", "")
        if urlsplit(self.path).path != "/rating":
            raise Refusal(404, "there is no such page")
        if self.headers.get_content_type() != "application/json":
            raise Refusal(415, "must be application/json")
        if not length.isdigit() or int(length) > LONGEST_BODY:
            raise Refusal(413, f"must have at most {LONGEST_BODY} bytes")
        try:
            told = json.loads(self.rfile.read(int(length)))
            rater, number, rating = (told[name] for name in ("rater", "item", "rating"))
        except (ValueError, KeyError, TypeError) as error:
            raise Refusal(400, "must be an object with rater, item and rating") from error
        self.store.rate(rater, number, rating)
        self._send_json(200, self.store.next_item(rater))

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


def rating_server(store: RatingStore, port: int = 0) -> ThreadingHTTPServer:
    """Return a server on this machine's loopback address; call ``serve_forever``.

    Arguments
    ---------
    store : RatingStore
        The pairs.
    port : int
        0: any that is free.
    """
    handler = type("Handler", (RatingHandler,), {"store": store})
    return ThreadingHTTPServer(("127.0.0.1", port), handler)


def _checked_name(rater: Any) -> str:
    if not isinstance(rater, str) or not rater.strip() or rater != rater.strip():
        raise Refusal(400, "a rater needs a name")
    if len(rater) > LONGEST_NAME or not rater.isprintable():
        raise Refusal(400, f"a name has at most {LONGEST_NAME} printable characters")
    return rater


def _read_items(path: str | os.PathLike) -> list[dict[str, str]]:
    items: dict[tuple[str, str], dict[str, str]] = {}
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        absent = [name for name in ITEM_COLUMNS if name not in (reader.fieldnames or [])]
        if absent:
            raise ValueError(f"{path} lacks the columns {absent}; it needs {list(ITEM_COLUMNS)}")
        for line in reader:
            item = {name: (line[name] or "").strip() for name in ITEM_COLUMNS}
            place = f"{path}, line {reader.line_num}"
            if not all(item.values()) or not all(text.isprintable() for text in item.values()):
                raise ValueError(f"{place}: clip, caption and category must be one line of text")
            if (item["clip"], item["caption"]) in items:
                raise ValueError(f"{place}: this clip and caption were there before")
            items[item["clip"], item["caption"]] = item
    if not items:
        raise ValueError(f"{path} holds no item")
    return list(items.values())
