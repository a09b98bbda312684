"""uvicorn's HTTP with deadlines, budgets and bounds: who is slow with a request or comes too often is held or dropped.

uvicorn itself waits for ever for the end of a request's headers, and takes in as many pipelined requests as come while
it answers one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol

from kws_serve.transport.budget import Budgets, Rate, network
from kws_serve.transport.connection import REQUEST_S
from kws_serve.transport.peer import Reading, linger, open_connections

_log = logging.getLogger(__name__)

CHECK_S = 1.0

MAX_PER_CLIENT = 2000
"""Open connections of one address."""

CONNECTIONS, CONNECT_WAIT_S = Rate(100, 40), 10.0
"""New connections of one address, each about 1 ms of work with its handshake: a gateway's thousand streams are back
within the 10 s that clients wait for one."""

BEHIND_BYTES = 64 * 1024
"""Taken in of a request under way: its body (16 KiB at most is used), and what is pipelined behind it."""

READ_BYTES = 4096
"""Of HTTP at once: a request is seldom larger, and a chunked body can hide a piece of work in every six bytes."""

_TOO_MANY_TEXT = (
    f"connections: found too many of this address, wanted at most {MAX_PER_CLIENT} at once and {CONNECTIONS.per_s:g} a "
    "second; try again later"
)
_TOO_MANY_BODY = json.dumps({"type": "error", "code": 429, "message": _TOO_MANY_TEXT}).encode()
_TOO_MANY = (
    b"HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\nretry-after: 10\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%b"
) % (len(_TOO_MANY_BODY), _TOO_MANY_BODY)

_connecting = Budgets(CONNECTIONS)


class Http(Reading, H11Protocol):
    """HTTP/1.1, and the first moments of a WebSocket (which counts as the same connection)."""

    _waiting_since_s = 0.0
    _last_cycle: Any = None
    _counted: Any = None  # the cycle whose bytes `_taken` counts
    _taken = 0
    _full = False

    def connection_made(self, transport: Any) -> None:
        """A connection begins; it is read in small parts."""
        super().connection_made(transport)
        transport.max_size = READ_BYTES
        self.flow = _Flow(transport, self._holds)
        self._waiting_since_s = self.loop.time()
        name = transport.get_extra_info("peername")  # as accept() told it: the kernel forgets it at a reset
        self.client = name[:2] if isinstance(name, tuple) else None
        client = self._peer = network(self.client[0]) if self.client else ""
        open_connections[client] += 1
        wait_s = _connecting.of(client, self.loop.time()).spend(1, self.loop.time(), CONNECT_WAIT_S)
        if open_connections[client] > MAX_PER_CLIENT or wait_s is None:
            _log.warning("connections: refused one of %s with 429: %s", client, _TOO_MANY_TEXT)
            transport.write(_TOO_MANY)
            transport.close()
            return
        if wait_s:
            transport.pause_reading()
            self._waiting_since_s += wait_s
            self.loop.call_later(wait_s, _read_on, transport)
        self.loop.call_later(CHECK_S, self._check)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol. Of a request under way not more than BEHIND_BYTES are taken in."""
        if self._full:
            return
        super().data_received(data)
        if self.transport.get_protocol() is not self:
            return  # it is a WebSocket now
        reading_body = self.conn.their_state is h11.SEND_BODY
        answered = self.cycle is None or self.cycle.response_complete  # None: the first head has not all come
        if self.cycle is not self._counted or (answered and not reading_body):
            self._counted, self._taken = self.cycle, 0
        self._taken += len(data)
        if self._taken > BEHIND_BYTES:
            self._full = True
            if answered:
                linger(self)
            else:
                self.cycle.keep_alive = False
                self.flow.pause_reading()

    def _holds(self) -> bool:
        """Whether nothing is to be read: the request under way is there, or too much of it."""
        answering = self.cycle is not None and not self.cycle.response_complete
        return answering and (self._full or self.conn.their_state is not h11.SEND_BODY)

    def _check(self) -> None:
        """Once a second: is a request under way, or has it been awaited too long?"""
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return
        now_s = self.loop.time()
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering or self.cycle is not self._last_cycle:
            self._waiting_since_s, self._last_cycle = now_s, self.cycle
        elif now_s - self._waiting_since_s > REQUEST_S:
            self.transport.close()
            return
        self.loop.call_later(CHECK_S, self._check)


class _Flow(FlowControl):
    """uvicorn reads on whenever the app asks for the rest of a request, also where that is there already."""

    def __init__(self, transport: Any, holds: Callable[[], bool]) -> None:
        super().__init__(transport)
        self._holds = holds

    def resume_reading(self) -> None:
        """Read on, unless something still holds it back."""
        if not self._holds():
            super().resume_reading()


def _read_on(transport: Any) -> None:
    if not transport.is_closing():
        transport.resume_reading()
