"""The one door of what a client says that feeds a stream, by whichever way it comes.

Audio comes by a short way, straight from the connection; what is odd (a text, a message in parts, a client too far
ahead) through the queues and tasks of ASGI:

    a whole binary message  ------------------>  Door.take --+-->  Door.hear  -->  the stream
    anything else  -->  uvicorn's queue  ----->  Door.read --+         +-------->  refuse: what is wrong
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from starlette.websockets import WebSocket

from kws_serve.api.audio_states import TEXTS, Life, State, What
from kws_serve.api.query import AudioQuery
from kws_serve.api.sockets import received
from kws_serve.core.pcm import Pcm
from kws_serve.engine.stream import MAX_AHEAD_S, Stream
from kws_serve.transport.splitter import Payload
from kws_serve.wire import WireError, parse_message, parse_resume

_AUDIO = What.AUDIO  # asked for with every message: looking it up in the class takes longer than the table


class Door:
    """What one client says, in order, into its stream. For one event loop."""

    def __init__(
        self,
        ws: WebSocket,
        query: AudioQuery,
        life: Life,
        stream: Stream,
        count: Callable[[Pcm], None],
        ready: Callable[[Stream], None],
        refuse: Callable[[WireError], None],
    ) -> None:
        """`count` is told of each message's samples, `ready` asked to say where to go on, `refuse` told of a fault."""
        self._ws = ws
        self._query = query
        self._life = life
        self._stream = stream
        self._count = count
        self._ready = ready
        self._refuse = refuse
        self._behind = True  # `read` has, or may have, a message that came before

    def take(self, payload: Payload) -> bool:
        """Audio by the short way; False: `read` has to have it, because it comes too early or others are before it."""
        now_s = time.monotonic()
        if self._behind or self._stream.ahead_s(now_s) > MAX_AHEAD_S:
            return False
        self.hear(payload, now_s)
        return True

    async def read(self, said: bytes | str | None) -> None:
        """Hear `said`, which came already, and all that does not come by the short way; nothing while the stream is
        further ahead of its clock than MAX_AHEAD_S. Raises WebSocketDisconnect where the client has left.
        """
        while True:
            if said is None:
                self._behind = False
                said = await received(self._ws)
            now_s = time.monotonic()
            self.hear(said, now_s)
            said = None
            early_s = self._stream.ahead_s(now_s) - MAX_AHEAD_S
            if early_s > 0:
                self._behind = True
                await asyncio.sleep(early_s)

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
