"""Those who follow the log live: a bounded queue each, in the asyncio loop's thread."""

from __future__ import annotations

import asyncio
from collections import deque

from kws_serve.messages import Detection
from kws_serve.sinks.filter import Filter

QUEUE_MESSAGES = 1024
QUEUE_BYTES = 1 << 20
"""What a subscriber may leave unread: two parts of a replay, and 1 GiB of memory for a thousand that read nothing."""


class Subscriber:
    """A queue of one listener, bounded: past 1024 messages or 1 MiB it is slow, and gets nothing more."""

    def __init__(self, wanted: Filter, last_id: int) -> None:
        """`last_id`: what came before is not this subscriber's."""
        self.wanted = wanted
        self.slow = False
        self.last_id = last_id  # of what was taken out, or seen and not wanted
        self._queue: deque[tuple[int, str]] = deque()
        self._bytes = 0
        self._some = asyncio.Event()

    def offer(self, detection: Detection, text: str) -> None:
        """Queue a message."""
        if self.slow or detection.id <= self.last_id or not self.wanted.takes(detection):
            return
        self.put(detection.id, text)

    def put(self, last_id: int, text: str) -> None:
        """Queue a message that tells of ids up to `last_id`."""
        if self.slow:
            return
        if len(self._queue) >= QUEUE_MESSAGES or self._bytes + len(text) > QUEUE_BYTES:
            self.slow = True
        else:
            self._queue.append((last_id, text))
            self._bytes += len(text)
        self._some.set()

    async def take(self) -> str | None:
        """The next message; None once the subscriber is slow and its queue is empty."""
        while not self._queue:
            if self.slow:
                return None
            self._some.clear()
            await self._some.wait()
        self.last_id, text = self._queue.popleft()
        self._bytes -= len(text)
        return text
