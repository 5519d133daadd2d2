"""Which failed requests are tried again, after which pause, and how many may be in flight.

The ``openai`` package has retries of its own. They stay with one server and are not seen by the
limit of requests in flight: with one of two servers gone, 50 of 100 requests failed for good (here:
1); with faults in 30 % of answers, 19 of 200 (here: 1).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from speechbrain_clsp.annotation.faults import explain_connection, explain_status

FATAL = (401, 402, 403, 404, 405, 407)  # the same for every request: key, account, address, ...
HOPELESS = (400, 413, 415, 422)  # the same for every attempt at this request
OVERLOAD = (429, 503)  # too many requests or a used-up quota, whatever is asked
LONGEST_PAUSE = 60.0  # seconds between two attempts; a server may ask for more


class RequestRejectedError(Exception):
    """One request can never succeed; its text says why."""


class ServerUnavailableError(ConnectionError):
    """The servers do not answer, or reject every request; its text says what to check."""


class UnansweredError(ServerUnavailableError):
    """All attempts at a request failed, because of it or because of the servers.

    Other requests tell: if one that is sent later is answered, this request is to blame.
    """


class RetryableError(Exception):
    """An attempt failed in a way that another one may not.

    Arguments
    ---------
    kind : str
        What reports count it as.
    reason : str
        What happened.
    after : float
        Seconds for which the server asks to wait.
    overload : bool
        Whether fewer requests should be in flight.
    """

    def __init__(self, kind: str, reason: str, after: float = 0.0, overload: bool = False) -> None:
        super().__init__(reason)
        self.kind = kind
        self.after = after
        self.overload = overload


class ErrorAnswerError(Exception):
    """An answer with the status 200 that holds an error.

    Arguments
    ---------
    code : int
        The status that it gives itself; 0 if it gives none.
    reason : str
        Its message.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class ConcurrencyLimit:
    """A semaphore whose size grows by one per round of successes and halves on overload.

    Additive increase with multiplicative decrease, as in TCP. A request that started before a
    decrease reports on the old size, so that one burst of overloads halves it once.

    Arguments
    ---------
    maximum : int
        Never more than so many; half of it is the start.

    Example
    -------
    >>> limit = ConcurrencyLimit(8)
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


def classify(error: Exception, url: str, variable: str) -> RetryableError:
    """Return the error that asks for another attempt, or raise one that ends them.

    Arguments
    ---------
    error : Exception
        What an attempt raised.
    url : str
        The server's ``base_url``.
    variable : str
        The environment variable of the key.

    Raises
    ------
    RequestRejectedError
        If this request cannot succeed.
    ServerUnavailableError
        If no request can.
    """
    openai = import_openai()
    if isinstance(error, RetryableError):
        return error
    if isinstance(error, openai.APITimeoutError | asyncio.TimeoutError):
        reason = "no answer in time: raise timeout, or lower concurrency"
        return RetryableError("timeout", reason, overload=True)
    if isinstance(error, openai.APIConnectionError):
        return RetryableError("connection", explain_connection(error, url))
    if isinstance(error, openai.APIStatusError):
        after = retry_after(error.response.headers)
        return classify_status(error.status_code, status_text(error), after, url, variable)
    if isinstance(error, ErrorAnswerError) and error.code >= 400:
        return classify_status(error.code, f"{error.code}: {error}", 0.0, url, variable)
    if isinstance(error, ErrorAnswerError):
        return RetryableError("malformed", str(error))
    if isinstance(error, openai.OpenAIError | ValueError | TypeError | KeyError | AttributeError):
        return RetryableError("malformed", f"a malformed answer ({_line(error)})"[:500])
    raise error


def classify_status(code: int, text: str, after: float, url: str, variable: str) -> RetryableError:
    """Do for a status what :func:`classify` does for an error.

    Arguments
    ---------
    code : int
        The status.
    text : str
        Status and message, as :func:`status_text` returns them.
    after : float
        Seconds for which the server asks to wait.
    url, variable : str
        As for :func:`classify`.
    """
    if code in FATAL:
        raise ServerUnavailableError(
            f"The server {url} answers {explain_status(code, text, url, variable)}"
        )
    if code in HOPELESS:
        raise RequestRejectedError(text)
    return RetryableError(str(code), text, after, overload=code in OVERLOAD)


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if type(error) is ValueError else f"{type(error).__name__}: {text}"


def retry_delay(attempt: int, pause: float, after: float) -> float:
    """Return the seconds to wait after failed attempt number ``attempt``, from 0.

    ``pause`` doubles with each attempt, up to a minute. How much of it is waited is drawn, to
    spread those who wait; ``after``, the seconds that the server asks for, is added.
    """
    return after + random.uniform(0.1, 1.0) * min(LONGEST_PAUSE, pause * 2**attempt)


def retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds that a server asks to wait for, 0 if it does not.

    RFC 9110 has seconds or a date; milliseconds in a header of their own are common, too.

    Example
    -------
    >>> retry_after({"retry-after": "7"}), retry_after({"retry-after-ms": "250"}), retry_after({})
    (7.0, 0.25, 0.0)
    """
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        return max(0.0, float(headers.get("retry-after", 0)))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (ValueError, TypeError, KeyError, OverflowError):
        return 0.0


def status_text(error: Any) -> str:
    """Return the status and the message of an answer that is an error, on one line."""
    body = error.body  # the object "error" of an answer, the answer, or its text
    if isinstance(body, dict):
        body = next((body[name] for name in ("message", "detail", "error") if body.get(name)), body)
    line = " ".join(str(body or "").split())
    return f"{error.status_code}: {line or 'no message'}"[:500]


def import_openai() -> Any:
    """Return the optional package ``openai``; raise ValueError if it is missing."""
    try:
        import openai
    except ImportError as error:
        raise ValueError(
            "Annotation needs the package openai: pip install 'speechbrain-clsp[annotate]'"
        ) from error
    return openai
