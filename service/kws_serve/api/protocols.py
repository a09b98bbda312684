"""uvicorn's protocols with deadlines: who is slow with a request, or does not read an answer, is dropped.

uvicorn itself waits for ever for the end of a request's headers and for a peer whose window is shut.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from kws_serve.api.batching import StreamLoop
from kws_serve.api.frames import FrameSplitter, Payload

REQUEST_S = 6.0
"""From connecting, or from the last answer, to the end of the next request's headers."""

UNREAD_S = 8.0
"""How long a peer may leave a full send buffer unread."""

CLOSE_S = 3.0
"""How long a peer has to answer a close."""

CHECK_S = 1.0

MAX_PER_CLIENT = 2000
"""Open connections of one address."""

open_connections: Counter[str] = Counter()


class _Reading:
    """Drops a peer that does not read."""

    transport: Any
    loop: asyncio.AbstractEventLoop
    _unread: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        super().pause_writing()  # type: ignore[misc]
        if self._unread is None:
            self._unread = self.loop.call_later(UNREAD_S, self.transport.abort)

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        super().resume_writing()  # type: ignore[misc]
        self._forget_unread()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._forget_unread()
        client = _address(self)
        open_connections[client] -= 1
        if open_connections[client] <= 0:
            del open_connections[client]
        super().connection_lost(exc)  # type: ignore[misc]

    def _forget_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


class Http(_Reading, H11Protocol):
    """HTTP/1.1, and the first moments of a WebSocket (which counts as the same connection)."""

    _waiting_since_s = 0.0
    _last_cycle: Any = None

    def connection_made(self, transport: Any) -> None:
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self._waiting_since_s = self.loop.time()
        client = _address(self)
        open_connections[client] += 1
        if open_connections[client] > MAX_PER_CLIENT:
            transport.write(b"HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            transport.close()
            return
        self.loop.call_later(CHECK_S, self._check)

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


CONNECTION = "kws_serve.connection"
"""Key of the `extensions` of a WebSocket's ASGI scope: the `WebSocket` itself."""

MAX_MESSAGE_BYTES = 256 * 1024
"""Of audio in one message."""


class WebSocket(_Reading, WebSocketsSansIOProtocol):
    """A WebSocket after its handshake. What costs most with many streams has a short way: audio in by `give_audio`,
    text out by `send_now`. Neither overtakes what is under way through uvicorn's queue and ASGI.
    """

    _take: Callable[[Payload], bool] | None = None
    _fd = -1

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.close_timeout = CLOSE_S
        self._splitter = FrameSplitter(self._taken, super().data_received, MAX_MESSAGE_BYTES)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol. What comes first is the handshake, whole."""
        if self.handshake_initiated:
            self._splitter.feed(data)
        else:
            super().data_received(data)

    def handle_connect(self, event: Any) -> None:
        """See uvicorn."""
        super().handle_connect(event)
        if hasattr(self, "scope"):
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions[CONNECTION] = self

    def _taken(self, payload: Payload) -> bool:
        free = self.queue.empty() and self.conn.state is State.OPEN and not self.close_sent
        return free and self._take is not None and self._take(payload)

    def give_audio(self, take: Callable[[Payload], bool] | None) -> None:
        """Hand each whole binary message to `take`, which answers whether it has taken it; None: to nobody."""
        self._take = take
        if not isinstance(self.loop, StreamLoop):
            return
        if take is not None:
            self._fd = self.transport.get_extra_info("socket").fileno()  # -1: closed already
        if self._fd >= 0:
            (self.loop.streams.discard if take is None else self.loop.streams.add)(self._fd)

    def send_now(self, text: str) -> bool:
        """Write a text message at once; False, and nothing written, where it has to wait."""
        if self.close_sent or self.disconnected or not self.writable.is_set() or self.transport.is_closing():
            return False
        self.transport.write(Frame(Opcode.TEXT, text.encode()).serialize(mask=False))
        return True

    def send_receive_event_to_app(self) -> None:
        """See uvicorn, which breaks off without the close code 1007 where a text is no UTF-8."""
        if self.curr_msg_data_type == "text":
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self._fail(1007, "text: found no UTF-8, wanted it")
                return
        super().send_receive_event_to_app()

    def _fail(self, code: int, reason: str) -> None:
        """Close with a code, and tell the app that the client is gone."""
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code})
        self.conn.fail(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.transport.close()


def _address(protocol: Any) -> str:
    return protocol.client[0] if protocol.client else ""
