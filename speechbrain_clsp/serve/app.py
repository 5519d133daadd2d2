"""The HTTP interface of a service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from speechbrain_clsp import __version__
from speechbrain_clsp.inference.attributes import read_attributes
from speechbrain_clsp.serve import requests
from speechbrain_clsp.serve.gate import Gate, refusal
from speechbrain_clsp.serve.limits import RequestRejectedError
from speechbrain_clsp.serve.metrics import Metrics
from speechbrain_clsp.serve.requests import Fields, read_request
from speechbrain_clsp.serve.service import Clip, StyleService

FOLDER = Path(__file__).parent
Answer = Callable[[Any, list[Clip]], dict[str, Any]]


def create_app(
    service: StyleService,
    allowed: Collection[str] = (),
    is_public: bool = False,
    token: str | None = None,
    frames: Collection[str] = (),
) -> FastAPI:
    """Return the web application of a service.

    Arguments
    ---------
    service : StyleService
        What answers.
    allowed, is_public, token, frames
        As for :class:`~speechbrain_clsp.serve.gate.Gate`.

    Returns
    -------
    fastapi.FastAPI
        For any server of ASGI; when it ends, it closes the service.

    Example
    -------
    >>> app = create_app(StyleService(clsp))  # doctest: +SKIP
    >>> uvicorn.run(app, host="127.0.0.1", port=8000)  # doctest: +SKIP
    """
    operations: dict[str, tuple[type[Fields], Answer]] = {
        "score": (
            requests.Score,
            lambda f, clips: service.score(clips, f.captions, f.percentiles),
        ),
        "embed/audio": (requests.AudioFields, lambda f, clips: service.embed_audio(clips)),
        "embed/text": (requests.Texts, lambda f, clips: service.embed_text(f.texts)),
        "contrasts": (requests.Texts, lambda f, clips: service.contrasts(f.texts)),
        "classify": (requests.Classify, lambda f, clips: service.classify(clips, f.prompts)),
        "timeline": (
            requests.TimelineFields,
            lambda f, clips: service.timeline(_only(clips), f.captions, f.window, f.hop),
        ),
        "search": (
            requests.SearchFields,
            lambda f, clips: service.search(clips, f.text, f.like, f.where, f.k),
        ),
        "reward": (requests.RewardFields, lambda f, clips: _reward(service, f, clips)),
    }
    paths = (
        "/",
        "/docs",
        "/healthz",
        "/metrics",
        "/openapi.json",
        "/v1/model",
        "/v1/attributes",
        "/v1/clips",
    )
    metrics = Metrics(service, (*paths, *(f"/v1/{name}" for name in operations)))
    service.model.on_batch = metrics.count_batch
    workers = _Workers(service.limits.requests)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        workers.close()
        service.close()

    app = FastAPI(
        title="CLSP",
        description="Speech and descriptions of how it is spoken, compared.",
        version=__version__,
        docs_url=None,  # its pages come from other servers
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(
        Gate,
        limits=service.limits,
        allowed=allowed,
        is_public=is_public,
        token=token,
        frames=frames,
        on_end=metrics.count_request,
    )
    _add_pages(app, service, metrics)
    for name, (kind, answer) in operations.items():
        app.add_api_route(
            f"/v1/{name}",
            _endpoint(kind, answer, service, workers),
            methods=["POST"],
            name=name,
            description=kind.__doc__,
            openapi_extra=_body_schema(kind),
        )
    app.add_exception_handler(RequestRejectedError, _refuse)
    app.add_exception_handler(HTTPException, _explain)
    app.add_exception_handler(Exception, _fail)
    return app


class _Workers:
    """Threads in which requests are worked on, and how many may wait for one."""

    def __init__(self, most: int) -> None:
        self.most, self.used = most, 0
        self._pool = ThreadPoolExecutor(most, "request")

    def check(self) -> None:
        """Raise RequestRejectedError (429) if no further request is taken."""
        if self.used >= self.most:
            raise RequestRejectedError(
                429, f"{self.used} requests are worked on: try again", retry_after=1
            )

    async def run(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
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


def _endpoint(
    kind: type[Fields], answer: Answer, service: StyleService, workers: _Workers
) -> Callable[[Request], Awaitable[JSONResponse]]:
    async def endpoint(request: Request) -> JSONResponse:
        workers.check()  # before its body is read
        fields, clips = await read_request(request, kind, service.limits)
        if not clips and "audio" in kind.model_fields and kind.model_fields["audio"].is_required():
            raise RequestRejectedError(422, "audio: give at least one clip")

        def work() -> dict[str, Any]:
            try:
                return {**answer(fields, clips), **service.provenance}
            except (TypeError, ValueError) as error:
                raise RequestRejectedError(422, str(error)) from error

        return JSONResponse(await workers.run(work))

    return endpoint


def _add_pages(app: FastAPI, service: StyleService, metrics: Metrics) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(FOLDER / "page.html", headers={"Cache-Control": "no-cache"})

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(FOLDER / "docs.html", headers={"Cache-Control": "no-cache"})

    @app.get("/healthz", description="Whether the service runs.")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics", description="Counts, for Prometheus.", response_class=PlainTextResponse)
    async def counts() -> PlainTextResponse:
        return PlainTextResponse(metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/v1/model", description="What the model is, and what the service takes.")
    def model() -> dict[str, Any]:
        return {**service.describe(), **service.provenance}

    @app.get("/v1/clips", description="A clip of the index, by its id, as a wav file.")
    def clips(id: str) -> Response:
        try:
            return Response(service.audio_of(id), media_type="audio/wav")
        except (OSError, ValueError) as error:
            raise RequestRejectedError(404, str(error)) from error

    @app.get("/v1/attributes", description="Prompts of attributes, for /v1/classify.")
    async def attributes() -> dict[str, Any]:
        return read_attributes()


def _body_schema(kind: type[Fields]) -> dict[str, Any]:
    schema = kind.model_json_schema()
    rest = {name: one for name, one in schema["properties"].items() if name != "audio"}
    file = {"type": "string", "format": "binary"}
    form = {
        "type": "object",
        "properties": {
            "audio": {"type": "array", "items": file},
            "request": {"type": "string", "description": f"JSON of {', '.join(rest)}"},
        },
    }
    content: dict[str, Any] = {requests.JSON: {"schema": schema}}
    if "audio" in schema["properties"]:
        content[requests.MULTIPART] = {"schema": form}
    return {"requestBody": {"required": True, "content": content}}


def _only(clips: list[Clip]) -> Clip:
    if len(clips) != 1:
        raise ValueError(f"audio: a timeline is of one clip, not of {len(clips)}")
    return clips[0]


def _reward(service: StyleService, fields: Any, clips: list[Clip]) -> dict[str, Any]:
    return service.reward(
        clips,
        fields.captions,
        texts=fields.texts,
        groups=fields.groups,
        baseline=fields.baseline,
        scaling=fields.scaling,
        guards=fields.guards,
        require=fields.require,
    )


async def _refuse(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestRejectedError)
    return refusal(error)


async def _explain(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)


async def _fail(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": f"the service failed: {type(error).__name__}"}, 500)
