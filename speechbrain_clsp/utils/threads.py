"""Iterators that work ahead in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
_END: Any = object()


def read_ahead(iterators: Sequence[Iterator[Item]], depth: int = 2) -> Iterator[Item]:
    """Run each iterator in a thread of its own; yield an item of each in turn.

    The order of items does not depend on how fast threads are. An exception of an iterator is
    raised where its item would have been. When the result is closed, threads end with the item that
    they are at.

    Arguments
    ---------
    iterators : list of iterator
        What is run.
    depth : int
        Items of each that are made ahead of their use.

    Example
    -------
    >>> list(read_ahead([iter("abc"), iter("xy")]))
    ['a', 'x', 'b', 'y', 'c']
    """
    pools = [ThreadPoolExecutor(1, "read-ahead") for _ in iterators]
    turns: deque[tuple[ThreadPoolExecutor, Iterator[Item], deque[Future]]] = deque()
    try:
        for pool, items in zip(pools, iterators):
            waiting = deque(pool.submit(next, items, _END) for _ in range(depth))
            turns.append((pool, items, waiting))
        while turns:
            pool, items, waiting = turns.popleft()
            item = waiting.popleft().result()
            if item is _END:
                continue
            waiting.append(pool.submit(next, items, _END))
            turns.append((pool, items, waiting))
            yield item
    finally:
        for pool in pools:
            pool.shutdown(cancel_futures=True)
