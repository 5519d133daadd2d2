"""How long failed requests wait, and how many are in flight."""

import asyncio
import time
from email.utils import formatdate
from types import SimpleNamespace

import pytest

from speechbrain_clsp.annotation.retries import (
    ConcurrencyLimit,
    retry_after,
    retry_delay,
    status_text,
)


def test_requests_wait_as_long_as_they_are_told():
    date = formatdate(time.time() + 30, usegmt=True)
    assert 28 < retry_after({"retry-after": date}) <= 30
    assert retry_after({"retry-after": formatdate(0, usegmt=True)}) == 0.0
    assert retry_after({"retry-after": "soon"}) == 0.0
    waits = [retry_delay(attempt, 0.5, 2.0) for attempt in range(12) for _ in range(50)]
    assert min(waits) >= 2.05 and max(waits) <= 62.0 and len(set(waits)) > 500


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ({"message": "too\nlong", "type": "x"}, "422: too long"),
        ({"detail": [{"msg": "no n"}]}, "422: [{'msg': 'no n'}]"),
        ({"error": "no such model"}, "422: no such model"),
        ("<html>Go away</html>", "422: <html>Go away</html>"),
        (None, "422: no message"),
    ],
)
def test_what_a_server_says_is_shown_whatever_its_form(body, line):
    assert status_text(SimpleNamespace(status_code=422, body=body)) == line


def test_a_wait_that_is_no_number_is_none():
    for text in ("nan", "-5", "soon", "", "Thu, 99 Foo", "Thu, 01 Jan 0001 00:00:00 GMT"):
        assert retry_after({"retry-after": text}) == 0.0, text
    assert retry_after({"retry-after": "inf"}) == float("inf")


def test_the_limit_halves_once_per_burst_and_grows_again():

    async def play():
        limit = ConcurrencyLimit(16)
        rounds = [await limit.acquire() for _ in range(8)]
        assert limit.size == 8
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(limit.acquire(), 0.05)
        for started in rounds:
            limit.overloaded(started)  # one burst
        assert limit.size == 4
        for _ in rounds:
            await limit.release()
        limit.overloaded(await limit.acquire())
        assert limit.size == 2
        for _ in range(300):
            limit.succeeded()
        assert limit.size == 16

    asyncio.run(play())
