"""The HTTP routes. Every fault is `{"type":"error","code","message"}` with what was found and wanted."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from kws_serve.api.asyncapi import asyncapi_document
from kws_serve.api.query import detections_query, whole
from kws_serve.api.schemas import (
    DetectionPage,
    DetectionSettings,
    ErrorMessage,
    ModelList,
    Readiness,
    Status,
    StreamList,
)
from kws_serve.api.views import Service, metrics_text, models_json, status_csv, status_json, stream_json
from kws_serve.api.wire import MAX_JSON_BYTES, WireError, detection_json, parse_json
from kws_serve.messages import JsonObject

PAGE_LIMIT = 1000
_ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": ErrorMessage, "description": "The token is missing or wrong."},
    403: {"model": ErrorMessage, "description": "Host or Origin is not this server's."},
    422: {"model": ErrorMessage, "description": "A parameter or the body is wrong: what, found, wanted."},
}


def make_router(service: Service) -> APIRouter:
    """All routes but the page's."""
    router = APIRouter(responses=_ERRORS)

    @router.get("/v1/detections", response_model=DetectionPage, openapi_extra={"parameters": _PAGE_PARAMETERS})
    def detections(request: Request) -> Response:
        """What the log keeps after an id; go on from `next`."""
        found, wanted = detections_query(request.query_params.multi_items(), "limit")
        after = whole("after", found.get("after", "0"), 0, 2**63 - 1)
        limit = whole("limit", found.get("limit", "100"), 1, PAGE_LIMIT)
        items, following = service.history.page(wanted, after, limit)
        return JSONResponse({"items": [detection_json(d, replayed=True) for d in items], "next": following})

    @router.get("/v1/streams", response_model=StreamList)
    def streams() -> Response:
        """The open streams."""
        return JSONResponse({"items": [stream_json(s) for s in list(service.engine.streams.values())]})

    @router.get("/v1/models", response_model=ModelList)
    def models() -> Response:
        """The loaded models, their settings in force and what was changed."""
        return JSONResponse({"items": models_json(service.engine)})

    @router.patch(
        "/v1/models/{name}/detection",
        response_model=DetectionSettings,
        responses={404: {"model": ErrorMessage, "description": "No such model."}},
        openapi_extra={"requestBody": _PATCH_BODY},
    )
    async def patch_detection(name: str, request: Request) -> Response:
        """Merge patch (RFC 7396) of a model's detector settings; acts at once; null takes a change back."""
        if name not in service.engine.models:
            return error(404, f"model: found {name[:80]!r}, wanted one of {', '.join(service.engine.models)}")
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MAX_JSON_BYTES:
                raise WireError(4400, f"body: found more than {MAX_JSON_BYTES} bytes, wanted at most that")
        try:
            return JSONResponse(service.engine.patch_detection(name, parse_json(body)))
        except ValueError as e:
            raise WireError(4400, str(e)) from None

    @router.get("/v1/status", response_model=Status)
    def status() -> Response:
        """The server at a glance."""
        return JSONResponse(status_json(service))

    @router.get("/v1/status.csv", response_class=PlainTextResponse)
    def status_row() -> Response:
        """The same as one CSV row."""
        return PlainTextResponse(status_csv(status_json(service)), media_type="text/csv")

    @router.get("/healthz", response_model=Readiness)
    def healthz() -> Response:
        """The process answers."""
        return JSONResponse({"status": "ok"})

    @router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness}})
    def readyz() -> Response:
        """The engine runs: audio that comes now is processed."""
        alive = service.runner.alive
        return JSONResponse({"status": "ready" if alive else "engine stopped"}, 200 if alive else 503)

    @router.get("/metrics", response_class=PlainTextResponse)
    def metrics() -> Response:
        """Prometheus metrics."""
        return PlainTextResponse(metrics_text(service), media_type="text/plain; version=0.0.4; charset=utf-8")

    @router.get("/asyncapi.json")
    def asyncapi() -> Response:
        """The WebSocket messages as an AsyncAPI 3 document."""
        return JSONResponse(asyncapi_document())

    return router


def error(status: int, message: str) -> JSONResponse:
    """An error answer."""
    return JSONResponse({"type": "error", "code": status, "message": message}, status)


async def wire_error(_: Request, e: Exception) -> JSONResponse:
    """What is wrong with a request: 422."""
    return error(422, str(e))


def _parameter(name: str, schema: JsonObject, text: str) -> JsonObject:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": text}


_PAGE_PARAMETERS = [
    _parameter("after", {"type": "integer", "minimum": 0, "default": 0}, "ids greater than this"),
    _parameter("limit", {"type": "integer", "minimum": 1, "maximum": PAGE_LIMIT, "default": 100}, "at most so many"),
    _parameter("stream", {"type": "string"}, "of this stream only"),
    _parameter("label", {"type": "string"}, "of this label only"),
]
_PATCH_BODY = {
    "required": True,
    "content": {
        "application/merge-patch+json": {
            "schema": {"type": "object"},
            "example": {"yes": {"threshold": 0.9}, "*": {"refractory_s": 2.0}},
        }
    },
}
