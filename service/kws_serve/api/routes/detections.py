"""Routes to what the log keeps: pages, exports, marks, and why a detection fired."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from kws_serve.api.export import as_csv, as_jsonl, as_page
from kws_serve.api.query import detections_query, whole
from kws_serve.api.routes.answers import body_of, error, grant_of, service_of
from kws_serve.api.routes.operations import BEFORE, LIMIT, NO_DETECTION, PAGE, PAGE_LIMIT, REVIEW_BODY, operation
from kws_serve.api.schemas.detections import DetectionPage, ReviewMark, Why
from kws_serve.api.service import Service
from kws_serve.api.views import why_json
from kws_serve.sinks.event_log import EventLog
from kws_serve.sinks.filter import REVIEWS, Filter
from kws_serve.wire import WireError

routes = APIRouter()

_FILTERS = ("since", "until", "min_score")  # beside those of /v1/detections' WebSocket


def _filtered(request: Request, *more: str) -> tuple[dict[str, str], Filter, int]:
    """The parameters, the filter within what the token may hear, and `after`. Raises WireError 4400."""
    found, wanted = detections_query(request.query_params.multi_items(), *_FILTERS, *more)
    after = whole("after", found.get("after", "0"), 0, 2**63 - 1)
    return found, replace(wanted, streams=grant_of(request).streams), after


async def _export(
    request: Request, lines: Callable[[EventLog, Filter, int, str | None], Iterator[str]], media_type: str
) -> Response:
    """What the log keeps of what is asked for, as `lines` writes it, in slices. Raises WireError 4400."""
    found, wanted, after = _filtered(request)
    service = service_of(request)
    parts = lines(service.log, wanted, after, found.get("log_id"))
    return await _streamed(service, parts, media_type)


async def _streamed(service: Service, parts: Iterator[str], media_type: str) -> Response:
    """`parts` in slices. Raises sqlite3.Error where the first cannot be made; later it breaks off."""
    first = await service.slices.make(lambda: next(parts, ""))
    return StreamingResponse(service.slices.each(chain([first], parts)), media_type=media_type)


@routes.get("/v1/detections", response_model=DetectionPage, openapi_extra=operation(*PAGE, BEFORE, LIMIT))
async def detections(request: Request) -> Response:
    """What the log keeps after an id, oldest first, or before one, newest first; go on from `next`. Where `after` is of
    another log (not given yet, or `log_id` says so), all of this one, and `reset` is true.
    """
    found, wanted, after = _filtered(request, "before", "limit")
    limit = whole("limit", found.get("limit", "100"), 1, PAGE_LIMIT)
    before = whole("before", found["before"], 1, 2**63 - 1) if "before" in found else None
    if before is not None and "after" in found:
        raise WireError(4400, "before: found beside after, wanted one of them")
    service = service_of(request)
    parts = as_page(service.log, wanted, after, before, limit, found.get("log_id"))
    return await _streamed(service, parts, "application/json")


@routes.get("/v1/detections.csv", response_class=PlainTextResponse, openapi_extra=operation(*PAGE))
async def detections_csv(request: Request) -> Response:
    """The log as CSV, up to the newest detection at the request."""
    return await _export(request, as_csv, "text/csv; charset=utf-8")


@routes.get("/v1/detections.jsonl", response_class=PlainTextResponse, openapi_extra=operation(*PAGE))
async def detections_jsonl(request: Request) -> Response:
    """The log as JSON lines, up to the newest detection at the request."""
    return await _export(request, as_jsonl, "application/jsonl")


@routes.put(
    "/v1/detections/{id}/review",
    response_model=ReviewMark,
    responses=NO_DETECTION,
    openapi_extra=operation(body=REVIEW_BODY),
)
async def review(id: str, request: Request) -> Response:
    """Mark a detection right or wrong; null takes the mark back. Marks are kept and exported."""
    number = whole("id", id, 1, 2**63 - 1)
    mark = await body_of(request)
    if not isinstance(mark, dict) or set(mark) != {"mark"} or mark["mark"] not in (None, *REVIEWS):
        raise WireError(4400, f'body: found {str(mark)[:80]!r}, wanted {{"mark": "right", "wrong" or null}}')
    try:
        if not await asyncio.to_thread(service_of(request).log.review, number, mark["mark"]):
            return error(404, f"detection: found no id {number} in the log")
    except sqlite3.Error as e:
        return error(503, f"log: cannot be written now ({e})")
    return JSONResponse({"id": number, **mark})


@routes.get("/v1/detections/{id}/why", response_model=Why, responses=NO_DETECTION)
def why(id: str, request: Request) -> Response:
    """The patch that fired a detection, the scores around it, the settings in force: of each stream's last 100, in
    memory. It is audio in practice: scope view.
    """
    number = whole("id", id, 1, 2**63 - 1)
    service = service_of(request)
    logged = service.log.find(number)
    if logged is None or not grant_of(request).may_touch(logged.detection.stream):
        return error(404, f"detection: found no id {number} in the log")
    fired = replace(logged.detection, phase="start") if logged.detection.phase == "end" else logged.detection
    return JSONResponse(why_json(logged, service.engine.evidence.get(fired.uid)))
