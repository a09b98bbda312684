"""The one door of what a client says that feeds a stream, by whichever way it comes.

Audio comes by a short way, straight from the connection; what is odd (a text, a message in parts, more than is held)
through the queues and tasks of ASGI. What comes faster than the stream's pace is held, and the connection read on, so
that pings among it are answered:

    a whole binary message  ------------------>  Door.take --+--> (held) -->  Door.hear  -->  the stream
    anything else  -->  uvicorn's queue  ----->  Door.read --+                    +-------->  refuse: what is wrong
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from starlette.websockets import WebSocket, WebSocketDisconnect

from kws_serve.api.audio_states import TEXTS, Life, State, What
from kws_serve.api.query import AudioQuery
from kws_serve.api.sockets import received
from kws_serve.core.pcm import Pcm
from kws_serve.engine.stream import Stream
from kws_serve.transport.splitter import Payload
from kws_serve.wire import WireError, parse_message, parse_resume

_AUDIO = What.AUDIO  # asked for with every message: looking it up in the class takes longer than the table


HELD_BYTES, HELD_OF_ALL_BYTES = 8 << 20, 64 << 20
"""Of one client that is further ahead than its pace, and of all: four minutes of 16 kHz s16le. It is read on, so that
its pings are found and answered; beyond it the connection is not read, and pings wait behind the audio."""

SAID_ALL = frozenset({1000, 1001, 1005})
"""Close codes of a client that has left in order."""


class Held:
    """How much of all clients is held. For one event loop."""

    def __init__(self) -> None:
        self._bytes = 0

    def take(self, n: int, own: int) -> bool:
        """Whether `n` bytes more can be held of a client that has `own` held; if so they are counted."""
        if own + n > HELD_BYTES or self._bytes + n > HELD_OF_ALL_BYTES:
            return False
        self._bytes += n
        return True

    def give_back(self, n: int) -> None:
        """They are held no more."""
        self._bytes -= n


class Door:
    """What one client says, in order, into its stream. For one event loop."""

    def __init__(
        self,
        ws: WebSocket,
        query: AudioQuery,
        life: Life,
        stream: Stream,
        room: Held,
        count: Callable[[Pcm], None],
        ready: Callable[[Stream], None],
        refuse: Callable[[WireError], None],
    ) -> None:
        """`room` is shared with the others; `count` is told of each message's samples, `ready` asked to say where to
        go on, `refuse` told of a fault.
        """
        self._ws = ws
        self._query = query
        self._life = life
        self._stream = stream
        self._count = count
        self._ready = ready
        self._refuse = refuse
        self._room = room
        self._behind = True  # `read` has, or may have, a message that came before
        self._held: deque[bytes | Payload | str] = deque()  # in order, until the stream's pace lets it be heard
        self._held_bytes = 0
        self._releasing: asyncio.TimerHandle | None = None
        self._released = asyncio.Event()

    def take(self, payload: Payload) -> bool:
        """Audio by the short way; False: `read` has to have it, because others are before it, or too much is held."""
        return not self._behind and self._take_in(payload)

    async def read(self, said: bytes | str | None) -> None:
        """Take in `said`, which came already, and all that does not come by the short way; nothing more is read while
        too much is held. Raises WebSocketDisconnect where the client has left.
        """
        while True:
            if said is None:
                self._behind = False
                said = await self._received()
            self._behind = True
            while not self._take_in(said):
                self._released.clear()
                await self._released.wait()
            said = None

    async def _received(self) -> bytes | str:
        """The next message. Of a client that has said all it had to say, and left, what is held is still heard."""
        try:
            return await received(self._ws)
        except WebSocketDisconnect as e:
            if e.code in SAID_ALL:
                self._stream.live = False  # as fast as it goes: nobody waits for it
                while self._held:
                    self.hear(self._unhold(), time.monotonic())
            raise

    def _take_in(self, said: bytes | Payload | str) -> bool:
        """Hear it, or hold it until the stream's pace lets it be heard, in order; False: too much is held."""
        now_s = time.monotonic()
        early_s = self._stream.early_s(now_s)
        if not self._held and early_s <= 0:
            self.hear(said, now_s)
            return True
        if not self._room.take(len(said), self._held_bytes):
            return False
        self._held.append(said)
        self._held_bytes += len(said)
        if self._releasing is None:
            self._releasing = asyncio.get_running_loop().call_later(max(0.0, early_s), self._release)
        return True

    def _release(self) -> None:
        """Hear of what is held as much as the pace lets be heard, and come again for the rest."""
        self._releasing = None
        now_s, early_s = time.monotonic(), 0.0
        while self._held and (early_s := self._stream.early_s(now_s)) <= 0:
            self.hear(self._unhold(), now_s)
        self._released.set()
        if self._held:
            self._releasing = asyncio.get_running_loop().call_later(early_s, self._release)

    def _unhold(self) -> bytes | Payload | str:
        said = self._held.popleft()
        self._held_bytes -= len(said)
        self._room.give_back(len(said))
        return said

    def close(self) -> None:
        """Hear nothing more. What is held was not acknowledged."""
        if self._releasing is not None:
            self._releasing.cancel()
            self._releasing = None
        self._held.clear()
        self._room.give_back(self._held_bytes)
        self._held_bytes = 0

    def hear(self, said: bytes | Payload | str, now_s: float) -> None:
        """Audio or a text that came at `now_s` (time.monotonic()). What is wrong ends the connection, by `refuse`; of
        such a message nothing has reached the stream. A connection that is sent away or replaced hears nothing more,
        and cannot be refused again: its row in the table has neither.
        """
        try:
            if isinstance(said, str):
                self._text(said)
                return
            if not self._life.on(_AUDIO):
                raise self._out_of_turn(_AUDIO)
            found = self._query.decoded(said)
            if found.bad or found.clipped:
                self._count(found)
            self._stream.push(found.samples, now_s, found.peak)
        except WireError as e:
            self._refuse(e)

    def _text(self, text: str) -> None:
        message = parse_message(text)
        if message["type"] not in TEXTS:
            raise _unwanted(message["type"])
        what = What(message["type"])
        if not self._life.on(what):
            raise self._out_of_turn(what)
        if what is What.END:
            self._stream.end()
        elif what is What.RESUME:
            parse_resume(message)
            self._ready(self._stream)  # an epoch that nobody knows: begin anew, from next_sample

    def _out_of_turn(self, what: What) -> WireError:
        """The client may not say this now."""
        after_end = self._life.state in (State.ENDED, State.ENDED_BEFORE, State.DONE)
        return WireError(4400, "message: found one after end, wanted none") if after_end else _unwanted(what)


def _unwanted(kind: str) -> WireError:
    return WireError(4400, f"message: found type {kind[:40]!r}, wanted binary PCM, resume or end")
