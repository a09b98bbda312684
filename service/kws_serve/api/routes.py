"""The HTTP routes. Every fault is `{"type":"error","code","message"}` with what was found and wanted."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from kws_serve.api.asyncapi import asyncapi_document
from kws_serve.api.export import as_csv, as_jsonl, as_page
from kws_serve.api.query import detections_query, whole
from kws_serve.api.schemas import (
    DetectionPage,
    DetectionSettings,
    ErrorMessage,
    ModelItem,
    ModelList,
    Readiness,
    ReviewMark,
    ServerList,
    Status,
    StreamList,
    Why,
)
from kws_serve.api.tokens import Grant
from kws_serve.api.views import (
    Service,
    metrics_text,
    models_json,
    readiness,
    servers_json,
    status_csv,
    status_json,
    stream_json,
    why_json,
)
from kws_serve.backends.contract import LoadedModel
from kws_serve.engine.engine import Engine
from kws_serve.messages import JsonObject, KwsError
from kws_serve.sinks.store import REVIEWS, Filter
from kws_serve.wire import MAX_JSON_BYTES, WireError, parse_json

_log = logging.getLogger(__name__)

PAGE_LIMIT = 1000
_FILTERS = ("since", "until", "min_score")
BODY_S = 3.0
SWAP_S = 10.0
_ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": ErrorMessage, "description": "The token is missing or wrong."},
    403: {"model": ErrorMessage, "description": "Host or Origin is not this server's, or the token's scope too small."},
    422: {"model": ErrorMessage, "description": "A parameter or the body is wrong: what, found, wanted."},
}


def make_router(service: Service) -> APIRouter:
    """All routes but the page's."""
    router = APIRouter(responses=_ERRORS)
    reloading = asyncio.Lock()

    def filtered(request: Request, *more: str) -> tuple[dict[str, str], Filter, int]:
        """The parameters, the filter within what the token may hear, and `after`."""
        found, wanted = detections_query(request.query_params.multi_items(), *_FILTERS, *more)
        after = whole("after", found.get("after", "0"), 0, 2**63 - 1)
        return found, replace(wanted, streams=_grant(request).streams), after

    @router.get("/v1/detections", response_model=DetectionPage, openapi_extra=_operation(*_PAGE, _BEFORE, _LIMIT))
    async def detections(request: Request) -> Response:
        """What the log keeps after an id, oldest first, or before one, newest first; go on from `next`."""
        found, wanted, after = filtered(request, "before", "limit")
        limit = whole("limit", found.get("limit", "100"), 1, PAGE_LIMIT)
        before = whole("before", found["before"], 1, 2**63 - 1) if "before" in found else None
        if before is not None and "after" in found:
            raise WireError(4400, "before: found beside after, wanted one of them")
        parts = as_page(service.log, wanted, after, before, limit)
        return StreamingResponse(service.slices.each(parts), media_type="application/json")

    @router.get("/v1/detections.csv", response_class=PlainTextResponse, openapi_extra=_operation(*_PAGE))
    async def detections_csv(request: Request) -> Response:
        """The log as CSV."""
        _, wanted, after = filtered(request)
        parts = service.slices.each(as_csv(service.log, wanted, after))
        return StreamingResponse(parts, media_type="text/csv; charset=utf-8")

    @router.get("/v1/detections.jsonl", response_class=PlainTextResponse, openapi_extra=_operation(*_PAGE))
    async def detections_jsonl(request: Request) -> Response:
        """The log as JSON lines."""
        _, wanted, after = filtered(request)
        parts = service.slices.each(as_jsonl(service.log, wanted, after))
        return StreamingResponse(parts, media_type="application/jsonl")

    @router.put(
        "/v1/detections/{id}/review",
        response_model=ReviewMark,
        responses=_NO_DETECTION,
        openapi_extra=_operation(body=_REVIEW_BODY),
    )
    async def review(id: str, request: Request) -> Response:
        """Mark a detection right or wrong; null takes the mark back. Marks are kept and exported."""
        number = whole("id", id, 1, 2**63 - 1)
        mark = await _body(request)
        if not isinstance(mark, dict) or set(mark) != {"mark"} or mark["mark"] not in (None, *REVIEWS):
            raise WireError(4400, f'body: found {str(mark)[:80]!r}, wanted {{"mark": "right", "wrong" or null}}')
        try:
            if not await asyncio.to_thread(service.log.review, number, mark["mark"]):
                return error(404, f"detection: found no id {number} in the log")
        except sqlite3.Error as e:
            return error(503, f"log: cannot be written now ({e})")
        return JSONResponse({"id": number, **mark})

    @router.get("/v1/detections/{id}/why", response_model=Why, responses=_NO_DETECTION)
    def why(id: str, request: Request) -> Response:
        """The patch that fired a detection, the scores around it, the settings in force: of the last 100, in memory."""
        number = whole("id", id, 1, 2**63 - 1)
        logged = service.log.find(number)
        if logged is None or not _grant(request).may_touch(logged.detection.stream):
            return error(404, f"detection: found no id {number} in the log")
        fired = replace(logged.detection, phase="start") if logged.detection.phase == "end" else logged.detection
        return JSONResponse(why_json(logged, service.engine.evidence.get(fired.uid)))

    @router.get("/v1/streams", response_model=StreamList)
    def streams(request: Request) -> Response:
        """The open streams."""
        grant = _grant(request)
        names = [s for s in list(service.engine.streams.values()) if grant.may_touch(s.name)]
        return JSONResponse({"items": [stream_json(service.engine, s) for s in names]})

    @router.get("/v1/models", response_model=ModelList)
    def models() -> Response:
        """The loaded models, their settings in force and what was changed."""
        return JSONResponse({"items": models_json(service.engine)})

    @router.patch(
        "/v1/models/{name}/detection",
        response_model=DetectionSettings,
        responses=_NO_MODEL,
        openapi_extra=_operation(body=_PATCH_BODY),
    )
    async def patch_detection(name: str, request: Request) -> Response:
        """Merge patch (RFC 7396) of a model's detector settings; acts at once; null takes a change back. Kept."""
        if name not in service.engine.models:
            return _no_model(service, name)
        patch = await _body(request)
        try:
            result = service.engine.patch_detection(name, patch)
        except ValueError as e:
            raise WireError(4400, str(e)) from None
        try:
            await asyncio.to_thread(service.log.save_overrides, name, service.engine.detection_overrides(name))
        except sqlite3.Error as e:
            _log.error("settings of %s act, but are not kept: %s", name, e)
        return JSONResponse(result)

    @router.post(
        "/v1/models/{name}/reload",
        response_model=ModelItem,
        responses={**_NO_MODEL, 409: {"model": ErrorMessage, "description": "Another reload is under way."}},
        openapi_extra=_operation(),
    )
    async def reload(name: str) -> Response:
        """Read the model's folder again: loaded and self-tested aside, switched between two patches; a bad one is
        refused, and one that fails in its first patches is rolled back. Not a sample is lost.
        """
        if name not in service.engine.models:
            return _no_model(service, name)
        if reloading.locked():
            return error(409, "reload: found another one under way, wanted one at a time")
        async with reloading:
            try:
                group = await asyncio.to_thread(service.load_model, name)
                await swapped(service.engine, group)
            except (KwsError, ValueError) as e:
                return error(422, str(e))
        return JSONResponse(next(item for item in models_json(service.engine) if item["name"] == name))

    @router.get("/v1/status", response_model=Status)
    def status(request: Request) -> Response:
        """The server at a glance."""
        return JSONResponse(status_json(service, _grant(request)))

    @router.get("/v1/servers", response_model=ServerList)
    def servers(request: Request) -> Response:
        """A row for this server, and one for each that it watches."""
        return JSONResponse({"items": servers_json(service, _grant(request))})

    @router.get("/v1/status.csv", response_class=PlainTextResponse)
    def status_rows(request: Request) -> Response:
        """The same as CSV."""
        return PlainTextResponse(status_csv(servers_json(service, _grant(request))), media_type="text/csv")

    @router.get("/healthz", response_model=Readiness)
    def healthz() -> Response:
        """The process answers."""
        return JSONResponse({"status": "ok"})

    @router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness}})
    def readyz() -> Response:
        """The engine runs and the log is on the disk: audio that comes now is processed, what is found is kept."""
        fault = readiness(service)
        return JSONResponse({"status": fault or "ready"}, 503 if fault else 200)

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


async def swapped(engine: Engine, group: list[LoadedModel]) -> None:
    """Switch to a loaded model; closes it where it is refused. Raises ValueError."""
    try:
        await asyncio.wait_for(asyncio.wrap_future(engine.swap(group)), SWAP_S)
    except TimeoutError:
        raise ValueError("engine: found no patch hop in time, wanted it to run") from None
    except ValueError:
        for model in group:
            model.backend.close()
        raise


async def _body(request: Request) -> object:
    """The request's JSON, bounded in size, depth and time. Raises WireError 4400."""
    body = b""
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                body += part
                if len(body) > MAX_JSON_BYTES:
                    raise WireError(4400, f"body: found more than {MAX_JSON_BYTES} bytes, wanted at most that")
    except TimeoutError:
        raise WireError(4400, f"body: found {len(body)} bytes in {BODY_S:g} s, wanted all of it") from None
    return parse_json(body)


def _grant(request: Request) -> Grant:
    grant = request.state.grant
    assert isinstance(grant, Grant)
    return grant


def _no_model(service: Service, name: str) -> JSONResponse:
    return error(404, f"model: found {name[:80]!r}, wanted one of {', '.join(service.engine.models)}")


def _parameter(name: str, schema: JsonObject, text: str) -> JsonObject:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": text}


def _operation(*parameters: JsonObject, body: JsonObject | None = None) -> JsonObject:
    """What FastAPI cannot see of a route."""
    return {"parameters": list(parameters)} if body is None else {"requestBody": body}


_TIME = {"type": "string", "format": "date-time"}
_PAGE = (
    _parameter("after", {"type": "integer", "minimum": 0, "default": 0}, "ids greater than this"),
    _parameter("stream", {"type": "string"}, "of this stream only"),
    _parameter("label", {"type": "string"}, "of this label only"),
    _parameter("since", _TIME, "at this time or later"),
    _parameter("until", _TIME, "before this time"),
    _parameter("min_score", {"type": "number", "minimum": 0, "maximum": 1}, "with at least this score"),
)
_BEFORE = _parameter("before", {"type": "integer", "minimum": 1}, "ids less than this, newest first; not with after")
_LIMIT = _parameter(
    "limit", {"type": "integer", "minimum": 1, "maximum": PAGE_LIMIT, "default": 100}, "at most so many"
)
_NO_MODEL: dict[int | str, dict[str, Any]] = {404: {"model": ErrorMessage, "description": "No such model."}}
_NO_DETECTION: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorMessage, "description": "No such detection."},
    503: {"model": ErrorMessage, "description": "The log cannot be written now."},
}
_PATCH_BODY = {
    "required": True,
    "content": {
        "application/merge-patch+json": {
            "schema": {"type": "object"},
            "example": {"yes": {"threshold": 0.9}, "*": {"refractory_s": 2.0}},
        }
    },
}
_REVIEW_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {"mark": {"enum": ["right", "wrong", None]}},
                "required": ["mark"],
                "additionalProperties": False,
            }
        }
    },
}
