"""The Python client: connect, authenticate, iterate detections, send audio. The JavaScript twin speaks the same.

async with KwsClient("http://127.0.0.1:8000") as client:
    async for detection in client.detections():
        print(detection["stream"], detection["label"], detection["score"])
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from ssl import SSLCertVerificationError, SSLContext
from types import TracebackType
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

import numpy as np
import numpy.typing as npt
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from kws_serve.messages import JsonObject, KwsError

_FIRST_RETRY_S, _LAST_RETRY_S = 0.25, 10.0
_FINAL = frozenset({4400, 4401, 4403})
"""Close codes that another try would meet again."""

_TOO_MUCH = 1008  # close code: too much that is not audio
_REFUSED = 4400  # the service's own close codes begin here

RING_S = 10.0
"""What a sender keeps for a service that has to be told again."""


class ServiceError(KwsError):
    """The service refused: its close code and message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Backoff:
    """Pauses between tries: 0.25 s doubling to 10 s, with jitter so that clients do not return in step."""

    def __init__(self) -> None:
        self._wait_s = _FIRST_RETRY_S

    async def pause(self) -> None:
        """Wait; the next time longer."""
        await asyncio.sleep(self._wait_s * (0.5 + random.random() / 2))
        self._wait_s = min(_LAST_RETRY_S, 2 * self._wait_s)

    def broken(self, code: int | None) -> None:
        """A connection that stood has ended with this close code: begin anew, unless the service sent us away."""
        if not _sent_away(code):
            self._wait_s = _FIRST_RETRY_S


class KwsClient:
    """A service at `url` (http://, https://, ws:// or wss://), with its token where it wants one."""

    def __init__(self, url: str, token: str | None = None, ssl: SSLContext | None = None) -> None:
        """`ssl`: for https, where the certificate is not one that this machine trusts; without it the certificate is
        verified as usual. Raises ValueError: the URL.
        """
        parts = urlsplit(url)
        schemes = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
        if parts.scheme not in schemes or not parts.netloc:
            raise ValueError(f"url: found {url!r}, wanted http://HOST:PORT, https://, ws:// or wss://")
        self._base = urlunsplit((schemes[parts.scheme], parts.netloc, parts.path.rstrip("/"), "", ""))
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        secure = schemes[parts.scheme] == "wss"
        if ssl and not secure:
            raise ValueError(f"ssl: found a context for {url!r}, wanted https://HOST:PORT")
        self._ssl = ssl or True if secure else None  # True: a default context
        self._open: set[ClientConnection] = set()
        self.log_id: str | None = None
        self.last_id: int | None = None  # of the last detection seen without a filter's help

    async def __aenter__(self) -> KwsClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in list(self._open):
            await connection.close()

    async def _connect(self, path: str, query: dict[str, Any]) -> ClientConnection:
        wanted = {k: str(v) for k, v in query.items() if v is not None}
        url = f"{self._base}{path}" + (f"?{urlencode(wanted)}" if wanted else "")
        try:
            connection = await connect(
                url,
                additional_headers=self._headers,
                compression=None,
                proxy=None,
                close_timeout=2.0,  # waited out where messages lie unread
                ssl=self._ssl,
            )
        except InvalidStatus as e:
            if e.response.status_code >= 500 or e.response.status_code == 429:
                # it is stopping, a proxy in between has nobody behind it, or too many come at once
                raise ConnectionError(f"HTTP {e.response.status_code}") from e
            raise ServiceError(4403, f"refused with HTTP {e.response.status_code}") from e
        except InvalidHandshake as e:  # it broke off in the middle
            raise ConnectionError(str(e)) from e
        self._open = {c for c in self._open if c.close_code is None} | {connection}
        return connection

    async def detections(
        self, after: int | None = None, stream: str | None = None, label: str | None = None
    ) -> AsyncIterator[JsonObject]:
        """Detections as they come, each once, through lost connections; with `after`, first what is kept after it.

        `log_gap` messages are yielded too: they say what the log no longer has. Raises ServiceError where trying
        again is useless (bad token, bad parameter), SSLCertVerificationError where the certificate is not trusted.
        """
        backoff = Backoff()
        while True:
            try:
                connection = await self._connect("/v1/detections", {"after": after, "stream": stream, "label": label})
            except SSLCertVerificationError:
                raise
            except OSError:
                await backoff.pause()
                continue
            error: JsonObject = {}
            stood = False
            try:
                async for text in connection:
                    message = json.loads(text)
                    if message["type"] == "hello":
                        if after is not None and self.log_id not in (None, message["log_id"]):
                            after = 0  # another log: its ids begin anew
                            self.log_id = message["log_id"]
                            break
                        self.log_id = message["log_id"]
                        after = message["last_id"] if after is None else after
                        stood = True
                    elif message["type"] == "error":
                        error = message
                    else:
                        after = self.last_id = message.get("id", message.get("to", after))
                        yield message
            except ConnectionClosed:
                pass
            finally:
                self._open.discard(connection)
                await connection.close()
            if connection.close_code in _FINAL:
                raise ServiceError(connection.close_code, error.get("message") or connection.close_reason or "refused")
            if stood:
                backoff.broken(connection.close_code)
            await backoff.pause()

    @contextlib.asynccontextmanager
    async def audio(
        self,
        stream: str,
        rate: int = 16000,
        *,
        channels: int = 1,
        channel: int = 0,
        models: Sequence[str] | None = None,
        scores: bool = False,
        dtype: str = "int16",
    ) -> AsyncIterator[AudioSender]:
        """A stream to feed. `dtype` of the samples: int16 or float32. Raises ServiceError: refused, now or for good."""
        formats = {"int16": "s16le", "float32": "f32le"}
        if dtype not in formats:
            raise ValueError(f"dtype: found {dtype!r}, wanted int16 or float32")
        query = {"stream": stream, "rate": rate, "format": formats[dtype], "channels": channels, "channel": channel}
        query |= {"models": ",".join(models) if models is not None else None, "scores": int(scores)}
        sender = AudioSender(lambda: self._connect("/v1/audio", query), np.dtype(dtype), rate, channels)
        try:
            await sender.open()
            yield sender
        finally:
            connection = await sender.close()
            if connection is not None:
                self._open.discard(connection)


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
        self._reading: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect for the first time. Raises ServiceError: refused; OSError: nobody there."""
        self.connection = await self._connect()
        try:
            answer = json.loads(await self.connection.recv())
        except ConnectionClosed:
            raise _refusal(self.connection) from None
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
        """The next message but acknowledgements. Raises ServiceError: refused for good, or a close before `done`."""
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
            if message["code"] in _FINAL:
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
        if code in _FINAL | {1000}:
            raise _refusal(self.connection)
        self._backoff.broken(code)
        if _sent_away(code):
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
            if connection is not None and connection.close_code in _FINAL:
                raise _refusal(connection) from None
            return None
        if answer["type"] == "ready":
            return connection, answer
        await connection.close()
        if answer["code"] in _FINAL:
            raise ServiceError(answer["code"], answer["message"])
        return None


def _sent_away(code: int | None) -> bool:
    """Whether a connection with this close code was ended by the service for what its client did or wanted."""
    return code == _TOO_MUCH or (code or 0) >= _REFUSED


def _refusal(connection: ClientConnection) -> ServiceError:
    """What a closed connection was closed with."""
    return ServiceError(connection.close_code or 1006, connection.close_reason or "the connection is gone")
