"""Those who follow the log live: a bounded queue each, in the asyncio loop's thread."""

from __future__ import annotations

import asyncio
from collections import deque

from kws_serve.messages import Detection, Hole
from kws_serve.sinks.filter import Filter
from kws_serve.sinks.telling import Telling

QUEUE_MESSAGES = 1024
QUEUE_BYTES = 1 << 20
"""What a subscriber may leave unread: two parts of a replay, and 1 GiB of memory for a thousand that read nothing."""


class Subscriber:
    """A queue of one listener, bounded: past 1024 messages or 1 MiB it is slow, and gets nothing more."""

    def __init__(self, wanted: Filter, last_id: int, telling: Telling) -> None:
        """`last_id`: what came before is not this subscriber's; `telling`: what it was told of that."""
        self.wanted = wanted
        self.slow = False
        self.last_id = last_id
        self._telling = telling
        self._queue: deque[tuple[int, str] | Hole] = deque()
        self._bytes = 0
        self._some = asyncio.Event()

    def offer(self, detection: Detection, text: str) -> None:
        """Queue a message."""
        if self.slow or detection.id <= self.last_id or not self.wanted.takes(detection):
            return
        self._put((detection.id, text), len(text))

    def offer_hole(self, hole: Hole) -> None:
        """Queue what the log will never have."""
        if not self.slow and self.wanted.takes_hole(hole):
            self._put(hole, 0)

    def _put(self, item: tuple[int, str] | Hole, n_bytes: int) -> None:
        if len(self._queue) >= QUEUE_MESSAGES or self._bytes + n_bytes > QUEUE_BYTES:
            self.slow = True
        else:
            self._queue.append(item)
            self._bytes += n_bytes
        self._some.set()

    async def take(self) -> list[str] | None:
        """The next messages, perhaps none; None once the subscriber is slow and its queue is empty."""
        while not self._queue:
            if self.slow:
                return None
            self._some.clear()
            await self._some.wait()
        item = self._queue.popleft()
        self._bytes -= 0 if isinstance(item, Hole) else len(item[1])
        return self._telling.tell([item])
