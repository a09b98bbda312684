"""`WS /v1/audio`: binary PCM in; ready, ack, detection, scores, gap and done out.

Audio goes from the connection straight to its stream, and messages straight back; only what is odd (text, a message in
parts, a client too far ahead or too slow to read) goes through the queues and tasks of ASGI.

A connection that breaks off without a word leaves its stream waiting for RESUME_S: a client that comes back with
`resume` goes on at the next sample, as if nothing had happened. After a restart of the service the log knows the epoch.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque

from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from kws_serve.api.query import AudioQuery, audio_query
from kws_serve.api.security import Access
from kws_serve.api.sockets import converse, end, first_message
from kws_serve.api.tokens import Grant
from kws_serve.core.pcm import Pcm, decoded
from kws_serve.engine.admission import MAX_LOAD
from kws_serve.engine.engine import Engine
from kws_serve.engine.stream import MAX_AHEAD_S, Resumed, Stream
from kws_serve.messages import Event, JsonObject, StreamDone
from kws_serve.sinks.event_log import EventLog
from kws_serve.transport.protocols import CONNECTION, MAX_MESSAGE_BYTES
from kws_serve.transport.protocols import WebSocket as Connection
from kws_serve.transport.splitter import Payload
from kws_serve.wire import WireError, dumps, event_json, parse_message

ACK_S = 0.8
RESUME_WAIT_S = 1.0
RESUME_S = 10.0
"""How long a stream waits for its client."""
BROKEN = frozenset({1005, 1006, 1012})
"""Close codes of a connection that broke off, or that this service broke off to restart."""
OUTBOX_MESSAGES = 4096
SHED_S, SHED_ROUNDS, SHED_LAG_S = 2.0, 2, 1.0


class Ingest:
    """All audio sockets of the server: who feeds which stream, and what was wrong with the samples."""

    def __init__(self, engine: Engine, log: EventLog, access: Access) -> None:
        self.engine = engine
        self.log = log
        self.access = access
        self.feeding: dict[str, AudioSocket] = {}
        self.earlier = log.store.streams()
        """Streams that an earlier run had: name -> epoch -> how far it got."""
        self.bad_samples = 0  # not a number
        self.clipped_samples = 0

    async def watch(self) -> None:
        """Where the engine cannot keep up although it does nothing else, send as many of the latest comers away as it
        takes: better some refused than all with gaps.
        """
        received_s, processed_s, _ = self.engine.totals_s()
        late = 0
        while True:
            await asyncio.sleep(SHED_S)
            before_s = received_s, processed_s
            received_s, processed_s, _ = self.engine.totals_s()
            late = late + 1 if self.engine.load.share >= MAX_LOAD and self.engine.lag_s >= SHED_LAG_S else 0
            sockets = [s for s in self.feeding.values() if s.waiting is None]
            if late < SHED_ROUNDS or len(sockets) < 2:
                continue
            carried = (processed_s - before_s[1]) / max(received_s - before_s[0], 1e-9)
            n = min(len(sockets) - 1, max(1, round(len(sockets) * (1 - carried))))
            found = f"found {carried:.2f} of the audio carried, {self.engine.lag_s:.1f} s behind"
            for socket in sockets[-n:]:
                socket.refuse(WireError(4429, f"engine: {found}; the latest streams have to go, try again later"))
            late = -SHED_ROUNDS  # until that shows

    async def serve(self, ws: WebSocket) -> None:
        """One connection, from handshake to close."""
        await converse(ws, self.access, "ingest", self._serve)

    async def _serve(self, ws: WebSocket, grant: Grant) -> None:
        query = audio_query(ws.query_params.multi_items())
        if not grant.may_touch(query.stream):
            raise WireError(4403, f"stream: found {query.stream!r}, wanted one that the token allows")
        first = resume = resumed = None
        if query.stream in self.earlier or query.stream in self.engine.streams:
            with contextlib.suppress(TimeoutError):
                first = await first_message(ws, RESUME_WAIT_S)
            resume = _resume(first)
        heard = self.earlier.pop(query.stream, {})
        if resume is not None and resume[0] in heard:
            decided = await asyncio.to_thread(self.log.store.decided, query.stream, resume[0])
            resumed = Resumed(*resume, heard[resume[0]], decided)
        await AudioSocket(self, ws, query, resume, resumed).run(first if resume is None else None)


def _resume(message: Message | None) -> tuple[str, int] | None:
    """(epoch, first_sample) of a `resume`; None for any other message. Raises WireError 4400."""
    text = (message or {}).get("text")
    if not text:
        return None
    found = parse_message(text)
    if found["type"] != "resume":
        return None
    epoch, first_sample = found.get("epoch"), found.get("first_sample")
    if not isinstance(epoch, str) or type(first_sample) is not int or not 0 <= first_sample < 2**53:
        raise WireError(4400, f"resume: found {text[:80]!r}, wanted an epoch (text) and first_sample (0 or more)")
    return epoch, first_sample


class AudioSocket:
    """One client feeding one stream."""

    def __init__(
        self,
        ingest: Ingest,
        ws: WebSocket,
        query: AudioQuery,
        resume: tuple[str, int] | None,
        resumed: Resumed | None,
    ) -> None:
        """Open the stream, or go on with it: `resume` as the client asks, `resumed` as the log knows it.

        Raises StreamRefused.
        """
        self.ingest = ingest
        self.ws = ws
        self.query = query
        self.replaced = False
        self.waiting: asyncio.TimerHandle | None = None  # for a client that has vanished
        self._connection: Connection = ws.scope["extensions"][CONNECTION]
        self._outbox: deque[str] = deque()  # what could not be written at once
        self._some = asyncio.Event()
        self._sending = False
        self._reading_late = False  # a message that came before is still to be taken
        self._acking: asyncio.TimerHandle | None = None
        self._done = False
        self._heard = False
        self._refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.stream = self._taken_over(resume) or self._opened(resumed)
        self._connection.stop_keepalive()  # acks make traffic enough
        ingest.feeding[query.stream] = self
        ingest.log.listen(self.stream.name, self.stream.epoch, self._events)

    def _opened(self, resumed: Resumed | None) -> Stream:
        q = self.query
        old = self.ingest.feeding.get(q.stream)
        if old is not None and old.waiting is not None:
            old.give_up()
        stream = self.ingest.engine.open_stream(
            q.stream,
            q.rate_hz,
            models=q.models,
            kind="websocket",
            channels=q.channels,
            scores=q.scores,
            resumed=resumed,
        )
        self._say(self._ready(stream))
        return stream

    def _taken_over(self, resume: tuple[str, int] | None) -> Stream | None:
        """The stream of the same name and epoch, whose old connection is gone or set aside."""
        old = self.ingest.feeding.get(self.query.stream)
        if resume is None or old is None or old.stream.epoch != resume[0] or old.query.rate_hz != self.query.rate_hz:
            return None
        old.replaced = True
        old._some.set()
        if old.waiting is not None:
            old.waiting.cancel()
        stream = old.stream
        stream.connected = True
        stream.skip(resume[1] - stream.received_samples, "client")
        self._done = old._done
        self._say(self._ready(stream))
        self._outbox += old._outbox  # what was found meanwhile
        self._some.set()
        return stream

    def give_up(self) -> None:
        """Nobody came back: the stream ends here."""
        if self.waiting is not None:
            self.waiting.cancel()
            self.waiting = None
        self._leave()

    def _leave(self) -> None:
        self.ingest.log.unlisten(self.stream.name, self.stream.epoch)
        if self.ingest.feeding.get(self.query.stream) is self:
            del self.ingest.feeding[self.query.stream]
        if not self._done:
            self.stream.close()

    def _ready(self, s: Stream) -> JsonObject:
        return {
            "type": "ready",
            "stream": s.name,
            "epoch": s.epoch,
            "rate": s.rate_hz,
            "channels": self.query.channels,
            "models": list(s.models),
            "next_sample": s.received_samples,
        }

    def _say(self, message: JsonObject) -> None:
        self._send(dumps(message))

    def _send(self, text: str) -> None:
        """At once where nothing waits, else in order behind what does."""
        attached = not self._sending and self.waiting is None and not self.replaced
        if self._outbox or not attached or not self._connection.send_now(text):
            self._outbox.append(text)
            self._some.set()

    def _events(self, events: list[Event]) -> None:
        """What the engine found in this stream. In the loop's thread."""
        for event in events:
            self._send(dumps(event_json(event)))
            self._done |= isinstance(event, StreamDone)
        if self._done:
            self._some.set()
        if self.waiting is not None:
            if self._done or len(self._outbox) > OUTBOX_MESSAGES:
                self.give_up()
        elif len(self._outbox) > OUTBOX_MESSAGES:
            self.refuse(WireError(4408, f"client: found {len(self._outbox)} messages unread, wanted a faster reader"))

    def refuse(self, error: WireError) -> None:
        """End the connection, and with it the stream."""
        if not self._refused.done():
            self._refused.set_exception(error)

    async def run(self, first: Message | None) -> None:
        """Read and write until `done`, a fault, or the client is gone. `first`: a message that came already."""
        self._reading_late = first is not None
        self._connection.give_audio(self._take)
        self._acking = asyncio.get_running_loop().call_later(ACK_S, self._ack)
        reading = asyncio.create_task(self._read(first))
        writing = asyncio.create_task(self._write())
        try:
            await asyncio.wait({reading, writing, self._refused}, return_when=asyncio.FIRST_EXCEPTION)
            for task in (self._refused, reading, writing):
                if task.done():
                    task.result()
        except WebSocketDisconnect as e:
            if not self.replaced and not self._done and e.code in BROKEN:
                loop = asyncio.get_running_loop()
                self.waiting = loop.call_later(RESUME_S, self.give_up)
                self.stream.connected = False
            raise
        finally:
            self._connection.give_audio(None)
            if self._acking is not None:
                self._acking.cancel()
            await end(reading, writing, self._refused)
            if not self.replaced and self.waiting is None:
                self._leave()

    def _ack(self) -> None:
        """Every now and then; not behind what waits to be read."""
        self._acking = asyncio.get_running_loop().call_later(ACK_S, self._ack)
        if not self._outbox and not self._sending:
            self._connection.send_now(dumps({"type": "ack", "sample": self.stream.received_samples}))

    async def _write(self) -> None:
        """Send what could not be written at once."""
        while True:
            await self._some.wait()
            self._some.clear()
            if self.replaced:
                raise WireError(4409, "stream: found a new connection that resumes it, wanted one at a time")
            self._sending = True
            while self._outbox:
                await self.ws.send_text(self._outbox.popleft())
            self._sending = False
            if self._done:
                await self.ws.close(1000)
                raise WebSocketDisconnect(1000)

    def _take(self, payload: Payload) -> bool:
        """Audio straight from the connection; False where `_read` has to have it."""
        now_s = time.monotonic()
        stream = self.stream
        if self._reading_late or stream.ending or self.replaced or stream.ahead_s(now_s) > MAX_AHEAD_S:
            return False
        try:
            found = self._samples(payload)
        except WireError:
            return False
        stream.push(found.samples, now_s, found.peak)
        self._heard = True
        return True

    async def _read(self, first: Message | None) -> None:
        """Take messages; a stream too far ahead of its own clock is not read."""
        while True:
            if first is None:
                self._reading_late = False
            message = first or await self.ws.receive()
            first = None
            now_s = time.monotonic()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code") or 1006)
            if self.stream.ending:
                raise WireError(4400, "message: found one after end, wanted none")
            data = message.get("bytes")
            if data is None:
                self._control(parse_message(message.get("text") or ""))
            else:
                found = self._samples(data)
                self.stream.push(found.samples, now_s, found.peak)
                self._heard = True
                early_s = self.stream.ahead_s(now_s) - MAX_AHEAD_S
                if early_s > 0:
                    self._reading_late = True
                    await asyncio.sleep(early_s)

    def _control(self, message: JsonObject) -> None:
        if message["type"] == "end":
            self.stream.end()
        elif message["type"] == "resume" and not self._heard:
            _resume({"text": dumps(message)})
            self._say(self._ready(self.stream))  # an epoch that nobody knows: begin anew, from next_sample
        elif message["type"] != "auth":
            raise WireError(4400, f"message: found type {message['type'][:40]!r}, wanted binary PCM, resume or end")

    def _samples(self, data: bytes | Payload) -> Pcm:
        """The picked channel of a binary message; what was wrong in it is counted. Raises WireError 4400."""
        q = self.query
        if len(data) > MAX_MESSAGE_BYTES:
            raise WireError(4400, f"audio: found {len(data)} bytes, wanted at most {MAX_MESSAGE_BYTES}")
        if len(data) % q.sample_size:
            raise WireError(4400, f"audio: found {len(data)} bytes, wanted a multiple of {q.sample_size}")
        n = len(data) // q.sample_size
        if n > q.rate_hz:
            raise WireError(4400, f"audio: found {n} samples in one message, wanted at most {q.rate_hz} (1 s)")
        found = decoded(data, q.sample_bytes, q.channels, q.channel)
        self.ingest.bad_samples += found.bad
        self.ingest.clipped_samples += found.clipped
        return found
