"""When to try again, and how long to wait before it: what the ways to a connection's end mean."""

from __future__ import annotations

import asyncio
import random

from websockets.asyncio.client import ClientConnection

from kws_serve.messages import KwsError

_FIRST_RETRY_S, _LAST_RETRY_S = 0.25, 10.0

FINAL = frozenset({4400, 4401, 4403})
"""Close codes that another try would meet again."""

_TOO_MUCH = 1008  # close code: too much that is not audio
_REFUSED = 4400  # the service's own close codes begin here


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
        if not sent_away(code):
            self._wait_s = _FIRST_RETRY_S


def sent_away(code: int | None) -> bool:
    """Whether a connection with this close code was ended by the service for what its client did or wanted."""
    return code == _TOO_MUCH or (code or 0) >= _REFUSED


def refusal(connection: ClientConnection) -> ServiceError:
    """What a closed connection was closed with."""
    return ServiceError(connection.close_code or 1006, connection.close_reason or "the connection is gone")
