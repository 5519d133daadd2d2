"""How many requests may be in flight: as many as the servers bear, found out on the way."""

from __future__ import annotations

import asyncio


class ConcurrencyLimit:
    """A semaphore whose size grows by one per round of successes and halves on overload.

    Additive increase with multiplicative decrease, as in TCP. Requests that started before a
    decrease tell of the old size, so that one burst of refusals halves it once.

    Arguments
    ---------
    maximum : int
        Never more than so many; half of it is the start.

    Example
    -------
    >>> limit = ConcurrencyLimit(8)
    >>> limit.size
    4
    >>> limit.overloaded(limit.round)
    >>> limit.size
    2
    """

    def __init__(self, maximum: int) -> None:
        if maximum < 1:
            raise ValueError(f"concurrency {maximum} must be at least 1")
        self.maximum = maximum
        self.round = 0  # counts decreases
        self._size = max(1.0, maximum / 2)
        self._busy = 0
        self._freed = asyncio.Condition()

    @property
    def size(self) -> int:
        """Requests that may be in flight now."""
        return int(self._size)

    async def acquire(self) -> int:
        """Wait for a place; returns the round, to hand back with :meth:`overloaded`."""
        async with self._freed:
            await self._freed.wait_for(lambda: self._busy < self.size)
            self._busy += 1
            return self.round

    async def release(self) -> None:
        """Give the place back."""
        async with self._freed:
            self._busy -= 1
            self._freed.notify_all()

    def succeeded(self) -> None:
        """Note a success."""
        self._size = min(float(self.maximum), self._size + 1.0 / self._size)

    def overloaded(self, round_of_request: int) -> None:
        """Note that a server had too much to do, or that an answer took too long."""
        if round_of_request == self.round:
            self.round += 1
            self._size = max(1.0, self._size / 2)
