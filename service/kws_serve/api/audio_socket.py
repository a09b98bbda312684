"""One connection that feeds a stream: what its client says comes in by the door, what is found leaves by the outbox."""

from __future__ import annotations

import asyncio
import time

from starlette.websockets import WebSocket, WebSocketDisconnect

from kws_serve.api.audio_door import Door
from kws_serve.api.audio_states import Life, State, What
from kws_serve.api.ingest import MAX_GAP_S, OPENINGS, Ingest
from kws_serve.api.outbox import Outbox
from kws_serve.api.query import AudioQuery
from kws_serve.api.sockets import end
from kws_serve.api.tokens import digest
from kws_serve.engine.resumed import Resumed
from kws_serve.engine.stream import Stream
from kws_serve.messages import Event, StreamDone, StreamRefused
from kws_serve.transport.connection import CONNECTION, Connection
from kws_serve.wire import Resume, WireError, ack_json, dumps, event_json, ready_json

ACK_S = 0.8
"""From one `ack` to the next, in s: one a second is promised, and the loop may be late."""

FREE_ACK_S = 0.1
"""The same of a free stream, in s: a client that keeps 10 s for a resume sends on at each `ack`."""

RESUME_S = 10.0
"""How long a stream waits for its client, in s: as long as the clients' rings of audio reach back."""

BROKEN = frozenset({1005, 1006, 1012})
"""Close codes of a connection that broke off, or that this service broke off to restart."""

POLITE = frozenset({1000, 1001})
"""Close codes of a client that has left and will not go on."""

OUTBOX_MESSAGES = 4096
"""Unread messages of one client, about 0.6 MB: 80 s of the scores of a model that has 50 patches a second."""


class AudioSocket:
    """One client feeding one stream."""

    def __init__(
        self,
        ingest: Ingest,
        ws: WebSocket,
        query: AudioQuery,
        owner: str,
        resume: Resume | None,
        resumed: Resumed | None,
    ) -> None:
        """Open the stream, or go on with it: `resume` as the client asks, `resumed` as the log knows it. `owner`: the
        name of the client's token; empty: of the service's own, or there is none.

        Raises StreamRefused, WireError; then nothing has changed: a stream that is fed, or waits for its client, goes
        on so.
        """
        self.ingest = ingest
        self.query = query
        self.owner = owner
        self._owner_digest = digest(owner)
        self.life = Life()
        self.outbox = Outbox(ws, ws.scope["extensions"][CONNECTION])
        self._ws = ws
        self._connection: Connection = ws.scope["extensions"][CONNECTION]
        self._acking: asyncio.TimerHandle | None = None
        self._waiting: asyncio.TimerHandle | None = None  # for a client that has vanished
        self._told: asyncio.Future[None] = asyncio.get_running_loop().create_future()  # fails with what ends all this
        self._comes_back = True  # its client may
        self.stream = self._taken_over(resume) or self._opened(resumed)
        self.stream.owner = self._owner_digest
        ingest.earlier.pop(query.stream, None)
        ingest.owners.pop(query.stream, None)
        self.door = Door(ws, query, self.life, self.stream, ingest.held, ingest.count, self._say_ready, self.refuse)
        self._connection.stop_keepalive()  # acks make traffic enough
        ingest.feeding[query.stream] = self
        ingest.log.listen(self.stream.name, self.stream.epoch, self._events)

    def _opened(self, resumed: Resumed | None) -> Stream:
        q = self.query
        if resumed is not None:
            self._check_gap(resumed.first_sample, resumed.heard_sample)
        if self.ingest.opened_too_often(self.owner, q.stream):
            found = f"stream: found {q.stream!r} opened anew too often"
            raise StreamRefused(4429, f"{found}, wanted at most {OPENINGS.per_s:g} a second; try again later")
        old = self.ingest.feeding.get(q.stream)
        waits = old if old is not None and old.life.waiting else None
        if (waits and waits.owner != self.owner) or (resumed is None and self._waits_since_restart):
            raise StreamRefused(4409, f"stream: {q.stream!r} waits for its client to resume it; wanted another name")
        stream = self.ingest.engine.open_stream(
            q.stream,
            q.rate_hz,
            models=q.models,
            kind="websocket",
            channels=q.channels,
            scores=q.scores,
            live=q.live,
            resumed=resumed,
            instead_of=waits.stream if waits else None,
        )
        if waits:
            waits.give_up()
        self._say_ready(stream)
        return stream

    @property
    def _waits_since_restart(self) -> bool:
        """Whether the stream was another token's when the service stopped, whose client may come back."""
        owners = self.ingest.owners.get(self.query.stream, {self._owner_digest})
        return self._owner_digest not in owners and time.monotonic() - self.ingest.since_s < RESUME_S

    def _taken_over(self, resume: Resume | None) -> Stream | None:
        """The stream of the same name and epoch, whose old connection is gone or set aside.

        The epoch alone does for a stream that waits: its token may have been made anew. It stands in each detection, so
        a connection that stands is set aside for its own token only.
        """
        old = self.ingest.feeding.get(self.query.stream)
        if resume is None or old is None or old.stream.epoch != resume.epoch or old.query.rate_hz != self.query.rate_hz:
            return None
        if old.owner != self.owner and not old.life.waiting:
            return None
        self._check_gap(resume.first_sample, old.stream.received_samples)
        finished = old.life.finished
        resumed = "stream: found a new connection that resumes it, wanted one at a time"
        if not old.end_with(What.REPLACE, WireError(4409, resumed)):
            return None
        stream = old.stream
        if stream.ending:
            self.life.state = State.DONE if finished else State.ENDED_BEFORE
        stream.connected = True
        stream.skip(resume.first_sample - stream.received_samples, "client")
        self._say_ready(stream)
        self.outbox.take_over(old.outbox)  # what was found meanwhile
        return stream

    def _check_gap(self, first_sample: int, received: int) -> None:
        """What a client says that it has lost counts as received and dropped. Raises WireError 4400: beyond belief."""
        lost_s = (first_sample - received) / self.query.rate_hz
        if lost_s > MAX_GAP_S:
            found = f"found first_sample {first_sample}, {lost_s:.0f} s beyond what was received"
            raise WireError(4400, f"resume: {found}, wanted at most {MAX_GAP_S:.0f} s")

    def give_up(self) -> None:
        """Nobody came back in time: the stream ends here."""
        self._leave(comes_back=True)

    def refuse(self, error: WireError) -> None:
        """End the connection with an error, and with it the stream: what was received is still processed."""
        if self.end_with(What.REFUSE, error):
            self._comes_back = error.code != 4400  # which another try would meet again

    def end_with(self, what: What, error: WireError) -> bool:
        """Go on in the table, and have `run`, if it runs, end with the error; False, nothing done: not in the table."""
        if not self.life.on(what):
            return False
        self._stop_waiting()
        if not self._told.done():
            self._told.set_exception(error)
        return True

    def _leave(self, *, comes_back: bool) -> None:
        """Give the name free; the stream is closed unless it has come to its end. `comes_back`: its client may."""
        finished = self.life.finished
        self.life.on(What.LEAVE)
        self._stop_waiting()
        self.ingest.log.unlisten(self.stream.name, self.stream.epoch)
        if self.ingest.feeding.get(self.query.stream) is self:
            del self.ingest.feeding[self.query.stream]
        if not finished:
            self.stream.close()
            if comes_back:
                self.ingest.remember(self.stream)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _say_ready(self, stream: Stream) -> None:
        ready = ready_json(
            stream=stream.name,
            epoch=stream.epoch,
            rate=stream.rate_hz,
            channels=self.query.channels,
            models=stream.models,
            next_sample=stream.received_samples,
        )
        self.outbox.send(dumps(ready))

    def _events(self, events: list[Event]) -> None:
        """What the engine found in this stream. In the loop's thread."""
        for event in events:
            self.outbox.send(dumps(event_json(event)))
            if isinstance(event, StreamDone) and self.life.on(What.FINISH):
                self.outbox.wake()  # to close, where `done` is said already
        unread = len(self.outbox.texts)
        if self.life.standing:
            if unread > OUTBOX_MESSAGES:
                self.refuse(WireError(4408, f"client: found {unread} messages unread, wanted a faster reader"))
        elif self.life.waiting and unread > OUTBOX_MESSAGES:
            self.give_up()

    async def run(self, first: bytes | str | None) -> None:
        """Read and write until `done`, a fault, or the client is gone. `first`: a message that came already.

        Raises WireError, WebSocketDisconnect. A connection that broke off leaves its stream waiting for RESUME_S; in
        any other case the stream is closed, and its name free.
        """
        self._connection.give_audio(self.door.take)
        self._acking = asyncio.get_running_loop().call_later(self._ack_s, self._ack)
        reading = asyncio.create_task(self.door.read(first))
        writing = asyncio.create_task(self._write())
        try:
            await asyncio.wait({reading, writing, self._told}, return_when=asyncio.FIRST_EXCEPTION)
            for task in (self._told, reading, writing):
                if task.done():
                    task.result()
        except WebSocketDisconnect as e:
            self._comes_back = e.code not in POLITE
            if e.code in BROKEN and self.life.on(What.BREAK):
                self._wait_for_client()
            raise
        finally:
            self._connection.give_audio(None)
            self._acking.cancel()
            self.door.close()
            await end(reading, writing, self._told)
            if self.life.standing or self.life.state is State.REFUSED:
                self._leave(comes_back=self._comes_back)

    def _wait_for_client(self) -> None:
        self.outbox.shut = True
        self.stream.connected = False
        self._waiting = asyncio.get_running_loop().call_later(RESUME_S, self.give_up)

    @property
    def _ack_s(self) -> float:
        return ACK_S if self.stream.live else FREE_ACK_S

    def _ack(self) -> None:
        """Every now and then; not behind what waits to be read, nor behind `done`."""
        self._acking = asyncio.get_running_loop().call_later(self._ack_s, self._ack)
        if not (self.outbox.texts or self.outbox.shut or self.life.finished):
            self.outbox.send(dumps(ack_json(self.stream.received_samples)))

    async def _write(self) -> None:
        """Send what could not be said at once, until `done` is."""
        while not self.life.finished or self.outbox.texts:
            await self.outbox.write()
        await self._ws.close(1000)
        raise WebSocketDisconnect(1000)
