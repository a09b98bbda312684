"""Other servers, watched: who is up, who uses it, when it was last seen. A server that goes down is told at once."""

from __future__ import annotations

import http.client
import json
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

from kws_serve.messages import JsonObject, KwsError

_log = logging.getLogger(__name__)

POLL_S = 2.0
TIMEOUT_S = 2.0
MISSED = 3
"""Polls in a row without an answer: OFF."""

_MOST_BYTES = 4 << 20


class StatusError(KwsError):
    """A server that does not answer as kws-serve does."""


def get_json(url: str, path: str, token: str | None) -> Any:
    """What `url` answers to GET `path`; redirects are not followed. Raises StatusError in a few words."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with closing(kind(parts.hostname or "", parts.port, timeout=TIMEOUT_S)) as connection:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            body = answer.read(_MOST_BYTES)
    except (OSError, http.client.HTTPException) as e:
        raise StatusError(getattr(e, "strerror", None) or str(e) or type(e).__name__) from None
    if answer.status != 200:
        why = {401: "it wants a token", 403: "it refuses this token"}.get(answer.status, "")
        raise StatusError(f"HTTP {answer.status}" + (f": {why}" if why else ""))
    try:
        return json.loads(body)
    except ValueError:
        raise StatusError("found no JSON, wanted kws-serve") from None


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
        """Ask it; whether its state has changed."""
        before = self.row["state"]
        try:
            self.row = {**self.row, **_row(get_json(self.url, "/v1/status", self._token))}
            self._missed = 0
        except StatusError as e:
            self._missed += 1
            state = "OFF" if self._missed >= MISSED else before
            self.row = {**self.row, "state": state, "detail": str(e)}
        return bool(self.row["state"] != before)


def _row(status: Any) -> JsonObject:
    """Raises StatusError where that is no status of kws-serve."""
    try:
        texts = {key: str(status[key]) for key in ("name", "device", "user", "note", "last_seen")}
        numbers = {"load": float(status["load"]), "streams": len(status["streams"])}
        fault = "" if status["ready"] else "not ready"
        return {**texts, **numbers, "state": "ON", "detail": fault}
    except (KeyError, TypeError, ValueError):
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
