"""Many live streams for little: WebSocket frames made beforehand, written when their last sample is due.

What it sends is what any client sends; only the making of the frames is left out of the time in which they are sent, so
that one core can feed a thousand streams.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from websockets.frames import Frame, Opcode

from tests.support.websocket_frames import unpacked

RATE_HZ = 16_000


@dataclass
class Heard:
    """What one stream was told."""

    detections: list[tuple[str, int]] = field(default_factory=list)  # label, start sample
    latencies_ms: list[float] = field(default_factory=list)  # from sending the deciding chunk to the detection
    dropped: int = 0
    done: int | None = None
    error: str = ""


class RawStream(asyncio.Protocol):
    """One stream's connection."""

    def __init__(self, name: str, host: str, audio: np.ndarray, chunk: int) -> None:
        self.heard = Heard()
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sent_s: list[float] = []
        self._name, self._host, self._chunk = name, host, chunk
        self._frames = [
            _client_frame(Opcode.BINARY, audio[i : i + chunk].tobytes()) for i in range(0, len(audio), chunk)
        ]
        self._buffer = b""
        self._upgraded = False

    @property
    def n_chunks(self) -> int:
        """Frames of audio."""
        return len(self._frames)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self.transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET /v1/audio?stream={self._name}&rate={RATE_HZ}&format=s16le HTTP/1.1\r\nHost: {self._host}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def send_chunk(self, i: int) -> None:
        """Chunk `i`, now."""
        self.sent_s.append(time.monotonic())
        self.transport.write(self._frames[i])

    def end(self) -> None:
        """No more audio."""
        self.transport.write(_client_frame(Opcode.TEXT, b'{"type":"end"}'))

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        data = self._buffer + data
        if not self._upgraded:
            head, found, rest = data.partition(b"\r\n\r\n")
            if not found:
                self._buffer = data
                return
            if b" 101 " not in head[:20]:
                self._fail(head[:80].decode())
                return
            self._upgraded, data = True, rest
        while (frame := unpacked(data)) is not None:
            opcode, payload, data = frame
            if opcode == Opcode.TEXT:
                self._message(json.loads(payload))
            elif opcode == Opcode.PING:
                self.transport.write(_client_frame(Opcode.PONG, payload))
            elif opcode == Opcode.CLOSE:
                self.transport.write(_client_frame(Opcode.CLOSE, payload))
        self._buffer = data

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        if not self.ready.done():
            self.ready.set_result(None)
        if not self.closed.done():
            self.closed.set_result(None)

    def _fail(self, why: str) -> None:
        self.heard.error = why
        self.transport.close()

    def _message(self, message: dict) -> None:
        heard = self.heard
        match message["type"]:
            case "ready":
                self.ready.set_result(None)
            case "detection":
                chunk = min(len(self.sent_s) - 1, (round(message["decided_s"] * RATE_HZ) - 1) // self._chunk)
                heard.latencies_ms.append(1000 * (time.monotonic() - self.sent_s[chunk]))
                heard.detections.append((message["label"], message["start_sample"]))
            case "gap":
                heard.dropped += message["n"]
            case "done":
                heard.done = message["samples"]
            case "error":
                heard.error = message["message"]


def _client_frame(opcode: Opcode, payload: bytes) -> bytes:
    return Frame(opcode, payload).serialize(mask=True)


@dataclass
class Run:
    """What all streams heard, and what `cpu_s` told before they connected, when the audio began and when it ended."""

    heard: list[Heard]
    cpu_s: tuple[float, float, float]
    late_p99_ms: float  # how late chunks were sent


async def run_streams(
    host: str, audio: list[np.ndarray], chunk: int, cpu_s: Callable[[], float], rounds: int = 1
) -> Run:
    """All streams at once, each chunk at the real time of its last sample; the audio `rounds` times over."""
    before_s = cpu_s()
    address, port = host.rsplit(":", 1)
    loop = asyncio.get_running_loop()
    streams: list[RawStream] = []
    for first in range(0, len(audio), 8):  # a service that counts who joined lately lets a crowd in little by little
        makers = [partial(RawStream, f"s{i}", host, audio[i], chunk) for i in range(first, min(first + 8, len(audio)))]
        made = await asyncio.gather(*(loop.create_connection(make, address, int(port)) for make in makers))
        streams += [stream for _, stream in made]
        await asyncio.gather(*(stream.ready for stream in streams[first:]))
        await asyncio.sleep(0.05)
    connected_s = cpu_s()
    period_s = chunk / RATE_HZ
    began_s = time.monotonic() + 0.5
    due = sorted((began_s + period_s * (1 + i / len(streams)), i) for i in range(len(streams)))  # evenly out of step
    late_s: list[float] = []
    for k in range(rounds * max(s.n_chunks for s in streams)):
        for first_s, i in due:
            at_s = first_s + k * period_s
            if at_s - time.monotonic() > 0.001:
                await asyncio.sleep(at_s - time.monotonic())
            stream = streams[i]
            if k < rounds * stream.n_chunks and not stream.closed.done():
                stream.send_chunk(k % stream.n_chunks)
                late_s.append(stream.sent_s[-1] - at_s)
        await asyncio.sleep(0)
    sent_s = cpu_s()
    for stream in streams:
        if not stream.closed.done():
            stream.end()
    await asyncio.wait([stream.closed for stream in streams], timeout=20)
    for stream in streams:
        stream.transport.close()
    late_ms = 1000 * float(np.percentile(late_s, 99))
    return Run([stream.heard for stream in streams], (before_s, connected_s, sent_s), late_ms)
