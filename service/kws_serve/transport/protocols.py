"""uvicorn's protocols with deadlines, budgets and bounds: who is slow with a request, does not read an answer, or sends
much that is not audio, is slowed or dropped.

uvicorn itself waits for ever for the end of a request's headers and for a peer whose window is shut, takes in as many
pipelined requests as come while it answers one, and answers as many pings.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from kws_serve.transport.batching import StreamLoop
from kws_serve.transport.budget import Budget, Budgets, Rate, network
from kws_serve.transport.connection import CONNECTION, MAX_MESSAGE_BYTES, REQUEST_S
from kws_serve.transport.splitter import FrameSplitter, Payload

UNREAD_S = 8.0
"""How long a peer may leave a full send buffer unread."""

CLOSE_S = 3.0
"""How long a peer has to answer a close."""

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

LINGER_S = 1.0
"""After a close that the peer is told of while it may still be sending: closed at once, it would get a reset only."""

WORDS = Rate(2, 30)
"""Texts, pings and pongs of one connection. Clients send an auth, a resume, an end and a pong every 3 s, some a ping
a second; a text may take 1 ms."""

PIECES = Rate(50, 300)
"""Fragments and very short messages of one connection: ten messages a second, each in five parts."""

WORDS_OF_ALL = Rate(500, 1000)
"""Both, of all connections of one address: a thousand subscribers' pongs are 333 a second. Beyond it those are closed
that have spent half of their own: not whoever comes from the same address, or by the same proxy."""

UNKNOWN_FRAMES = 4
"""Before the token is given: the auth message, and what a hasty client says behind it; no ping."""

MAX_FRAGMENTS = 4096
"""Of one message."""

open_connections: Counter[str] = Counter()

_connecting = Budgets(CONNECTIONS)
_words = Budgets(WORDS_OF_ALL)


class _Reading:
    """Drops a peer that does not read."""

    transport: Any
    loop: asyncio.AbstractEventLoop
    _unread: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """The client does not read: from now on it has a deadline."""
        super().pause_writing()  # type: ignore[misc]
        if self._unread is None:
            self._unread = self.loop.call_later(UNREAD_S, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again: its deadline is forgotten."""
        super().resume_writing()  # type: ignore[misc]
        self._forget_unread()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, and with it what is kept of it."""
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
    _counted: Any = None  # the cycle whose bytes `_taken` counts
    _taken = 0
    _full = False

    def connection_made(self, transport: Any) -> None:
        """A connection begins; it is read in small parts."""
        super().connection_made(transport)
        transport.max_size = READ_BYTES
        self.flow = _Flow(transport, self._holds)
        self._waiting_since_s = self.loop.time()
        client = _address(self)
        open_connections[client] += 1
        wait_s = _connecting.of(client, self.loop.time()).spend(1, self.loop.time(), CONNECT_WAIT_S)
        if open_connections[client] > MAX_PER_CLIENT or wait_s is None:
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
        if self.cycle is not self._counted or (self.cycle.response_complete and not reading_body):
            self._counted, self._taken = self.cycle, 0
        self._taken += len(data)
        if self._taken > BEHIND_BYTES:
            self._full = True
            if self.cycle.response_complete:
                _linger(self)
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


class WebSocket(_Reading, WebSocketsSansIOProtocol):
    """A WebSocket after its handshake. What costs most with many streams has a short way: audio in by `give_audio`,
    text out by `send_now`. Neither overtakes what is under way through uvicorn's queue and ASGI.
    """

    _take: Callable[[Payload], bool] | None = None
    _fd = -1

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.close_timeout = CLOSE_S
        self._splitter = FrameSplitter(self._taken, super().data_received, MAX_MESSAGE_BYTES, self._allowed)
        self._unknown: int | None = None  # frames that may still come before the token; None: it was given
        self._fragments = 0
        self._sent_away = False
        now_s = self.loop.time()
        self._words, self._pieces = Budget(WORDS, now_s), Budget(PIECES, now_s)

    def connection_made(self, transport: Any) -> None:
        """A WebSocket begins; a read takes a whole message of the largest size."""
        super().connection_made(transport)
        transport.max_size = MAX_MESSAGE_BYTES

    def wait_for_token(self, waiting: bool) -> None:
        """Whether who this is has still to be told; until then next to nothing is taken."""
        self._unknown = UNKNOWN_FRAMES if waiting else None

    def _allowed(self, first_byte: int) -> bool:
        """Whether a frame that is not audio in one message may come; if not, the connection is closed."""
        opcode, now_s = first_byte & 15, self.loop.time()
        if opcode == Opcode.CLOSE:
            return True
        budget = self._pieces if opcode in (Opcode.BINARY, Opcode.CONT) else self._words
        self._fragments = self._fragments + 1 if opcode == Opcode.CONT else 0
        if self._unknown is not None:
            self._unknown -= 1
            if opcode == Opcode.PING or self._unknown < 0:
                return self._over("before the token", "one auth message and no ping")
        if self._fragments > MAX_FRAGMENTS:
            return self._over(f"a message in more than {MAX_FRAGMENTS} fragments", "fewer")
        crowded = _words.of(_address(self), now_s).spend(1, now_s) is None
        if budget.spend(1, now_s) is None or (crowded and budget.left(now_s) < budget.rate.burst / 2):
            rate = budget.rate
            return self._over("too many frames that are not audio", f"at most {rate.per_s:g} a second")
        return True

    def _over(self, found: str, wanted: str) -> bool:
        self._fail(1008, f"connection: found {found}, wanted {wanted}")
        return False

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol. What comes first is the handshake, whole."""
        if self.handshake_initiated:
            self._splitter.feed(data)
        else:
            super().data_received(data)

    def handle_connect(self, event: Any) -> None:
        """Put the connection into the handshake's scope, for the application."""
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

    async def send(self, message: Any) -> None:
        """See ASGI. To a client that we have sent away nothing can be said."""
        if self._sent_away:
            raise ClientDisconnected
        await super().send(message)

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
        if self.close_sent or self.transport.is_closing():
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code})
        if not self.handshake_complete:  # a client that did not wait for it
            self.transport.abort()
            return
        self.conn.fail(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = self._sent_away = True
        self.close_timer = _linger(self)


_TOO_MANY = b"HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\nretry-after: 10\r\ncontent-length: 0\r\n\r\n"


def _linger(protocol: Any) -> asyncio.TimerHandle:
    """Say no more, read no more, and close soon: what was said last can be read until then."""
    transport = protocol.transport
    if transport.can_write_eof():
        transport.write_eof()
    transport.pause_reading()
    handle: asyncio.TimerHandle = protocol.loop.call_later(LINGER_S, transport.abort)
    return handle


def _read_on(transport: Any) -> None:
    if not transport.is_closing():
        transport.resume_reading()


def _address(protocol: Any) -> str:
    return network(protocol.client[0]) if protocol.client else ""
