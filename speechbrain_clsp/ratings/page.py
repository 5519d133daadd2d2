"""A local web page on which people rate how well captions fit clips, from 0 to 5.

Every rater gets the pairs in an order of their own and goes on where they stopped. A rating is on
the disk before the page shows the next pair.
"""

from __future__ import annotations

import json
import mimetypes
import os
import random
import re
import shutil
import sys
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from speechbrain_clsp.ratings.scales import SLIDER, STYLE
from speechbrain_clsp.ratings.store import STORE_SUFFIX, Rating, RatingStore
from speechbrain_clsp.ratings.table import (
    COLUMNS,
    ITEM_COLUMNS,
    rating_of_line,
    read_lines,
    write_table,
)

LONGEST_NAME, LONGEST_BODY = 64, 4096
PAGE = Path(__file__).with_suffix(".html")


class RequestError(ValueError):
    """A request of the page's that is wrong, with the HTTP status to answer."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class RatingTask:
    """Pairs of clip and caption that people rate, and what they said so far.

    Arguments
    ---------
    items : str or path
        CSV file with the columns clip, caption, category.
    audio_root : str or path
        Folder that ``clip`` is relative to.
    output : str or path
        The store of ratings (``.sqlite``), made or gone on with; or a table (``.csv``), which is
        written anew after each rating from the store beside it. A table that exists is read first.
    seed : int
        Of the orders.

    Raises
    ------
    ValueError
        If a column is missing or a line cannot be used (names it), or the output holds something
        else than ratings of these items. Then no file is changed.
    FileNotFoundError
        If clips are not there; names the first ones.
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
        self._numbers = {tuple(item.values()): n for n, item in enumerate(self.items)}
        output = Path(output)
        if output.suffix not in (".csv", STORE_SUFFIX):
            raise ValueError(f"{output}: the name must end in {STORE_SUFFIX} or .csv")
        self.table = output if output.suffix == ".csv" else None
        table = self._read_table(output) if self.table and output.is_file() else []
        self.store = RatingStore(output.with_suffix(STORE_SUFFIX))
        self._lock = threading.Lock()
        self.rated: dict[str, dict[int, str]] = {}
        stored = [(str(self.store.path), rating) for rating in self.store.ratings()]
        for where, rating in [*stored, *table]:
            done = self.rated.setdefault(rating.rater, {})
            value = f"{rating.value:g}"  # as a table has it
            before = done.setdefault(self._number(rating, where), value)
            if before != value:
                raise ValueError(
                    f"{where}: this rating was {before} before; correct the line, or move"
                    f" {self.store.path} away if the table is right"
                )
        self._save([rating for _, rating in table])

    def _number(self, rating: Rating, where: str) -> int:
        number = self._numbers.get((rating.clip, rating.caption, rating.category))
        if number is None or rating.dimension != STYLE or not rating.rater:
            raise ValueError(f"{where}: not a rating of these items; name another --output")
        return number

    def _read_table(self, path: Path) -> list[tuple[str, Rating]]:
        """Return what a table holds, each rating with its place.

        A last line that a kill cut off is left out; the table is copied to another name first.
        """
        if not path.stat().st_size:
            return []
        found, lines = [], list(read_lines(path, COLUMNS, only=True))
        for number, (where, line) in enumerate(lines, start=1):
            if number == len(lines) and not line["rating"] and path.read_bytes()[-1:] != b"\n":
                names = (path.with_name(f"{path.name}.cut-off-{n}") for n in count(1))
                aside = next(name for name in names if not name.exists())
                shutil.copyfile(path, aside)
                note = f"{where} is cut off and left out; {aside} is a copy of the file as it was"
                print(note, file=sys.stderr)
                break
            rating = rating_of_line(line, where)
            self._number(rating, where)
            try:
                SLIDER.check(rating.value)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from error
            found.append((where, rating))
        return found

    def _save(self, ratings: Sequence[Rating]) -> int:
        with self._lock:
            added = self.store.add(ratings, SLIDER)
            if self.table:
                write_table(self.table, self.store.ratings(STYLE))
        return added

    def next_item(self, rater: str) -> dict[str, Any]:
        """Return the pair that a rater gets next, or that there is none left.

        Raises
        ------
        RequestError
            If the name cannot be used.
        """
        done = self.rated.get(_checked_name(rater), {})
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
        RequestError
            If the name, the item or the rating cannot be used, or the item was rated before.
        """
        rater = _checked_name(rater)
        if isinstance(number, bool) or not isinstance(number, int):
            raise RequestError(400, f"item {number!r} is not a number")
        if not 0 <= number < len(self.items):
            raise RequestError(404, f"there is no item {number}")
        try:
            value = SLIDER.check(rating)
        except ValueError as error:
            raise RequestError(400, f"rating {error}") from error
        item = self.items[number]
        where = (item["clip"], item["caption"], item["category"])
        added = self._save([Rating(*where, rater, STYLE, value)])
        self.rated.setdefault(rater, {})[number] = f"{value:g}"
        if not added:
            raise RequestError(409, f"{rater} rated item {number} before")

    def summary(self) -> str:
        """Return how many ratings there are, and of how many raters, in words."""
        return f"{sum(map(len, self.rated.values()))} ratings by {len(self.rated)} raters"

    def audio(self, number: int) -> Path:
        """Return an item's file."""
        return self.root / self.items[number]["clip"]


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

    def _answer(self, work: Any) -> None:
        try:
            # A page from elsewhere must not reach this server by a name that resolves to it.
            if urlsplit(f"//{self.headers.get('Host', '')}").hostname not in (
                "127.0.0.1",
                "localhost",
            ):
                raise RequestError(403, "only for this machine")
            work()
        except RequestError as error:
            self.close_connection = True  # a body may be left unread
            self._send_json(error.status, {"error": str(error)})

    def _get(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/":
            self._send(200, page(), {"Content-Type": "text/html; charset=utf-8"})
        elif url.path == "/next":
            (rater,) = parse_qs(url.query).get("rater", [""])[:1]
            self._send_json(200, self.task.next_item(rater))
        elif match := re.fullmatch(r"/audio/(\d{1,9})", url.path):
            if int(match[1]) >= len(self.task.items):
                raise RequestError(404, f"there is no item {match[1]}")
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
            raise RequestError(400, "must be an object with rater, item and rating") from error
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
    """Return a server on this machine's loopback address; call ``serve_forever``.

    Arguments
    ---------
    task : RatingTask
        The pairs.
    port : int
        0: any that is free.
    """
    handler = type("Handler", (RatingHandler,), {"task": task})
    return ThreadingHTTPServer(("127.0.0.1", port), handler)


def _checked_name(rater: Any) -> str:
    if not isinstance(rater, str) or not rater.strip() or rater != rater.strip():
        raise RequestError(400, "a rater needs a name")
    if len(rater) > LONGEST_NAME or not rater.isprintable():
        raise RequestError(400, f"a name has at most {LONGEST_NAME} printable characters")
    return rater


def page() -> bytes:
    """Return the page, with the scale filled in."""
    middle = (SLIDER.low + SLIDER.high) / 2
    text = PAGE.read_text(encoding="utf-8")
    for name, value in {"low": SLIDER.low, "middle": middle, "high": SLIDER.high}.items():
        text = text.replace(f"{{{{{name}}}}}", f"{value:g}")
    return text.encode()


def _read_items(path: str | os.PathLike) -> list[dict[str, str]]:
    items: dict[tuple[str, str], dict[str, str]] = {}
    for where, line in read_lines(path, ITEM_COLUMNS):
        item = {name: (line[name] or "").strip() for name in ITEM_COLUMNS}
        if not all(item.values()) or not all(text.isprintable() for text in item.values()):
            raise ValueError(f"{where}: clip, caption and category must be one line of text")
        if (item["clip"], item["caption"]) in items:
            raise ValueError(f"{where}: this clip and caption were there before")
        items[item["clip"], item["caption"]] = item
    if not items:
        raise ValueError(f"{path} holds no item")
    return list(items.values())
