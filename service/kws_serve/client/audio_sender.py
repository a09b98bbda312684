"""One open stream of a client: samples out, messages in, through lost connections."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from ssl import SSLCertVerificationError
from typing import Any

import numpy as np
import numpy.typing as npt
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from kws_serve.client.retries import FINAL, Backoff, ServiceError, refusal, sent_away
from kws_serve.messages import JsonObject

INBOX_MESSAGES = 4096
"""What a sender keeps for one who does not iterate: 80 s of scores of a model at 20 ms, about 1 MB."""

RING_S = 10.0
"""What a sender keeps for a service that has to be told again."""


class AudioSender:
    """One open stream: send samples, iterate what the service says of them.

    Keeps the last 10 s, and all that the service has not acknowledged. Where the connection breaks, or the service
    restarts or sends the stream away for now (4429 and the like), it connects again, with growing pauses, and sends on
    from the sample that the service expects: nothing is lost and nothing told twice. A `send` waits while 10 s are
    unacknowledged: it never drops anything itself.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[ClientConnection]], dtype: np.dtype[Any], rate: int, channels: int
    ) -> None:
        self.ready: JsonObject = {}
        self.connection: ClientConnection | None = None
        self._connect = connect
        self._dtype = dtype
        self._sample_size = dtype.itemsize * channels
        self._largest = max(1, min(rate // 2, 128 * 1024 // self._sample_size))  # samples of one message
        self._kept = round(RING_S * rate)
        self._ring: deque[tuple[int, bytes]] = deque()  # (first sample, PCM), the last `_kept` samples
        self._next = 0  # the sample after the last one that was given to us
        self._wanted = 0  # the sample that the service expects
        self._acked = 0
        self._ended = False
        self._backoff = Backoff()
        self._sending = asyncio.Lock()
        self._progress = asyncio.Event()  # an acknowledgement, or the end
        self._inbox: asyncio.Queue[JsonObject | Exception] = asyncio.Queue()
        self._skipped = 0  # messages that were left out, because nobody took them
        self._reading: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect for the first time. Raises ServiceError: refused; OSError: nobody there."""
        self.connection = await self._connect()
        try:
            answer = json.loads(await self.connection.recv())
        except ConnectionClosed:
            raise refusal(self.connection) from None
        if answer["type"] == "error":
            raise ServiceError(answer["code"], answer["message"])
        self.ready = answer
        self._reading = asyncio.create_task(self._read())

    async def close(self) -> ClientConnection | None:
        """Give the connection back, which ends the stream where `end` has not; what it was."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})
        if self.connection is not None:
            await self.connection.close()
        return self.connection

    async def send(self, samples: npt.ArrayLike | bytes) -> None:
        """Samples (n,) or interleaved (n, channels), or PCM bytes; waits while the service holds back or is away.

        Raises ServiceError where the service refuses the stream, ValueError for bytes that are no whole samples.
        """
        data = samples if isinstance(samples, bytes) else np.ascontiguousarray(samples, self._dtype).tobytes()
        if len(data) % self._sample_size:
            raise ValueError(f"samples: found {len(data)} bytes, wanted a multiple of {self._sample_size}")
        step = self._largest * self._sample_size
        for at in range(0, len(data), step):
            part = data[at : at + step]
            await self._room(len(part) // self._sample_size)
            async with self._sending:
                self._ring.append((self._next, part))
                self._next += len(part) // self._sample_size
                while self._ring[0][0] + len(self._ring[0][1]) // self._sample_size < self._next - self._kept:
                    self._ring.popleft()
                await self._flush()

    async def end(self) -> None:
        """No more samples: the service finishes and sends `done`; go on iterating until then."""
        async with self._sending:
            self._ended = True
            await self._flush()

    async def receive(self) -> JsonObject:
        """The next message but acknowledgements; `skipped` with their number where more than INBOX_MESSAGES waited and
        the oldest were left out. Raises ServiceError: refused for good, or a close before `done`.
        """
        if self._skipped:
            n, self._skipped = self._skipped, 0
            return {"type": "skipped", "n": n}
        message = await self._inbox.get()
        if isinstance(message, Exception):
            self._inbox.put_nowait(message)  # for whoever asks again
            raise message
        return message

    async def _read(self) -> None:
        """Take in what the service says, through lost connections, until `done` or a refusal."""
        try:
            message: JsonObject = {"type": ""}
            while message["type"] != "done":
                message = await self._received()
                if message["type"] == "ack":
                    self._acked = message["sample"]
                    self._progress.set()
                else:
                    self._inbox.put_nowait(message)
                    if self._inbox.qsize() > INBOX_MESSAGES:
                        self._inbox.get_nowait()
                        self._skipped += 1
        except Exception as e:  # told to whoever receives
            self._inbox.put_nowait(e)
        self._progress.set()

    async def _room(self, samples: int) -> None:
        """Wait until so many more samples would leave nothing unacknowledged that is older than the ring."""
        assert self._reading is not None
        while self._next + samples - self._acked > self._kept and self._next > self._acked and not self._reading.done():
            self._progress.clear()
            await self._progress.wait()

    async def _received(self) -> JsonObject:
        """The next message. Raises ServiceError: refused for good, or a close that was not `done`'s."""
        while True:
            connection = self.connection
            assert connection is not None
            try:
                message: JsonObject = json.loads(await connection.recv())
            except ConnectionClosed:
                async with self._sending:
                    if self.connection is connection:
                        await self._again()
                        await self._flush()
                continue
            if message["type"] != "error":
                return message
            if message["code"] in FINAL:
                raise ServiceError(message["code"], message["message"])  # else the close follows

    async def __aiter__(self) -> AsyncIterator[JsonObject]:
        while True:
            message = await self.receive()
            yield message
            if message["type"] == "done":
                return

    async def _flush(self) -> None:
        """Send what the service lacks; through a lost connection. Called with the lock held."""
        while True:
            assert self.connection is not None
            try:
                await self._send_on(self.connection)
                return
            except ConnectionClosed:
                await self._again()

    async def _send_on(self, connection: ClientConnection) -> None:
        for first, data in [part for part in self._ring if part[0] + len(part[1]) // self._sample_size > self._wanted]:
            await connection.send(data[max(0, self._wanted - first) * self._sample_size :])
            self._wanted = first + len(data) // self._sample_size
        if self._ended:
            await connection.send('{"type":"end"}')

    async def _again(self) -> None:
        """Connect again and find out where to go on. Raises ServiceError where that is useless. With the lock held."""
        assert self.connection is not None
        code = self.connection.close_code
        if code in FINAL | {1000}:
            raise refusal(self.connection)
        self._backoff.broken(code)
        if sent_away(code):
            await self._backoff.pause()
        oldest = self._ring[0][0] if self._ring else self._next
        while (found := await self._resumed(oldest)) is None:
            await self._backoff.pause()
        connection, answer = found
        self.connection = connection
        if answer["epoch"] == self.ready["epoch"]:
            self._wanted = self._acked = answer["next_sample"]
            self._progress.set()
        else:  # the log knows nothing of us, so nothing was found yet: the ring begins the stream anew
            self._ring = deque((first - oldest, data) for first, data in self._ring if first >= oldest)
            self._next, self._wanted, self._acked = self._next - oldest, 0, 0
        self.ready = answer

    async def _resumed(self, oldest: int) -> tuple[ClientConnection, JsonObject] | None:
        """A new connection and its `ready`, having asked to go on from sample `oldest`; None: not now.

        Raises ServiceError: refused for good; SSLCertVerificationError.
        """
        connection = None
        try:
            connection = await self._connect()
            resume = {"type": "resume", "epoch": self.ready["epoch"], "first_sample": oldest}
            await connection.send(json.dumps(resume))
            answer: JsonObject = json.loads(await connection.recv())
        except SSLCertVerificationError:
            raise
        except (OSError, ConnectionClosed):
            if connection is not None and connection.close_code in FINAL:
                raise refusal(connection) from None
            return None
        if answer["type"] == "ready":
            return connection, answer
        await connection.close()
        if answer["code"] in FINAL:
            raise ServiceError(answer["code"], answer["message"])
        return None
