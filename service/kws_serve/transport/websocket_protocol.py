"""uvicorn's WebSockets with budgets and bounds, and a short way for audio and answers: who sends much that is not audio
is dropped.

uvicorn itself answers as many pings as come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from kws_serve.transport.batching import StreamLoop
from kws_serve.transport.budget import Budget, Budgets, Rate
from kws_serve.transport.connection import CONNECTION, MAX_MESSAGE_BYTES
from kws_serve.transport.peer import Reading, linger
from kws_serve.transport.splitter import FrameSplitter, Payload

CLOSE_S = 3.0
"""How long a peer has to answer a close."""

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

_words = Budgets(WORDS_OF_ALL)


class WebSocket(Reading, WebSocketsSansIOProtocol):
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
        """A WebSocket begins, which is whose the connection was; a read takes a whole message of the largest size."""
        super().connection_made(transport)
        http = transport.get_protocol()
        self.client, self._peer, http._peer = http.client, http._peer, None
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
        crowded = _words.of(self._peer or "", now_s).spend(1, now_s) is None
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
        self.close_timer = linger(self)
