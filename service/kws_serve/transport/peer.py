"""What HTTP and WebSocket connections have in common: who is at the other end, and a deadline for a peer that does not
read.

uvicorn itself waits for ever for a peer whose window is shut.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

UNREAD_S = 8.0
"""How long a peer may leave a full send buffer unread."""

LINGER_S = 1.0
"""After a close that the peer is told of while it may still be sending: closed at once, it would get a reset only."""

open_connections: Counter[str] = Counter()


class Reading:
    """Drops a peer that does not read."""

    transport: Any
    loop: asyncio.AbstractEventLoop
    _peer: str | None = None  # as it was counted; None: it was not
    _unread: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """The client does not read: from now on it has a deadline."""
        super().pause_writing()  # type: ignore[misc]
        if self._unread is None:
            self._unread = self.loop.call_later(UNREAD_S, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again: its deadline is forgotten."""
        super().resume_writing()  # type: ignore[misc]
        self._forget_unread()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, and with it what is kept of it."""
        self._forget_unread()
        if self._peer is not None:
            open_connections[self._peer] -= 1
            if open_connections[self._peer] <= 0:
                del open_connections[self._peer]
            self._peer = None
        super().connection_lost(exc)  # type: ignore[misc]

    def _forget_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


def linger(protocol: Any) -> asyncio.TimerHandle:
    """Say no more, read no more, and close soon: what was said last can be read until then."""
    transport = protocol.transport
    if transport.can_write_eof():
        transport.write_eof()
    transport.pause_reading()
    handle: asyncio.TimerHandle = protocol.loop.call_later(LINGER_S, transport.abort)
    return handle
