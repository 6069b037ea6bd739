"""The addresses of the service and what they answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from deeplabv3 import __version__
from deeplabv3.serving.guards import error_body
from deeplabv3.serving.metrics import MEDIA_TYPE
from deeplabv3.serving.outputs import Wanted
from deeplabv3.serving.refusals import Refusal
from deeplabv3.serving.service import Service
from deeplabv3.serving.uploads import read_upload

PAGE_DIR = Path(__file__).parent / "page"
PAGES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/docs": ("docs.html", "text/html"),
    "/docs.js": ("docs.js", "text/javascript"),
}
PART_BYTES = 2**18

Value = TypeVar("Value")


class Answer(Response):
    """A result, sent in parts that wait for the client, so that it counts as long as its memory is held.

    Args:
        service: Admitted the image.
        content: The result.
        media_type: Of the result.
        times: Seconds of each stage, for the browser's tools.
    """

    def __init__(self, service: Service, content: bytes, media_type: str, times: dict[str, float]) -> None:
        timing = ", ".join(f"{stage};dur={1000 * seconds:.1f}" for stage, seconds in times.items())
        super().__init__(content, media_type=media_type, headers={"Server-Timing": timing})
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            with self._service.metrics.timed("send", {}):
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                for start in range(0, len(self.body), PART_BYTES):
                    part = bytes(self.body[start : start + PART_BYTES])
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
        finally:
            self._service.release()


def create_app(service: Service) -> FastAPI:
    """The application; `guards.Guard` belongs around it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        yield {"service": service}

    app = FastAPI(
        title="deeplabv3",
        description="Street scenes segmented by DeepLab V3.",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own page loads scripts from elsewhere
        redoc_url=None,
    )
    _answer_errors(app)
    _add_pages(app)
    _add_segment(app, service)

    @app.get("/health", summary="Whether images are admitted", responses={503: {"description": "it is stopping"}})
    async def health() -> JSONResponse:
        return JSONResponse(
            {"status": "stopping" if service.is_stopping else "ok"}, 503 if service.is_stopping else 200
        )

    @app.get("/metrics", summary="Counters and times as Prometheus reads them", response_class=Response)
    async def metrics() -> Response:
        return Response(service.metrics.text(), headers={"content-type": MEDIA_TYPE})

    @app.get("/classes", summary="The classes: label id, name and colour of each")
    async def classes() -> list[dict[str, Any]]:
        return [{"id": row.id, "name": row.name, "color": list(row.color)} for row in service.label_set.evaluated]

    return app


def _add_segment(app: FastAPI, service: Service) -> None:
    """The address that all others are for."""
    image = {"type": "string", "format": "binary"}
    form = {"type": "object", "required": ["image"], "properties": {"image": image}}
    body = {"image/*": {"schema": image}, "multipart/form-data": {"schema": form}}
    kinds = ("image/png", "application/json", "application/octet-stream")
    responses: dict[int | str, dict[str, Any]] = {
        200: {"description": "the mask, or what else is asked for", "content": {kind: {} for kind in kinds}},
        413: {"description": "too many bytes or pixels"},
        415: {"description": "no image that is read: PNG, JPEG, WebP, TIFF, BMP"},
        422: {"description": "a damaged image, or a parameter that is not possible"},
        503: {"description": "too much to do; Retry-After says when to come back"},
    }

    @app.post(
        "/segment",
        summary="Segment an image",
        description="The image is the body itself, or the one file of a form whose other fields may be the parameters.",
        response_class=Response,
        responses=responses,
        openapi_extra={"requestBody": {"required": True, "content": body}},
    )
    async def segment(request: Request, wanted: Annotated[Wanted, Query()]) -> Response:
        times: dict[str, float] = {}
        with service.metrics.timed("upload", times):
            content, fields = await read_upload(request, service.config.max_body_bytes, service.room)
        if fields:
            wanted = Wanted.model_validate({**request.query_params, **fields})
        service.admit()
        try:
            result, media_type = await unless_gone(request, service.segment(content, wanted, times))
        except BaseException:
            service.release()
            raise
        return Answer(service, result, media_type, times)


async def unless_gone(request: Request, work: Coroutine[Any, Any, Value]) -> Value:
    """The result of some work, which is given up when its client leaves.

    Raises:
        ClientDisconnect: The client has left.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


def _add_pages(app: FastAPI) -> None:
    """What browsers show; it is read once."""
    for address, (name, media_type) in PAGES.items():
        content = (PAGE_DIR / name).read_bytes()

        def page(_: Request, content: bytes = content, media_type: str = media_type) -> Response:
            return Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})

        app.router.add_route(address, page, include_in_schema=False)


def _answer_errors(app: FastAPI) -> None:
    """Every error is one line of JSON that tells nothing of this machine."""

    def answer(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
        return Response(error_body(text), status, headers, media_type="application/json")

    @app.exception_handler(Refusal)
    async def refused(_: Request, error: Refusal) -> Response:
        return answer(error.status, error.text, error.headers)

    @app.exception_handler(RequestValidationError)
    @app.exception_handler(ValidationError)
    async def not_possible(_: Request, error: Any) -> Response:
        first = error.errors()[0]
        name, seen = str(first["loc"][-1])[:80], str(first["input"])[:80]
        if first["type"] == "extra_forbidden":
            return answer(422, f"there is no field {name!r}; there are {', '.join(Wanted.model_fields)}")
        return answer(422, f"{name} is {seen!r}; {first['msg'].removesuffix(', unable to interpret input')}")

    @app.exception_handler(HTTPException)
    async def no_such_thing(request: Request, error: HTTPException) -> Response:
        method = (error.headers or {}).get("Allow", "another method")
        texts = {404: "there is nothing at this address; see /docs", 405: f"the address takes {method}; see /docs"}
        return answer(error.status_code, texts.get(error.status_code, "the request cannot be served"), error.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(*_: Any) -> Response:
        return Response(status_code=499)  # as nginx counts them; nobody reads it

    @app.exception_handler(Exception)
    async def failed(*_: Any) -> Response:
        return answer(500, "the service failed at this; its log says why")
