"""The page that collects ratings: over HTTP, and in a browser where there is one."""

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from email.message import Message
from urllib.parse import quote

import numpy as np
import pytest

from speechbrain_clsp.cli.main import main
from speechbrain_clsp.ratings import read_ratings
from speechbrain_clsp.serve.server import open_socket
from tests.utils.browser import CHROMIUM, Browser
from tests.utils.rating_items import ITEMS, write_items


@pytest.fixture
def folder(tmp_path):
    """Return a folder with clips of several formats and items.csv."""
    return write_items(tmp_path)


@contextmanager
def rating_page(folder):
    """Run the command in a process of its own; yields address and process."""
    command = [sys.executable, "-m", "speechbrain_clsp.cli.main", "rate", str(folder / "items.csv")]
    command += ["--output", str(folder / "ratings.csv"), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().split(" at ")[1].split(";")[0], process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def ask(url: str, body=None, **headers) -> tuple[int, dict]:
    """Get, or post JSON; returns status and answer."""
    data = None if body is None else json.dumps(body).encode()
    kind = {"Content-Type": "application/json"} if data else {}
    request = urllib.request.Request(url, data, {**kind, **headers})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_a_rater_goes_on_after_a_kill_and_the_suite_reads_it(folder):
    raters = ("Ann", "Bob, the \u00fcber\u2019rater")
    shown = {rater: [] for rater in raters}
    for _ in range(3):
        with rating_page(folder) as (url, process):
            for rater in raters:
                for _ in range(2):
                    status, item = ask(f"{url}next?rater={quote(rater)}")
                    assert status == 200 and item["done"] == len(shown[rater])
                    shown[rater].append(item["item"])
                    rating = {"rater": rater, "item": item["item"], "rating": item["item"] * 0.9}
                    status, after = ask(f"{url}rating", rating)
                    assert status == 200 and after["done"] == len(shown[rater])
            process.send_signal(signal.SIGKILL)
            process.wait()
        lines = (folder / "ratings.csv").read_text(encoding="utf-8").splitlines(keepends=True)
        # A kill between the writes of the store and of its table.
        (folder / "ratings.csv").write_text("".join(lines[:-1]), encoding="utf-8")
    with rating_page(folder) as (url, _):
        assert ask(f"{url}next?rater=Ann") == (200, {"finished": True, "done": 6, "total": 6})
        assert (folder / "ratings.csv").read_text(encoding="utf-8") == "".join(lines)
    assert all(sorted(order) == list(range(ITEMS)) for order in shown.values())
    assert len({tuple(order) for order in shown.values()}) == 2  # everybody has an own order
    ratings = read_ratings(folder / "ratings.csv")
    assert ratings.raters == sorted(raters) and not np.isnan(ratings.scores).any()
    for (clip, caption), scores in zip(ratings.items, ratings.scores):
        number = int(caption.split("number ")[1][0])
        assert f"clip {number}." in clip and np.allclose(scores, number * 0.9)


def test_wrong_requests_write_nothing(folder):
    good = {"rater": "Ann", "item": 2, "rating": 4.5}
    with rating_page(folder) as (url, _):
        for change, status in (
            ({"rating": 5.1}, 400),
            ({"rating": -0.1}, 400),
            ({"rating": "4"}, 400),
            ({"rating": True}, 400),
            ({"rating": float("nan")}, 400),
            ({"item": ITEMS}, 404),
            ({"item": -1}, 404),
            ({"item": "2"}, 400),
            ({"rater": ""}, 400),
            ({"rater": "a\nb"}, 400),
            ({"rater": "x" * 65}, 400),
        ):
            found, answer = ask(f"{url}rating", good | change)
            assert (found, bool(answer["error"])) == (status, True), change
        assert ask(f"{url}rating", [1])[0] == 400
        assert ask(f"{url}rating", good | {"rater": "y" * 5000})[0] == 413
        assert ask(f"{url}rating", good, **{"Content-Type": "text/plain"})[0] == 415
        assert ask(f"{url}next?rater=Ann", Host="evil.example")[0] == 403
        for path in ("audio/99", "audio/../items.csv", "items.csv", "audio/-1"):
            assert ask(url + path)[0] == 404, path
        assert (folder / "ratings.csv").read_text() == "clip,caption,category,rater,rating\n"
        assert ask(f"{url}rating", good)[0] == 200
        assert ask(f"{url}rating", good)[0] == 409
    assert len((folder / "ratings.csv").read_text().splitlines()) == 2


def test_other_sites_and_slow_bodies_are_refused_as_by_the_service(folder):
    good = {"rater": "Ann", "item": 2, "rating": 4.5}
    with rating_page(folder) as (url, _):
        assert ask(f"{url}rating", good, Origin="http://evil.example")[0] == 403
        assert ask(f"{url}next?rater=Ann", **{"Sec-Fetch-Site": "cross-site"})[0] == 403
        with urllib.request.urlopen(url) as response:
            assert "frame-ancestors 'self'" in response.headers["Content-Security-Policy"]
        assert ask(f"{url}rating", good, Origin=url.rstrip("/"))[0] == 200
    assert len((folder / "ratings.csv").read_text().splitlines()) == 2


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_ends_it_with_what_comes_next(folder, sent):
    with rating_page(folder) as (url, process):
        assert ask(f"{url}rating", {"rater": "Ann", "item": 2, "rating": 4.5})[0] == 200
        process.send_signal(sent)
        printed = process.stdout.read()
        assert process.wait(20) == 0
        assert "1 ratings by 1 raters. Next:\n  clsp evaluate --suite similarity" in printed


def test_a_port_in_use_and_a_missing_extra_are_told(folder, capsys, monkeypatch):
    words = ["rate", str(folder / "items.csv"), "--output", str(folder / "r.csv"), "--port"]
    with open_socket("127.0.0.1", 0) as other:
        port = str(other.getsockname()[1])
        assert main([*words, port]) == 2
        assert f"--port {port} cannot be used" in capsys.readouterr().err
    for name in [name for name in sys.modules if name.startswith("speechbrain_clsp.serve.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    for command in (["serve"], [*words, "0"]):
        assert main(command) == 2
        assert f"clsp {command[0]} needs the extra serve" in capsys.readouterr().err


def test_clips_are_sent_whole_and_in_parts(folder):
    content = (folder / "clip 1.flac").read_bytes()
    with rating_page(folder) as (url, _):

        def part(asked: str | None) -> tuple[int, bytes, Message]:
            headers = {} if asked is None else {"Range": asked}
            request = urllib.request.Request(f"{url}audio/1", headers=headers)
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.read(), response.headers

        status, body, headers = part(None)
        assert (status, body) == (200, content) and headers["Content-Type"].endswith("flac")
        assert part("bytes=10-19")[:2] == (206, content[10:20])
        assert part("bytes=100-")[:2] == (206, content[100:])
        status, body, headers = part("bytes=-7")
        assert (status, body) == (206, content[-7:])
        assert (
            headers["Content-Range"]
            == f"bytes {len(content) - 7}-{len(content) - 1}/{len(content)}"
        )
        with pytest.raises(urllib.error.HTTPError, match="416"):
            part(f"bytes={len(content)}-")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_page_works_in_a_browser(folder):
    with rating_page(folder) as (url, _), Browser(folder) as browser:
        browser.send("Page.navigate", url=url)
        browser.wait("document.readyState == 'complete' && !!document.getElementById('rater')")
        browser.run("rater.value; at('rater').value = 'Ann'; at('start').requestSubmit()")
        for done in range(ITEMS):
            browser.wait(f"!at('rate').hidden && at('progress').value == {done}")
            assert "<b>" in browser.run("at('caption').textContent")  # shown as text, not as HTML
            assert browser.run("at('next').disabled")
            browser.run("at('slider').focus()")
            browser.key("ArrowRight")
            assert browser.run("at('value').textContent") == "2.6"
            assert browser.run("at('next').disabled")  # not played yet
            browser.run("at('audio').play()")
            browser.wait("!at('next').disabled")
            if done == 1:  # a reload goes on with the same item
                caption = browser.run("at('caption').textContent")
                browser.send("Page.reload")
                browser.wait("typeof at == 'function' && !at('start').hidden && at('rate').hidden")
                browser.run("at('rater').value = 'Ann'; at('start').requestSubmit()")
                browser.wait("!at('rate').hidden")
                assert browser.run("at('caption').textContent") == caption
                browser.run("at('audio').play(); at('slider').value = 2.6; touch()")
                browser.wait("!at('next').disabled")
            browser.run("at('rate').requestSubmit()")
        browser.wait("!at('end').hidden")
    ratings = read_ratings(folder / "ratings.csv")
    assert ratings.raters == ["Ann"] and np.allclose(ratings.scores, 2.6)
    assert len(ratings.items) == ITEMS
