"""`WS /v1/audio`: binary PCM in; ready, ack, detection, scores, gap and done out."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from kws_serve.api.query import AudioQuery, audio_query
from kws_serve.api.security import Access
from kws_serve.api.sockets import converse
from kws_serve.api.wire import WireError, dumps, event_json, parse_message
from kws_serve.engine import Engine
from kws_serve.messages import Event, Float32Array, Int16Array, JsonObject, StreamDone
from kws_serve.sinks.history import History
from kws_serve.stream import MAX_AHEAD_S, Stream

MAX_MESSAGE_BYTES = 256 * 1024
ACK_S = 0.8
RESUME_WAIT_S = 1.0
OUTBOX_MESSAGES = 4096


class Ingest:
    """All audio sockets of the server: who feeds which stream, and what was wrong with the samples."""

    def __init__(self, engine: Engine, history: History, access: Access) -> None:
        self.engine = engine
        self.history = history
        self.access = access
        self.feeding: dict[str, AudioSocket] = {}
        self.bad_samples = 0  # not a number
        self.clipped_samples = 0

    async def serve(self, ws: WebSocket) -> None:
        """One connection, from handshake to close."""
        await converse(ws, self.access, self._serve)

    async def _serve(self, ws: WebSocket) -> None:
        query = audio_query(ws.query_params.multi_items())
        in_use = query.stream in self.engine.streams
        await AudioSocket(self, ws, query, await _resume_message(ws) if in_use else None).run()


async def _resume_message(ws: WebSocket) -> JsonObject | None:
    """The name is in use: only a `resume` that comes at once may take it over."""
    try:
        message = await asyncio.wait_for(ws.receive(), RESUME_WAIT_S)
    except TimeoutError:
        return None
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code") or 1006)
    return parse_message(message["text"]) if message.get("text") else None


class AudioSocket:
    """One client feeding one stream."""

    def __init__(self, ingest: Ingest, ws: WebSocket, query: AudioQuery, first: JsonObject | None) -> None:
        """Open the stream, or take over a half-open one. Raises StreamRefused, WireError."""
        self.ingest = ingest
        self.ws = ws
        self.query = query
        self.replaced = False
        self._outbox: deque[str] = deque()
        self._some = asyncio.Event()
        self._done = False
        self._heard = False
        self._too_slow: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.stream = self._taken_over(first) or self._opened()
        ingest.feeding[query.stream] = self
        ingest.history.listen(self.stream.name, self.stream.epoch, self._events)
        self._say(self._ready())

    def _opened(self) -> Stream:
        q = self.query
        return self.ingest.engine.open_stream(
            q.stream, q.rate_hz, models=q.models, kind="websocket", channels=q.channels, scores=q.scores
        )

    def _taken_over(self, first: JsonObject | None) -> Stream | None:
        """The half-open stream of the same name and epoch, its old connection set aside."""
        old = self.ingest.feeding.get(self.query.stream)
        if first is None or first.get("type") != "resume" or old is None or old.stream.ending:
            return None
        same = old.query.rate_hz == self.query.rate_hz and first.get("epoch") == old.stream.epoch
        if not same or first.get("first_sample") != old.stream.received_samples:
            return None
        old.replaced = True
        old._some.set()
        return old.stream

    def _ready(self) -> JsonObject:
        s = self.stream
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
        self._outbox.append(dumps(message))
        self._some.set()

    def _events(self, events: list[Event]) -> None:
        """What the engine found in this stream. In the loop's thread."""
        for event in events:
            self._outbox.append(dumps(event_json(event)))
            self._done |= isinstance(event, StreamDone)
        self._some.set()
        if len(self._outbox) > OUTBOX_MESSAGES and not self._too_slow.done():
            text = f"client: found {len(self._outbox)} messages unread, wanted a faster reader"
            self._too_slow.set_exception(WireError(4408, text))

    async def run(self) -> None:
        """Read and write until `done`, a fault, or the client is gone."""
        reading = asyncio.create_task(self._read())
        writing = asyncio.create_task(self._write())
        try:
            await asyncio.wait({reading, writing, self._too_slow}, return_when=asyncio.FIRST_EXCEPTION)
            for task in (self._too_slow, reading, writing):
                if task.done():
                    task.result()
        finally:
            for task in (reading, writing, self._too_slow):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task
            if not self.replaced:
                self.ingest.history.unlisten(self.stream.name, self.stream.epoch)
                if self.ingest.feeding.get(self.query.stream) is self:
                    del self.ingest.feeding[self.query.stream]
                if not self._done:
                    self.stream.close()

    async def _write(self) -> None:
        """Send what is queued, and an ack at least every second."""
        acked_s = time.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._some.wait(), ACK_S)
            self._some.clear()
            if self.replaced:
                raise WireError(4409, "stream: found a new connection that resumes it, wanted one at a time")
            while self._outbox:
                await self.ws.send_text(self._outbox.popleft())
            if self._done:
                await self.ws.close(1000)
                raise WebSocketDisconnect(1000)
            now_s = time.monotonic()
            if now_s - acked_s >= ACK_S:
                acked_s = now_s
                await self.ws.send_text(dumps({"type": "ack", "sample": self.stream.received_samples}))

    async def _read(self) -> None:
        """Take messages; a stream too far ahead of its own clock is not read."""
        while True:
            message = await self.ws.receive()
            now_s = time.monotonic()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code") or 1006)
            if self.stream.ending:
                raise WireError(4400, "message: found one after end, wanted none")
            data = message.get("bytes")
            if data is None:
                self._control(parse_message(message.get("text") or ""))
            else:
                samples = self._samples(data)
                self.stream.push(samples, now_s)
                self._heard = True
                early_s = self.stream.ahead_s(now_s) - MAX_AHEAD_S
                if early_s > 0:
                    await asyncio.sleep(early_s)

    def _control(self, message: JsonObject) -> None:
        if message["type"] == "end":
            self.stream.end()
        elif message["type"] == "resume" and not self._heard:
            self._say(self._ready())  # another epoch than ours: begin anew, from next_sample
        elif message["type"] != "auth":
            raise WireError(4400, f"message: found type {message['type'][:40]!r}, wanted binary PCM, resume or end")

    def _samples(self, data: bytes) -> Float32Array | Int16Array:
        """The picked channel of a binary message. Raises WireError 4400."""
        q = self.query
        if len(data) > MAX_MESSAGE_BYTES:
            raise WireError(4400, f"audio: found {len(data)} bytes, wanted at most {MAX_MESSAGE_BYTES}")
        if len(data) % q.sample_size:
            raise WireError(4400, f"audio: found {len(data)} bytes, wanted a multiple of {q.sample_size}")
        if len(data) // q.sample_size > q.rate_hz:
            n = len(data) // q.sample_size
            raise WireError(4400, f"audio: found {n} samples in one message, wanted at most {q.rate_hz} (1 s)")
        if q.sample_bytes == 2:
            pcm = np.frombuffer(data, "<i2")[q.channel :: q.channels].astype(np.int16, copy=False)
            if len(pcm) and (pcm.max() == 32767 or pcm.min() == -32768):
                self.ingest.clipped_samples += int(np.count_nonzero((pcm == 32767) | (pcm == -32768)))
            return pcm
        return self._checked(np.frombuffer(data, "<f4")[q.channel :: q.channels].astype(np.float32, copy=False))

    def _checked(self, samples: Float32Array) -> Float32Array:
        """NaN becomes 0 and what is outside (-1, 1) saturates: both are counted."""
        if not len(samples) or (np.isfinite(samples).all() and np.abs(samples).max() < 1.0):
            return samples
        bad = ~np.isfinite(samples)
        self.ingest.bad_samples += int(bad.sum())
        samples = np.where(bad, np.float32(0), samples)
        self.ingest.clipped_samples += int((np.abs(samples) >= 1).sum())
        return np.clip(samples, np.float32(-1), np.float32(1))
