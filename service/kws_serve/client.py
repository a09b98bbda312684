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
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

import numpy as np
import numpy.typing as npt
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from kws_serve.messages import JsonObject, KwsError

_FIRST_RETRY_S, _LAST_RETRY_S = 0.25, 10.0
_FINAL = frozenset({4400, 4401, 4403, 4409})
"""Close codes that another try would meet again."""


class ServiceError(KwsError):
    """The service refused: its close code and message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class KwsClient:
    """A service at `url` (http://, https://, ws:// or wss://), with its token where it wants one."""

    def __init__(self, url: str, token: str | None = None) -> None:
        """Raises ValueError for a URL of another scheme."""
        parts = urlsplit(url)
        schemes = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
        if parts.scheme not in schemes or not parts.netloc:
            raise ValueError(f"url: found {url!r}, wanted http://HOST:PORT or ws://HOST:PORT")
        self._base = urlunsplit((schemes[parts.scheme], parts.netloc, parts.path.rstrip("/"), "", ""))
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
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
            connection = await connect(url, additional_headers=self._headers, compression=None, proxy=None)
        except InvalidStatus as e:
            raise ServiceError(4403, f"refused with HTTP {e.response.status_code}") from e
        self._open.add(connection)
        return connection

    async def detections(
        self, after: int | None = None, stream: str | None = None, label: str | None = None
    ) -> AsyncIterator[JsonObject]:
        """Detections as they come, each once, through lost connections; with `after`, first what is kept after it.

        `log_gap` messages are yielded too: they say what the log no longer has. Raises ServiceError where trying
        again is useless (bad token, bad parameter).
        """
        wait_s = _FIRST_RETRY_S
        while True:
            try:
                connection = await self._connect("/v1/detections", {"after": after, "stream": stream, "label": label})
            except OSError:
                await asyncio.sleep(wait_s * (0.5 + random.random() / 2))
                wait_s = min(_LAST_RETRY_S, 2 * wait_s)
                continue
            error: JsonObject = {}
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
                        wait_s = _FIRST_RETRY_S
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
            await asyncio.sleep(wait_s * (0.5 + random.random() / 2))

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
        """A stream to feed. `dtype` of the samples: int16 or float32. Raises ServiceError: refused."""
        formats = {"int16": "s16le", "float32": "f32le"}
        if dtype not in formats:
            raise ValueError(f"dtype: found {dtype!r}, wanted int16 or float32")
        query = {"stream": stream, "rate": rate, "format": formats[dtype], "channels": channels, "channel": channel}
        query |= {"models": ",".join(models) if models is not None else None, "scores": int(scores)}
        connection = await self._connect("/v1/audio", query)
        sender = AudioSender(connection, np.dtype(dtype), rate * channels)
        try:
            sender.ready = await sender.receive()
            yield sender
        finally:
            self._open.discard(connection)
            await connection.close()


class AudioSender:
    """One open stream: send samples, iterate what the service says of them."""

    def __init__(self, connection: ClientConnection, dtype: np.dtype[Any], values_per_s: int) -> None:
        self._connection = connection
        self._dtype = dtype
        self._largest = max(1, min(values_per_s // 2, 128 * 1024 // dtype.itemsize))
        self.ready: JsonObject = {}

    async def send(self, samples: npt.ArrayLike | bytes) -> None:
        """Samples (n,) or interleaved (n, channels), or PCM bytes; waits while the service holds back.

        Raises ServiceError where the service has closed.
        """
        data = samples if isinstance(samples, bytes) else np.ascontiguousarray(samples, self._dtype).tobytes()
        channels = int(self.ready.get("channels", 1))
        step = max(1, self._largest // channels) * channels * self._dtype.itemsize
        try:
            for at in range(0, len(data), step):
                await self._connection.send(data[at : at + step])
        except ConnectionClosed as e:
            raise self._refusal() from e

    async def end(self) -> None:
        """No more samples: the service finishes and sends `done`; go on iterating until then."""
        await self._connection.send('{"type":"end"}')

    async def receive(self) -> JsonObject:
        """The next message. Raises ServiceError: an error message, or a close that was not `done`'s."""
        try:
            message: JsonObject = json.loads(await self._connection.recv())
        except ConnectionClosed as e:
            raise self._refusal() from e
        if message["type"] == "error":
            raise ServiceError(message["code"], message["message"])
        return message

    async def __aiter__(self) -> AsyncIterator[JsonObject]:
        while True:
            message = await self.receive()
            yield message
            if message["type"] == "done":
                return

    def _refusal(self) -> ServiceError:
        code = self._connection.close_code or 1006
        return ServiceError(code, self._connection.close_reason or "the connection is gone")
