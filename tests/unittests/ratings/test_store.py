"""The store of ratings: kept through kills, shared by processes, and never made of another file."""

import multiprocessing
import os
import signal
import sqlite3
import time

import pytest

from speechbrain_clsp.ratings import SCORES, SLIDER, Rating, RatingStore


def rating(number: int, value: float = 3.0, rater: str = "Ann") -> Rating:
    return Rating(f"{number}.wav", "A man.", "intrinsic", rater, "style", value)


def rate(path, rater: str, first: int, end: int, acknowledged=None) -> None:
    with RatingStore(path) as store:
        for number in range(first, end):
            store.add([rating(number, rater=rater)], SLIDER)
            if acknowledged is not None:
                acknowledged.value = number + 1


def test_a_killed_process_loses_no_rating_that_was_acknowledged(tmp_path):
    path, context = tmp_path / "r.sqlite", multiprocessing.get_context("spawn")
    acknowledged = context.Value("i", 0)
    for _ in range(3):
        goal = acknowledged.value + 15
        arguments = (path, "Ann", acknowledged.value, 100_000, acknowledged)
        process = context.Process(target=rate, args=arguments)
        process.start()
        while acknowledged.value < goal:
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        with RatingStore(path) as store:
            clips = [found.clip for found in store.ratings()]
        assert clips[: acknowledged.value] == [f"{n}.wav" for n in range(acknowledged.value)]
        assert len(clips) - acknowledged.value in (0, 1)


def test_processes_share_a_store(tmp_path):
    path, context = tmp_path / "r.sqlite", multiprocessing.get_context("spawn")
    workers = [context.Process(target=rate, args=(path, name, 0, 40)) for name in ("Ann", "Bob")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    with RatingStore(path) as store:
        assert len(store.ratings()) == 80


def test_ratings_are_replaced_only_when_asked(tmp_path):
    with RatingStore(tmp_path / "r.sqlite") as store:
        assert store.add([rating(0), rating(1)], SLIDER) == 2
        assert store.add([rating(0, 4.0)], SLIDER) == 0 and store.ratings()[0].value == 3.0
        assert store.add([rating(0, 4.0), rating(1)], SLIDER, replace=True) == 1
        assert [found.value for found in store.ratings()] == [4.0, 3.0]


def test_values_off_the_scale_are_refused_with_all_that_came_along(tmp_path):
    with RatingStore(tmp_path / "r.sqlite") as store:
        for scale, value in ((SLIDER, 5.1), (SLIDER, float("nan")), (SCORES, 0), (SCORES, 2.5)):
            with pytest.raises(ValueError, match="is not a"):
                store.add([rating(0), rating(1, value)], scale)
        assert store.ratings() == []
        store.add([rating(0)], SCORES)
    with sqlite3.connect(tmp_path / "r.sqlite") as base:
        assert base.execute("SELECT low, high FROM ratings").fetchall() == [(1.0, 5.0)]


def test_other_files_are_left_as_they_are(tmp_path):
    text, base = tmp_path / "notes.sqlite", tmp_path / "mine.sqlite"
    text.write_text("my only copy")
    with sqlite3.connect(base) as mine:
        mine.execute("CREATE TABLE ratings (stars)")
    for path in (text, base):
        before = path.read_bytes()
        with pytest.raises(ValueError, match=f"{path.name} is not a store of ratings"):
            RatingStore(path)
        assert path.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.sqlite", "notes.sqlite"]


def test_a_damaged_store_is_named(tmp_path):
    path = tmp_path / "r.sqlite"
    with RatingStore(path) as store:
        store.add([rating(n) for n in range(200)], SLIDER)
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\x99" * 4000 + content[4100:])
    with pytest.raises(ValueError, match="r.sqlite cannot be used as a store of ratings"):
        RatingStore(path)
    with pytest.raises(ValueError, match="nowhere"):
        RatingStore(tmp_path / "nowhere/r.sqlite")
