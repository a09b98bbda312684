"""What the routes share: the running parts, who asks, the body of a request, and answers that say what is wrong."""

from __future__ import annotations

import asyncio

from fastapi import Request
from fastapi.responses import JSONResponse

from kws_serve.api.service import Service
from kws_serve.api.tokens import Grant
from kws_serve.wire import MAX_JSON_BYTES, WireError, error_json, parse_json

BODY_S = 3.0
"""How long a request's body may take to come, in s: its 16 KiB at most need 5 KiB/s."""


def service_of(request: Request) -> Service:
    """The running parts."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


def grant_of(request: Request) -> Grant:
    """What whoever asks may do; the Guard has seen to it that there is one."""
    grant = request.state.grant
    assert isinstance(grant, Grant)
    return grant


def error(status: int, message: str) -> JSONResponse:
    """An error answer."""
    return JSONResponse(error_json(status, message), status)


async def log_error(_: Request, e: Exception) -> JSONResponse:
    """The log cannot be read now: 503."""
    return error(503, f"log: cannot be read now ({e}); try again later")


async def wire_error(_: Request, e: Exception) -> JSONResponse:
    """What is wrong with a request: 422."""
    return error(422, str(e))


async def body_of(request: Request) -> object:
    """The request's JSON, bounded in size, depth and time. Raises WireError 4400: nothing of it is used."""
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
