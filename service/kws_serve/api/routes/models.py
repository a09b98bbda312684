"""Routes to the loaded models: what they are, their settings, and another try with a changed folder."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse, Response

from kws_serve.api.routes.answers import body_of, error, grant_of, service_of
from kws_serve.api.routes.operations import NO_MODEL, PATCH_BODY, operation
from kws_serve.api.schemas import ErrorMessage
from kws_serve.api.schemas.models import DetectionSettings, ModelItem, ModelList, VerifierItem
from kws_serve.api.service import Service
from kws_serve.api.tokens import EVERYTHING, Grant
from kws_serve.api.views import models_json, verifiers_json
from kws_serve.backends.contract import LoadedModel
from kws_serve.engine.engine import Engine
from kws_serve.messages import JsonObject, KwsError, check_name
from kws_serve.wire import WireError

_log = logging.getLogger(__name__)

SWAP_S = 10.0
"""How long a loaded model may wait for the engine to take it up, in s: it does between two rounds, 20 ms apart."""

_Loaded = TypeVar("_Loaded")

routes = APIRouter()


@routes.get("/v1/models", response_model=ModelList)
def models(request: Request) -> Response:
    """The loaded models, their settings in force and what was changed."""
    return JSONResponse(_models(service_of(request), grant_of(request)))


@routes.patch(
    "/v1/models/{name}/detection",
    response_model=DetectionSettings,
    responses=NO_MODEL,
    openapi_extra=operation(body=PATCH_BODY),
)
async def patch_detection(name: str, request: Request) -> Response:
    """Merge patch (RFC 7396) of a model's detector settings for all streams; acts at once; null takes a change back.
    Kept.
    """
    return await _patched(request, name)


_OF_STREAM = "/v1/streams/{stream}/models/{model}/detection"


@routes.get(_OF_STREAM, response_model=DetectionSettings, responses=NO_MODEL)
def stream_detection(stream: str, model: str, request: Request) -> Response:
    """A model's detector settings in force on the stream of this name, whether it is open or not."""
    service = service_of(request)
    _check_stream(request, stream)
    if model not in service.engine.models:
        return _no_model(service, model)
    return JSONResponse(service.engine.show_detection(model, stream))


@routes.patch(
    _OF_STREAM, response_model=DetectionSettings, responses=NO_MODEL, openapi_extra=operation(body=PATCH_BODY)
)
async def patch_stream_detection(stream: str, model: str, request: Request) -> Response:
    """Merge patch (RFC 7396) of a model's detector settings on the stream of this name, whether it is open or not; acts
    at once; null inherits what is set for all. Kept by the name.
    """
    _check_stream(request, stream)
    return await _patched(request, model, stream)


def _check_stream(request: Request, stream: str) -> None:
    """Raises WireError 4400, and HTTPException 403: the token is for other streams."""
    try:
        check_name("stream", stream)
    except ValueError as e:
        raise WireError(4400, str(e)) from None
    if not grant_of(request).may_touch(stream):
        raise HTTPException(403, f"stream: found {stream!r}, wanted one that the token allows")


async def _patched(request: Request, model: str, stream: str | None = None) -> Response:
    """The answer to a merge patch of a model's settings on a stream, or for all. Raises WireError 4400."""
    service = service_of(request)
    if model not in service.engine.models:
        return _no_model(service, model)
    patch = await body_of(request)
    try:
        result = service.engine.patch_detection(model, patch, stream)
    except ValueError as e:
        raise WireError(4400, str(e)) from None
    overrides = service.engine.detection_overrides(model, stream)
    try:
        await asyncio.to_thread(service.log.save_overrides, model, overrides, stream)
    except sqlite3.Error as e:
        where = model if stream is None else f"{model} on {stream}"
        _log.error("settings of %s act, but are not kept: %s", where, e)
    return JSONResponse(result)


@routes.post(
    "/v1/models/{name}/reload",
    response_model=ModelItem | VerifierItem,
    responses={**NO_MODEL, 409: {"model": ErrorMessage, "description": "Another reload is under way."}},
    openapi_extra=operation(),
)
async def reload(name: str, request: Request) -> Response:
    """Read the model's folder again: loaded and self-tested aside, switched between two patches; a bad one is
    refused, and one that fails in its first patches is rolled back. Not a sample is lost.
    """
    service = service_of(request)
    engine = service.engine
    looks_again = name in engine.proposals.verifiers and service.load_verifier is not None
    if name not in engine.models and not looks_again:
        return _no_model(service, name)
    if service.reloading.locked():
        return error(409, "reload: found another one under way, wanted one at a time")
    async with service.reloading:
        try:
            if name in engine.models:
                await swapped(engine, await _aside(lambda: service.load_model(name)))
            if looks_again and (load := service.load_verifier) is not None:
                verifier = await _aside(lambda: load(name))
                try:
                    engine.swap_verifier(verifier)
                except ValueError:
                    verifier.backend.close()
                    raise
        except (KwsError, ValueError) as e:
            return error(422, str(e))
    found = _models(service, EVERYTHING)
    return JSONResponse(next(item for item in (*found["items"], *found["verifiers"]) if item["name"] == name))


def _models(service: Service, grant: Grant) -> JsonObject:
    engine = service.engine
    return {"items": models_json(engine, grant), "verifiers": verifiers_json(engine, grant)}


async def _aside(load: Callable[[], _Loaded]) -> _Loaded:
    """What `load` returns or raises, run by a thread that the end of the service does not wait for."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_Loaded] = loop.create_future()

    def tell(set_it: Callable[[Any], None], value: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(lambda: None if done.done() else set_it(value))

    def run() -> None:
        try:
            tell(done.set_result, load())
        except Exception as e:
            tell(done.set_exception, e)

    threading.Thread(target=run, name="reload", daemon=True).start()
    return await done


async def swapped(engine: Engine, group: list[LoadedModel]) -> None:
    """Switch to a loaded model. Raises ValueError: refused or not done in time; then it is closed, not done later."""
    try:
        future = engine.swap(group)
        swap = asyncio.wrap_future(future)
        await asyncio.wait({swap}, timeout=SWAP_S)
        if not swap.done() and future.cancel():
            raise ValueError("engine: found no patch hop in time, wanted it to run; nothing has changed")
        await swap  # done, or just under way
    except ValueError:
        for model in group:
            model.backend.close()
        raise


def _no_model(service: Service, name: str) -> JSONResponse:
    return error(404, f"model: found {name[:80]!r}, wanted one of {', '.join(service.engine.models)}")
