"""One service: its connections, and the detections that it tells."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from ssl import SSLCertVerificationError, SSLContext
from types import TracebackType
from typing import Any, Literal
from urllib.parse import urlencode, urlsplit, urlunsplit

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.http11 import Response

from kws_serve.client.audio_sender import AudioSender
from kws_serve.client.retries import FINAL, Backoff, ServiceError
from kws_serve.messages import JsonObject


@dataclass
class _Heard:
    """What one connection of detections has told."""

    last_id: int | None  # None: nothing, and nothing was asked for
    hello: bool = False  # it stood
    refused: str = ""


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
            raise ServiceError(4403, f"refused with HTTP {e.response.status_code}{_said(e.response)}") from e
        except InvalidHandshake as e:  # it broke off in the middle
            raise ConnectionError(str(e)) from e
        self._open = {c for c in self._open if c.close_code is None} | {connection}
        return connection

    async def detections(
        self,
        after: int | None = None,
        stream: str | None = None,
        label: str | None = None,
        log_id: str | None = None,
    ) -> AsyncIterator[JsonObject]:
        """Detections as they come, each once, through lost connections; with `after`, first what is kept after it.
        `log_id`: the log that `after` is of, kept from an earlier `self.log_id`; of another one all is told.

        `log_gap` messages are yielded too: they say what the log no longer has. Raises ServiceError where trying
        again is useless (bad token, bad parameter), SSLCertVerificationError where the certificate is not trusted.
        """
        backoff = Backoff()
        while True:
            try:
                query = {"after": after, "log_id": log_id, "stream": stream, "label": label}
                connection = await self._connect("/v1/detections", query)
            except SSLCertVerificationError:
                raise
            except OSError:
                await backoff.pause()
                continue
            heard = _Heard(after)
            try:
                async for text in connection:
                    message = json.loads(text)
                    if message["type"] == "hello":
                        if not self._goes_on(message, heard):
                            break
                        log_id = log_id and self.log_id
                    elif message["type"] == "error":
                        heard.refused = message["message"]
                    else:
                        heard.last_id = self.last_id = message.get("id", message.get("to", heard.last_id))
                        yield message
            except ConnectionClosed:
                pass
            finally:
                self._open.discard(connection)
                await connection.close()
            after = heard.last_id
            if connection.close_code in FINAL:
                raise ServiceError(connection.close_code, heard.refused or connection.close_reason or "refused")
            if heard.hello:
                backoff.broken(connection.close_code)
            await backoff.pause()

    def _goes_on(self, hello: JsonObject, heard: _Heard) -> bool:
        """Whether the log is the one that `heard.last_id` is of; if not, all of the new one is to be asked for."""
        other = heard.last_id is not None and self.log_id not in (None, hello["log_id"])
        self.log_id = hello["log_id"]
        if other:
            heard.last_id = 0  # its ids begin anew
            return False
        heard.last_id = hello["last_id"] if heard.last_id is None else heard.last_id
        heard.hello = True
        return True

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
        pace: Literal["live", "free"] = "live",
        dtype: str = "int16",
    ) -> AsyncIterator[AudioSender]:
        """A stream to feed. `dtype` of the samples: int16 or float32. `pace`: live, as time goes, or free, as fast as
        the service has room for it: for recordings. Raises ServiceError: refused, now or for good.
        """
        formats = {"int16": "s16le", "float32": "f32le"}
        if dtype not in formats:
            raise ValueError(f"dtype: found {dtype!r}, wanted int16 or float32")
        query = {"stream": stream, "rate": rate, "format": formats[dtype], "channels": channels, "channel": channel}
        query |= {"models": ",".join(models) if models is not None else None, "scores": int(scores)}
        query |= {"pace": pace if pace != "live" else None}
        sender = AudioSender(lambda: self._connect("/v1/audio", query), np.dtype(dtype), rate, channels)
        try:
            await sender.open()
            yield sender
        finally:
            connection = await sender.close()
            if connection is not None:
                self._open.discard(connection)


def _said(response: Response) -> str:
    """Why a connection was refused, as its HTTP answer has it."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return f": {json.loads(response.body or b'')['message']}"
    return ""
