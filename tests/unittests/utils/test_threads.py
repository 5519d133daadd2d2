"""Iterators in threads: order, errors, and an early end."""

import threading
import time

import pytest

from speechbrain_clsp.utils.threads import read_ahead


def slow(items, seconds):
    for item in items:
        time.sleep(seconds)
        yield item


def test_items_come_in_turn_however_fast_their_iterators_are():
    found = list(read_ahead([slow("abc", 0.02), slow("xyzw", 0.0), iter("")]))
    assert found == ["a", "x", "b", "y", "c", "z", "w"]


def test_an_error_comes_in_the_place_of_its_item():
    def breaks():
        yield 1
        raise OSError("gone")

    items = read_ahead([breaks()])
    assert next(items) == 1
    with pytest.raises(OSError, match="gone"):
        next(items)


def test_closing_early_ends_the_threads_and_few_items_are_made():
    made = []

    def endless():
        while True:
            made.append(len(made))
            yield made[-1]

    items = read_ahead([endless()], depth=3)
    assert [next(items), next(items)] == [0, 1]
    items.close()
    assert len(made) <= 6
    assert not [t for t in threading.enumerate() if t.name.startswith("read-ahead")]
