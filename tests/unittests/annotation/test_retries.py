"""How long failed requests wait, and how many are in flight."""

import asyncio
import time
from email.utils import formatdate

import pytest

from speechbrain_clsp.annotation.retries import ConcurrencyLimit, retry_after, retry_delay


def test_requests_wait_as_long_as_they_are_told():
    date = formatdate(time.time() + 30, usegmt=True)
    assert 28 < retry_after({"retry-after": date}) <= 30
    assert retry_after({"retry-after": formatdate(0, usegmt=True)}) == 0.0
    assert retry_after({"retry-after": "soon"}) == 0.0
    waits = [retry_delay(attempt, 0.5, 2.0) for attempt in range(12) for _ in range(50)]
    assert min(waits) >= 2.05 and max(waits) <= 62.0 and len(set(waits)) > 500


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
