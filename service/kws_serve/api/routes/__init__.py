"""The HTTP routes, in groups. Every fault is `{"type":"error","code","message"}` with what was found and wanted."""

from __future__ import annotations

from fastapi import APIRouter

from kws_serve.api.routes import detections, models, state
from kws_serve.api.routes.answers import error, log_error, wire_error
from kws_serve.api.routes.operations import ERRORS

__all__ = ["error", "log_error", "make_router", "wire_error"]


def make_router() -> APIRouter:
    """All routes but the page's. They find the running parts in `app.state.service`."""
    router = APIRouter(responses=ERRORS)
    for group in (detections.routes, models.routes, state.routes):
        router.include_router(group)
    return router
