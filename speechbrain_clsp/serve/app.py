"""The HTTP interface of a service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from speechbrain_clsp.inference.attributes import read_attributes
from speechbrain_clsp.serve import requests
from speechbrain_clsp.serve.limits import RequestRejectedError
from speechbrain_clsp.serve.metrics import Metrics
from speechbrain_clsp.serve.requests import Fields, read_request
from speechbrain_clsp.serve.service import Clip, StyleService
from speechbrain_clsp.serve.web import JSON, MULTIPART, Workers, create_web_app

FOLDER = Path(__file__).parent
PAGES = ("page.html", "docs.html")
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
    workers = Workers(service.limits.requests)
    app = create_web_app(
        "CLSP",
        "Speech and descriptions of how it is spoken, compared.",
        service.limits,
        workers,
        service.close,
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
    return app


def _endpoint(
    kind: type[Fields], answer: Answer, service: StyleService, workers: Workers
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
    # From memory: a file is opened and read by threads, for which a busy machine takes its time.
    pages = {name: (FOLDER / name).read_text(encoding="utf-8") for name in PAGES}

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(pages["page.html"], headers={"Cache-Control": "no-cache"})

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(pages["docs.html"], headers={"Cache-Control": "no-cache"})

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
        return Response(service.audio_of(id), media_type="audio/wav")

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
    content: dict[str, Any] = {JSON: {"schema": schema}}
    if "audio" in schema["properties"]:
        content[MULTIPART] = {"schema": form}
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
