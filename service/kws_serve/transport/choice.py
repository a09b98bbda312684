"""Which transport serves: our own protocols and loop, or uvicorn's as they come.

Ours leans on insides that a later uvicorn or websockets may lack (`insides.py`). Where one is gone the service does not
start to fail in the middle of a connection: it says so, and serves with what is promised to stay.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp

from kws_serve.transport.batching import StreamLoop
from kws_serve.transport.connection import PlainConnections

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Transport:
    """What uvicorn's Config and its loop are made of."""

    own: bool
    http: Any  # a protocol class, or uvicorn's name of one
    ws: Any
    new_loop: Callable[[], asyncio.AbstractEventLoop]
    wrap: Callable[[ASGIApp], ASGIApp]


def choose(wanted: str) -> Transport:
    """`own` or `plain`; plain too, with an error in the log, where ours would not work."""
    if wanted == "own":
        fault = fault_of_own()
        if not fault:
            from kws_serve.transport.http_protocol import Http
            from kws_serve.transport.websocket_protocol import WebSocket

            return Transport(True, Http, WebSocket, StreamLoop, lambda app: app)
        _log.error(
            "transport: %s; serving with uvicorn's own protocols instead, as with --transport plain: "
            "nothing limits what a client may ask for",
            fault,
        )
    return Transport(False, "h11", "websockets-sansio", asyncio.new_event_loop, PlainConnections)


def fault_of_own() -> str:
    """What of uvicorn, websockets and asyncio our protocols lack; empty: nothing."""
    try:
        from kws_serve.transport import http_protocol, websocket_protocol  # noqa: F401
        from kws_serve.transport.insides import INSIDES, missing
    except (ImportError, AttributeError, TypeError) as e:  # a module, class or base that is gone
        return str(e)
    return "; ".join(fault for inside in INSIDES for fault in missing(inside))
