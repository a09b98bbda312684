"""What FastAPI cannot see of a route, for the OpenAPI document: query parameters, bodies, answers that are errors."""

from __future__ import annotations

from typing import Any

from kws_serve.api.schemas import ErrorMessage
from kws_serve.messages import JsonObject

PAGE_LIMIT = 1000
"""Detections in one page at most: about 0.4 MB of JSON."""

ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": ErrorMessage, "description": "The token is missing or wrong."},
    403: {"model": ErrorMessage, "description": "Host or Origin is not this server's, or the token's scope too small."},
    422: {"model": ErrorMessage, "description": "A parameter or the body is wrong: what, found, wanted."},
}


def _parameter(name: str, schema: JsonObject, text: str) -> JsonObject:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": text}


def operation(*parameters: JsonObject, body: JsonObject | None = None) -> JsonObject:
    """What FastAPI cannot see of a route."""
    return {"parameters": list(parameters)} if body is None else {"requestBody": body}


_TIME = {"type": "string", "format": "date-time"}
PAGE = (
    _parameter("after", {"type": "integer", "minimum": 0, "default": 0}, "ids greater than this"),
    _parameter("log_id", {"type": "string"}, "the log that `after` is of; of another one it begins anew (`reset`)"),
    _parameter("stream", {"type": "string"}, "of this stream only"),
    _parameter("label", {"type": "string"}, "of this label only"),
    _parameter("since", _TIME, "at this time or later"),
    _parameter("until", _TIME, "before this time"),
    _parameter("min_score", {"type": "number", "minimum": 0, "maximum": 1}, "with at least this score"),
)
BEFORE = _parameter("before", {"type": "integer", "minimum": 1}, "ids less than this, newest first; not with after")
LIMIT = _parameter("limit", {"type": "integer", "minimum": 1, "maximum": PAGE_LIMIT, "default": 100}, "at most so many")
NO_MODEL: dict[int | str, dict[str, Any]] = {404: {"model": ErrorMessage, "description": "No such model."}}
NO_DETECTION: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorMessage, "description": "No such detection."},
    503: {"model": ErrorMessage, "description": "The log cannot be written now."},
}
PATCH_BODY = {
    "required": True,
    "content": {
        "application/merge-patch+json": {
            "schema": {"type": "object"},
            "example": {"yes": {"threshold": 0.9}, "*": {"refractory_s": 2.0}},
        }
    },
}
REVIEW_BODY = {
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
