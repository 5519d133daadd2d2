"""A local web page on which people rate how well captions fit clips, from 0 to 5.

Every rater gets the pairs in an order of their own and goes on where they stopped. A rating is on
the disk before the page shows the next pair.
"""

from __future__ import annotations

import json
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from jinja2 import Template

from speechbrain_clsp.ratings.scales import SLIDER
from speechbrain_clsp.ratings.task import RatedBeforeError, RatingTask
from speechbrain_clsp.serve.limits import Limits, RequestRejectedError
from speechbrain_clsp.serve.web import JSON, Workers, create_web_app, media_type

LIMITS = Limits(body_bytes=4096)
PAGE = Path(__file__).with_suffix(".html")
STATUSES = {RatedBeforeError: 409, IndexError: 404, ValueError: 400}


def create_rating_app(task: RatingTask) -> FastAPI:
    """Return the web application of a task, for this machine alone.

    Arguments
    ---------
    task : RatingTask
        What is rated; its methods are called by several threads.

    Example
    -------
    >>> app = create_rating_app(RatingTask("items.csv", ".", "ratings.csv"))  # doctest: +SKIP
    >>> uvicorn.run(app, host="127.0.0.1", port=8765)  # doctest: +SKIP
    """
    workers = Workers(LIMITS.requests)
    app = create_web_app("Ratings", "", LIMITS, workers, is_documented=False)
    page = Template(PAGE.read_text(encoding="utf-8")).render(scale=SLIDER)

    async def next_item(rater: str) -> JSONResponse:
        found = await workers.run(lambda: task.next_item(rater))
        return JSONResponse(found, headers={"Cache-Control": "no-store"})

    @app.get("/")
    async def show() -> HTMLResponse:
        return HTMLResponse(page, headers={"Cache-Control": "no-cache"})

    @app.get("/next")
    async def ask(rater: str = "") -> JSONResponse:
        return await next_item(rater)

    @app.get("/audio/{number:int}")
    async def audio(number: int) -> FileResponse:
        return FileResponse(task.audio(number))

    @app.post("/rating")
    async def rate(request: Request) -> JSONResponse:
        if media_type(request) != JSON:
            raise RequestRejectedError(415, f"must be {JSON}")
        try:
            body = json.loads(await request.body())
            rater, number, rating = (body[name] for name in ("rater", "item", "rating"))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError("must be an object with rater, item and rating") from error
        await workers.run(lambda: task.rate(rater, number, rating))
        return await next_item(rater)

    async def explain(_: Request, error: Exception) -> JSONResponse:
        status = next(code for kind, code in STATUSES.items() if isinstance(error, kind))
        return JSONResponse({"error": str(error)}, status)

    for kind in STATUSES:
        app.add_exception_handler(kind, explain)
    return app
