"""Other servers, watched: who is up, who uses it, when it was last seen. A server that goes down is told at once."""

from __future__ import annotations

import http.client
import io
import json
import logging
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, NoReturn
from urllib.parse import SplitResult, urlsplit

from kws_serve.messages import JsonObject, KwsError

_log = logging.getLogger(__name__)

POLL_S = 2.0
TIMEOUT_S = 2.0
"""From the question to the answer's last byte, in s: all addresses of the name, TLS and headers included."""

MISSED = 3
"""Polls in a row without an answer: OFF."""

MOST_BYTES = 64 * 1024
"""Of one answer, headers included, in bytes: a server's row has 0.5 kB, and it sends one for each that it watches."""

_MOST_STREAMS = 1 << 53  # what the page counts exactly


class StatusError(KwsError):
    """A server that does not answer as kws-serve does."""


def get_json(url: str, path: str, token: str | None, context: ssl.SSLContext | None = None) -> Any:
    """What `url` answers to GET `path`, all of it within TIMEOUT_S; redirects are not followed. `context`: of TLS,
    where the certificate is not verified as usual.

    Raises StatusError in a few words.
    """
    parts = urlsplit(url)
    deadline_s = time.monotonic() + TIMEOUT_S
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with closing(kind(parts.hostname or "", parts.port)) as connection:
            connection.sock = _connected(parts, deadline_s, context or ssl.create_default_context())
            connection.request("GET", parts.path.rstrip("/") + path, headers=headers)
            answer = _Answer(connection.sock, deadline_s)
            answer.begin()
            body = answer.read()
    except (OSError, http.client.HTTPException) as e:
        raise StatusError(getattr(e, "strerror", None) or str(e) or type(e).__name__) from None
    if answer.status != 200:
        why = {401: "it wants a token", 403: "it refuses this token"}.get(answer.status, "")
        raise StatusError(f"HTTP {answer.status}" + (f": {why}" if why else ""))
    try:
        return json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise StatusError("found no JSON, wanted kws-serve") from None


def _refuse(constant: str) -> NoReturn:
    """NaN and the infinities are no JSON, though Python reads them."""
    raise ValueError(constant)


def _connected(parts: SplitResult, deadline_s: float, context: ssl.SSLContext) -> socket.socket:
    """A socket to the first address of the URL's host that takes it. Raises OSError."""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    fault = OSError("no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(_left_s(deadline_s))
            connection.connect(address)
            if parts.scheme != "https":
                return connection
            connection.settimeout(_left_s(deadline_s))
            return context.wrap_socket(connection, server_hostname=parts.hostname)
        except OSError as e:
            fault = e
            connection.close()
    raise fault


def _left_s(deadline_s: float) -> float:
    """Until the deadline, in s, above 0. Raises TimeoutError."""
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("timed out")
    return left_s


class _Answer(http.client.HTTPResponse):
    """An HTTP answer that has to be there, all of it, at a deadline."""

    def __init__(self, connection: socket.socket, deadline_s: float) -> None:
        super().__init__(connection, method="GET")
        self.fp.close()
        self.fp = io.BufferedReader(_Bytes(connection, deadline_s))


class _Bytes(io.RawIOBase):
    """What comes from a socket until a deadline, MOST_BYTES at most.

    A socket's own timeout would begin anew with each byte.
    """

    def __init__(self, connection: socket.socket, deadline_s: float) -> None:
        self._connection = connection
        self._deadline_s = deadline_s
        self._left = MOST_BYTES

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, into: Any) -> int:
        """Some bytes into the buffer; 0 at the end. Raises TimeoutError, StatusError: too many."""
        self._connection.settimeout(_left_s(self._deadline_s))
        n = self._connection.recv_into(into)
        self._left -= n
        if self._left < 0:
            raise StatusError(f"found more than {MOST_BYTES} bytes, wanted a status")
        return n


class Watched:
    """One other server."""

    def __init__(self, url: str, token: str | None) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._missed = MISSED  # until it is seen
        name = urlsplit(self.url).netloc  # what it listens on may be 0.0.0.0
        self.row: JsonObject = {"name": name, "address": name, "device": "", "user": "", "note": ""}
        self.row |= {"load": None, "streams": None, "state": "OFF", "last_seen": None}
        self.row |= {"url": f"{self.url}/", "detail": "not seen yet"}

    def poll(self) -> bool:
        """Ask it; whether its state has changed. Whatever goes wrong is a miss."""
        before = self.row["state"]
        try:
            self.row = {**self.row, **_row(get_json(self.url, "/v1/servers", self._token))}
            self._missed = 0
        except Exception as e:
            why = str(e) or type(e).__name__
            if not isinstance(e, StatusError) and why != self.row["detail"]:  # once, not at each poll
                _log.exception("watching %s failed", self.url)
            self._missed += 1
            state = "OFF" if self._missed >= MISSED else before
            self.row = {**self.row, "state": state, "detail": why}
        return bool(self.row["state"] != before)


def _row(answer: Any) -> JsonObject:
    """Of its list of servers, which has no more of its streams than their number, the first: itself.

    Raises StatusError where that is no status of kws-serve, or one that our own answers could not tell on.
    """
    try:
        own = answer["items"][0]
        texts = {key: own[key] for key in ("name", "device", "user", "note", "last_seen", "detail")}
        for text in texts.values():
            text.encode()  # a lone surrogate cannot be
        numbers = {"load": float(own["load"]), "streams": int(own["streams"])}
        if not math.isfinite(numbers["load"]) or not 0 <= numbers["streams"] <= _MOST_STREAMS:
            raise ValueError
        return {**texts, **numbers, "state": "ON"}
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError):
        raise StatusError("found no status, wanted that of kws-serve") from None


class Watch:
    """All watched servers, each asked in turn every POLL_S by a thread of its own, so that a dead one delays none."""

    def __init__(self, urls: Sequence[str], tokens: Sequence[str], on_change: Callable[[JsonObject], None]) -> None:
        """`tokens`: none, one for all, or one each."""
        each = [*tokens] if len(tokens) == len(urls) else [next(iter(tokens), None)] * len(urls)
        self._servers = [Watched(url, token) for url, token in zip(urls, each, strict=True)]
        self._on_change = on_change
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begin to ask."""
        for server in self._servers:
            threading.Thread(target=self._run, args=(server,), name="watch", daemon=True).start()

    def stop(self) -> None:
        """Ask no more."""
        self._stopping.set()

    def rows(self) -> list[JsonObject]:
        """A row each, in the order given. Any thread."""
        return [server.row for server in self._servers]

    def _run(self, server: Watched) -> None:
        while True:
            try:
                if server.poll():
                    self._on_change(server.row)
            except Exception:
                _log.exception("watching %s failed", server.url)
            if self._stopping.wait(POLL_S):
                return
