"""What a service accepts, and the error of what it does not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Limits of a service; see :mod:`speechbrain_clsp.serve`.

    Arguments
    ---------
    body_bytes, bytes_at_once : int
        Of the body of a request, and of all bodies that are held at the same time.
    clips, texts : int
        In a request.
    clip_seconds, request_seconds, seconds_at_once : float
        Of audio in a clip, in a request, and in all requests that are worked on at the same time.
    text_characters : int
        In a caption.
    requests : int
        Worked on at the same time, those that wait included; further ones are refused with 429.
    body_timeout, header_timeout : float
        Seconds in which the body and the headers of a request must have come.
    batch_seconds : float, optional
        Padded duration of clips that are embedded together. Default: 60 on a GPU; 16 on a
        processor, where more clips at once are no faster, and of less similar lengths.
    cached : int
        Embeddings that are kept, of clips and of texts each.

    Example
    -------
    >>> Limits(clips=2).check_number(3, "audio", 2)
    Traceback (most recent call last):
    ...
    speechbrain_clsp.serve.limits.RequestRejectedError: audio[2] is one too many: 3 are given, at \
most 2 are taken in a request
    """

    body_bytes: int = 64 * MIB
    bytes_at_once: int = 512 * MIB
    clips: int = 256
    texts: int = 1024
    clip_seconds: float = 600.0
    request_seconds: float = 1800.0
    seconds_at_once: float = 3600.0
    text_characters: int = 4000
    requests: int = 64
    body_timeout: float = 60.0
    header_timeout: float = 15.0
    batch_seconds: float | None = None
    cached: int = 20_000

    def check_number(self, number: int, name: str, most: int) -> None:
        """Raise RequestRejectedError (413) if a list of a request is too long."""
        if number > most:
            raise RequestRejectedError(
                413,
                f"{name}[{most}] is one too many: {number} are given, at most {most} are taken in a"
                " request",
            )


class RequestRejectedError(Exception):
    """A request that is not answered, with its HTTP status.

    Arguments
    ---------
    status : int
        Such as 413 or 422.
    reason : str
        A sentence for whoever sent the request.
    retry_after : int, optional
        Seconds after which it may be sent again.
    """

    def __init__(self, status: int, reason: str, retry_after: int | None = None) -> None:
        super().__init__(reason)
        self.status, self.retry_after = status, retry_after


class Budget:
    """An amount that all requests share, such as bytes in memory.

    Example
    -------
    >>> budget = Budget(10, "bytes")
    >>> with budget.taken(8):
    ...     budget.take(3)
    Traceback (most recent call last):
    ...
    speechbrain_clsp.serve.limits.RequestRejectedError: the service is busy (8 of 10 bytes are in \
use): try again
    """

    def __init__(self, most: float, unit: str) -> None:
        self.most, self.unit, self.used = most, unit, 0.0
        self._lock = threading.Lock()

    def take(self, amount: float) -> None:
        """Take an amount, to be given back; RequestRejectedError (429) if it is not left."""
        with self._lock:
            if self.used and self.used + amount > self.most:
                raise RequestRejectedError(
                    429,
                    f"the service is busy ({self.used:.0f} of {self.most:.0f} {self.unit} are in"
                    " use): try again",
                    retry_after=1,
                )
            self.used += amount

    def give_back(self, amount: float) -> None:
        """Give an amount back."""
        with self._lock:
            self.used -= amount

    @contextmanager
    def taken(self, amount: float) -> Iterator[None]:
        """Take an amount for as long as a block runs."""
        self.take(amount)
        try:
            yield
        finally:
            self.give_back(amount)
