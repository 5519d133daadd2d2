"""What stands before a service: who may use it, and how much may be sent to it."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from speechbrain_clsp.serve.limits import Budget, Limits, RequestRejectedError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
OPEN_PATHS = ("/", "/docs", "/healthz")  # need no token: they hold no data and run no model
DRAIN_SECONDS = 2.0  # that a refused request may go on sending
DRAIN_BODIES = 4  # times as much as is taken
SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src"
    " 'self' 'unsafe-inline'; img-src 'self' data:; media-src 'self' blob:; frame-ancestors",
}


def refusal(error: RequestRejectedError) -> JSONResponse:
    """Return the response to a request that is not answered."""
    headers = {"Connection": "close"}  # a body may be left unread
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": str(error)}, error.status, headers)


def check_host(header: str, allowed: Collection[str], is_public: bool) -> None:
    """Raise RequestRejectedError (403) for a name under which the service is not to be reached.

    A page from elsewhere could make its own name resolve to this machine (DNS rebinding); the
    header then has that name.

    Arguments
    ---------
    header : str
        The request's ``Host``.
    allowed : collection of str
        Names, in lower case.
    is_public : bool
        Whether any address in digits will do, too, since the service listens to others.

    Example
    -------
    >>> check_host("localhost:8000", LOOPBACK, False)
    >>> check_host("evil.example:8000", LOOPBACK, True)
    Traceback (most recent call last):
    ...
    speechbrain_clsp.serve.limits.RequestRejectedError: the service is not known as 'evil.example'\
: start it with --allow-host evil.example if it should be
    """
    try:
        name = (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        name = ""
    if name in allowed:
        return
    if is_public:
        try:
            ipaddress.ip_address(name)
            return
        except ValueError:
            pass
    raise RequestRejectedError(
        403,
        f"the service is not known as {name!r}: start it with --allow-host {name} if it should be",
    )


def check_origin(headers: Headers, path: str) -> None:
    """Raise RequestRejectedError (403) for a request that a page of another site makes."""
    origin, host = headers.get("origin"), headers.get("host", "")
    try:
        is_own = origin is None or urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        is_own = False
    if not is_own:
        raise RequestRejectedError(403, f"pages of {str(origin)[:80]} may not use this service")
    is_other = headers.get("sec-fetch-site") in ("cross-site", "same-site")
    if is_other and path not in OPEN_PATHS:  # those may be linked to
        raise RequestRejectedError(403, "pages of other sites may not use this service")


class Gate:
    """ASGI middleware: checks who asks, bounds bodies in size and time, and counts requests.

    Arguments
    ---------
    app : ASGI application
        What is behind it.
    limits : Limits
        Of bodies.
    allowed : collection of str
        Names of this service, further to loopback's.
    is_public : bool
        As for :func:`check_host`.
    token : str, optional
        What ``Authorization: Bearer`` must give, except for pages without data.
    frames : collection of str
        Sites whose pages may show the service's page in a frame.
    on_end : callable
        Gets path, status and seconds of each request.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        allowed: Collection[str] = (),
        is_public: bool = False,
        token: str | None = None,
        frames: Collection[str] = (),
        on_end: Callable[[str, int, float], object] = lambda path, status, seconds: None,
    ) -> None:
        self.app, self.limits, self.is_public, self.on_end = app, limits, is_public, on_end
        self.allowed = {*LOOPBACK, *(name.lower() for name in allowed)}
        self.token = token
        policy = "Content-Security-Policy"
        self.headers = {**SECURITY, policy: " ".join([SECURITY[policy], "'self'", *frames])}
        self.bytes = Budget(limits.bytes_at_once, "bytes of requests")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.monotonic(), 0
        body = _Body(receive, self.limits, self.bytes)

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if status >= 400:
                    await body.drain()
                headers = MutableHeaders(scope=message)
                for name, value in self.headers.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope)
            await self.app(scope, body.receive, sending)
        except RequestRejectedError as error:
            await refusal(error)(scope, receive, sending)
        finally:
            self.bytes.give_back(body.size)
            self.on_end(scope["path"], status, time.monotonic() - start)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        check_host(headers.get("host", ""), self.allowed, self.is_public)
        check_origin(headers, scope["path"])
        if self.token is not None and scope["path"] not in OPEN_PATHS:
            kind, _, given = headers.get("authorization", "").partition(" ")
            right = hmac.compare_digest(given.strip().encode(), self.token.encode())
            if kind.lower() != "bearer" or not right:
                raise RequestRejectedError(401, "give the token, as Authorization: Bearer TOKEN")
        length = headers.get("content-length", "0")
        if not length.isdigit():
            raise RequestRejectedError(400, "Content-Length is not a number")
        if int(length) > self.limits.body_bytes:
            raise RequestRejectedError(413, _too_large(self.limits))


class _Body:
    """A request's body, bounded in size and time."""

    def __init__(self, receive: Receive, limits: Limits, budget: Budget) -> None:
        self._receive, self._limits, self._budget = receive, limits, budget
        self._end = time.monotonic() + limits.body_timeout
        self._is_complete = False
        self.size = 0

    async def receive(self) -> Message:
        """Return the next part."""
        if self._is_complete:  # then only that the client leaves is to be told
            return await self._receive()
        try:
            left = max(0.0, self._end - time.monotonic())
            message = await asyncio.wait_for(self._receive(), left)
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise RequestRejectedError(
                408, f"the body did not come within {self._limits.body_timeout:g} s"
            ) from error
        if message["type"] == "http.request":
            self._is_complete = not message.get("more_body", False)
            size = len(message.get("body", b""))
            if self.size + size > self._limits.body_bytes:
                raise RequestRejectedError(413, _too_large(self._limits))
            self._budget.take(size)
            self.size += size
        return message

    async def drain(self) -> None:
        """Read and drop what is still sent, for a moment: else clients may not see the answer."""
        end, size = time.monotonic() + DRAIN_SECONDS, 0
        with suppress(TimeoutError, asyncio.TimeoutError):
            while not self._is_complete and size < DRAIN_BODIES * self._limits.body_bytes:
                message = await asyncio.wait_for(self._receive(), max(0.0, end - time.monotonic()))
                size += len(message.get("body", b""))
                self._is_complete = not message.get("more_body", False)


def _too_large(limits: Limits) -> str:
    return f"the request is too large: at most {limits.body_bytes} bytes are taken"
