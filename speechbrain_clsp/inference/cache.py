"""A bounded cache of embeddings, for texts and for clips."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from torch import Tensor

MAXIMUM_ENTRIES = 20_000  # 40 MB of embeddings of 512 numbers


class EmbeddingCache:
    """The embeddings that were used most recently, by a key such as a text or a hash.

    Threads may share it.

    Arguments
    ---------
    max_entries : int
        Embeddings that are kept; beyond, the least recently used one is dropped. 0: none.

    Attributes
    ----------
    hits, misses : int
        How many keys were found, and how many were not.

    Example
    -------
    >>> import torch
    >>> cache = EmbeddingCache(max_entries=2)
    >>> cache.find(["a", "b"]), cache.hits, cache.misses
    ({}, 0, 2)
    >>> for key in "abc":
    ...     cache.add({key: torch.zeros(512)})
    >>> list(cache.find(["a", "b"])), cache.hits, cache.misses
    (['b'], 1, 3)
    """

    def __init__(self, max_entries: int = MAXIMUM_ENTRIES) -> None:
        if max_entries < 0:
            raise ValueError(f"max_entries must be 0 or more, not {max_entries}")
        self.max_entries = max_entries
        self.hits = self.misses = 0
        self._entries: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple:
        """Send the limit to other processes, not the entries."""
        return EmbeddingCache, (self.max_entries,)

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, keys: Iterable[Hashable]) -> dict[Any, Tensor]:
        """Return the embeddings that are there, by their keys."""
        distinct = dict.fromkeys(keys)
        with self._lock:
            found = {key: self._entries[key] for key in distinct if key in self._entries}
            for key in found:
                self._entries.move_to_end(key)
            self.hits += len(found)
            self.misses += len(distinct) - len(found)
        return found

    def add(self, embeddings: Mapping[Any, Tensor]) -> None:
        """Keep embeddings by their keys; the least recently used ones make room."""
        with self._lock:
            self._entries.update(embeddings)
            while len(self._entries) > self.max_entries:
                self._entries.popitem(last=False)

    def clear(self) -> None:
        """Drop all entries, as after a change of weights."""
        with self._lock:
            self._entries.clear()
