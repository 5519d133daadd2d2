"""The page that collects ratings: over HTTP, and in a browser where there is one."""

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from urllib.parse import quote

import numpy as np
import pytest
import soundfile

from speechbrain_clsp.cli.main import main
from speechbrain_clsp.ratings import RatingTask, read_ratings
from tests.utils.browser import CHROMIUM, Browser

ITEMS = 6


@pytest.fixture
def folder(tmp_path):
    """Return a folder with clips of several formats and items.csv."""
    lines = ["clip,caption,category"]
    for n in range(ITEMS):
        name = f"clip {n}.{('wav', 'flac', 'ogg')[n % 3]}"
        wav = 0.1 * np.sin(2 * np.pi * 200 * np.arange(8000) / 16000)
        soundfile.write(tmp_path / name, wav, 16000)
        lines.append(
            f'{name},"A man, number {n}: <b>caf\u00e9</b>",{("intrinsic", "fusion")[n % 2]}'
        )
    (tmp_path / "items.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


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
    for part in range(3):
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
        with open(folder / "ratings.csv", "a", encoding="utf-8") as file:
            file.write(f'clip 0.wav,"A torn li{part}')
        aside = folder / f"ratings.csv.cut-off-{part + 1}"
        assert not aside.exists()
    with rating_page(folder) as (url, _):
        assert aside.read_text().endswith("A torn li2")
        assert ask(f"{url}next?rater=Ann") == (200, {"finished": True, "done": 6, "total": 6})
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


def test_clips_are_sent_whole_and_in_parts(folder):
    content = (folder / "clip 1.flac").read_bytes()
    with rating_page(folder) as (url, _):

        def part(asked: str | None) -> tuple[int, bytes, dict]:
            headers = {} if asked is None else {"Range": asked}
            request = urllib.request.Request(f"{url}audio/1", headers=headers)
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.read(), dict(response.headers)

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


def test_items_that_cannot_be_rated_are_told_at_the_start(folder, capsys):
    items = folder / "items.csv"

    def error() -> str:
        assert main(["rate", str(items), "--output", str(folder / "r.csv"), "--port", "0"]) == 2
        return capsys.readouterr().err

    text = items.read_text()
    items.write_text(text + "gone.wav,A man.,fusion\n")
    assert "1 clips are not in" in error() and "gone.wav" not in text
    items.write_text(text + "clip 0.wav,,fusion\n")
    assert "line 8: clip, caption and category" in error()
    items.write_text(text + text.splitlines()[1] + "\n")
    assert "line 8: this clip and caption were there before" in error()
    items.write_text("clip,caption\n")
    assert "lacks the columns ['category']" in error()
    items.write_text(text)
    (folder / "r.csv").write_text("clip,caption,category,rater,rating\nx.wav,A,b,Ann,3\n")
    assert "line 2: not a rating of these items" in error()


HEADER = "clip,caption,category,rater,rating\n"
LINE = 'clip 0.wav,"A man, number 0: <b>caf\u00e9</b>",intrinsic,Ann,4'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.txt", "my only copy", "must end in .sqlite or .csv"),
        ("notes.csv", "my only copy", "notes.csv, line 1: lacks the columns"),
        ("notes.csv", "\x00\x01", "notes.csv"),
        ("items.csv", None, "items.csv, line 1: lacks the columns ['rater', 'rating']"),
        ("r.csv", "note," + HEADER, "r.csv, line 1: has further columns: ['note']"),
        ("r.csv", f"{HEADER}{LINE},why\n", "r.csv, line 2: has more cells"),
        ("r.csv", f"{HEADER}{LINE}.7.1\n", "r.csv, line 2: the rating '4.7.1' is not a number"),
        ("r.csv", f"{HEADER}{LINE}2\n", "r.csv, line 2: 42.0 is not a number from 0 to 5"),
        ("r.csv", f"{HEADER}{LINE}\n{LINE}\n{LINE}.5", "line 4: this rating was 4 before"),
    ],
)
def test_files_that_are_not_ours_are_left_as_they_are(folder, capsys, name, content, message):
    path = folder / name
    if content is not None:
        path.write_text(content, encoding="utf-8")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert main(["rate", str(folder / "items.csv"), "--output", str(path), "--port", "0"]) == 2
    assert message in capsys.readouterr().err
    after = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert {name: after[name] for name in before} == before


def test_a_table_of_before_goes_on_and_may_lack_its_last_newline(folder):
    path = folder / "ratings.csv"
    path.write_text(HEADER + LINE, encoding="utf-8-sig")
    with rating_page(folder) as (url, _):
        assert ask(f"{url}next?rater=Ann")[1]["done"] == 1
    assert path.read_text(encoding="utf-8") == f"{HEADER}{LINE}\n"
    path.write_text(f"{HEADER}{LINE}.5\n", encoding="utf-8")  # corrected by hand
    with pytest.raises(ValueError, match="line 2: this rating was 4 before.*ratings.sqlite"):
        RatingTask(folder / "items.csv", folder, path)
    assert path.read_text(encoding="utf-8") == f"{HEADER}{LINE}.5\n"


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
