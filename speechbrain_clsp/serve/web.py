"""What the web applications here have in common: a gate, threads, and errors as sentences."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from speechbrain_clsp import __version__
from speechbrain_clsp.serve.gate import Gate, refusal
from speechbrain_clsp.serve.limits import Limits, RequestRejectedError

JSON, MULTIPART = "application/json", "multipart/form-data"
Result = TypeVar("Result")


def media_type(request: Request) -> str:
    """Return what a request says that its body is, in lower case and without parameters.

    Example
    -------
    >>> scope = {"type": "http", "headers": [(b"content-type", b"Text/HTML; charset=utf-8")]}
    >>> media_type(Request(scope))
    'text/html'
    """
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


class Workers:
    """Threads in which requests are worked on; no more are taken than there are threads.

    Arguments
    ---------
    most : int
        Threads.

    Example
    -------
    >>> workers = Workers(2)
    >>> asyncio.run(workers.run(lambda: "done"))
    'done'
    >>> workers.close()
    """

    def __init__(self, most: int) -> None:
        self.most, self.used = most, 0
        self._pool = ThreadPoolExecutor(most, "request")

    def check(self) -> None:
        """Raise RequestRejectedError (429) if no further request is taken."""
        if self.used >= self.most:
            raise RequestRejectedError(
                429, f"{self.used} requests are worked on: try again", retry_after=1
            )

    async def run(self, work: Callable[[], Result]) -> Result:
        """Run a function in a thread."""
        self.check()
        self.used += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self.used -= 1

    def close(self) -> None:
        """Wait for all that runs."""
        self._pool.shutdown()


def create_web_app(
    title: str,
    description: str,
    limits: Limits,
    workers: Workers,
    on_stop: Callable[[], object] = lambda: None,
    is_documented: bool = True,
    **gate: Any,
) -> FastAPI:
    """Return a web application without endpoints.

    Arguments
    ---------
    title, description : str
        For those who read ``/openapi.json``.
    limits : Limits
        Of what it accepts.
    workers : Workers
        Closed when it stops.
    on_stop : callable
        Called after that.
    is_documented : bool
        Whether it has an ``/openapi.json``.
    **gate : Any
        For :class:`~speechbrain_clsp.serve.gate.Gate`.

    Example
    -------
    >>> app = create_web_app("Title", "What it does.", Limits(), Workers(1))
    >>> app.openapi()["info"]["title"]
    'Title'
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        workers.close()
        on_stop()

    app = FastAPI(
        title=title,
        description=description,
        version=__version__,
        openapi_url="/openapi.json" if is_documented else None,
        docs_url=None,  # its pages come from other servers
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(Gate, limits=limits, **gate)
    app.add_exception_handler(RequestRejectedError, _refuse)
    app.add_exception_handler(RequestValidationError, _name_field)
    app.add_exception_handler(HTTPException, _explain)
    app.add_exception_handler(ClientDisconnect, _count_as_left)
    app.add_exception_handler(Exception, _fail)
    return app


async def _refuse(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestRejectedError)
    return refusal(error)


async def _name_field(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return JSONResponse({"error": f"{first['loc'][-1]}: {first['msg']}"}, 422)


async def _explain(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)


async def _count_as_left(_: Request, error: Exception) -> JSONResponse:
    """Answer, for the metrics, a client that left before its request was complete."""
    return JSONResponse({"error": "the request is not complete"}, 400)


async def _fail(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": f"the service failed: {type(error).__name__}"}, 500)
