"""The bounded in-memory log of detections and its subscribers.

The engine's thread publishes; subscribers live in the asyncio loop. Ids are contiguous from 1, and a subscriber that
asks for what is after an id is registered under the same lock that read the log: no hole, no duplicate.
A durable log will stand in this place; until then every detection says `durable: false`.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil

from kws_serve.api.wire import detection_json, dumps
from kws_serve.messages import Detection, Event

KEPT = 10_000
QUEUE_MESSAGES = 1024
QUEUE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Filter:
    """Which detections a subscriber wants; empty: all."""

    stream: str | None = None
    label: str | None = None

    def takes(self, detection: Detection) -> bool:
        """Whether `detection` is wanted."""
        return self.stream in (None, detection.stream) and self.label in (None, detection.label)


class Subscriber:
    """A queue of one listener, bounded: past 1024 messages or 1 MiB it is slow, and gets nothing more."""

    def __init__(self, wanted: Filter) -> None:
        self.wanted = wanted
        self.slow = False
        self.last_id = 0  # of what was taken out
        self._queue: deque[tuple[int, str]] = deque()
        self._bytes = 0
        self._some = asyncio.Event()

    def offer(self, detection: Detection, text: str) -> None:
        """Queue a message. In the loop's thread."""
        if self.slow or not self.wanted.takes(detection):
            return
        if len(self._queue) >= QUEUE_MESSAGES or self._bytes + len(text) > QUEUE_BYTES:
            self.slow = True
        else:
            self._queue.append((detection.id, text))
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


class History:
    """See the module."""

    def __init__(self, kept: int = KEPT) -> None:
        self.log_id = secrets.token_hex(8)
        self._items: deque[Detection] = deque(maxlen=kept)
        self._last_id = 0
        self._on: dict[tuple[str, str, str, str], int] = {}  # open events -> id of their start
        self._subscribers: set[Subscriber] = set()
        self._listeners: dict[tuple[str, str], Callable[[list[Event]], None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self.counts: dict[tuple[str, str], int] = {}  # (model, label) -> detections
        self._latencies_ms: dict[int, int] = {}  # whole ms, rounded up -> detections
        self._latency_sum_s = 0.0

    @property
    def last_id(self) -> int:
        """The newest id; 0 before the first."""
        return self._last_id

    @property
    def subscribers(self) -> int:
        """How many listen."""
        return len(self._subscribers)

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """The loop in which subscribers live."""
        self._loop = loop

    def publish(self, events: list[Event]) -> None:
        """Give ids, keep, and hand on. Any one thread."""
        numbered: list[Event] = []
        with self._lock:
            for event in events:
                if isinstance(event, Detection):
                    event = self._keep(event)
                numbered.append(event)
        loop = self._loop
        if loop is not None and not loop.is_closed() and (self._subscribers or self._listeners):
            loop.call_soon_threadsafe(self._deliver, numbered)

    def _keep(self, detection: Detection) -> Detection:
        self._last_id += 1
        key = (detection.stream, detection.epoch, detection.model, detection.label)
        start_id = self._on.pop(key, None) if detection.phase == "end" else None
        if detection.phase == "start":
            self._on[key] = self._last_id
        kept = replace(detection, id=self._last_id, start_id=start_id)
        self._items.append(kept)
        counted = (kept.model, kept.label)
        self.counts[counted] = self.counts.get(counted, 0) + (kept.phase != "end")
        if kept.latency_ms is not None:
            ms = ceil(kept.latency_ms)
            self._latencies_ms[min(ms, 10_000)] = self._latencies_ms.get(min(ms, 10_000), 0) + 1
            self._latency_sum_s += kept.latency_ms / 1000
        return kept

    def latency_buckets(self, upto_s: Sequence[float]) -> tuple[list[int], float, int]:
        """Detections with a latency of at most each of `upto_s`; the sum of all in s; how many. Any thread."""
        with self._lock:
            counts, total = dict(self._latencies_ms), self._latency_sum_s
        return [sum(n for ms, n in counts.items() if ms <= s * 1000) for s in upto_s], total, sum(counts.values())

    def _deliver(self, events: Sequence[Event]) -> None:
        by_stream: dict[tuple[str, str], list[Event]] = {}
        for event in events:
            by_stream.setdefault((event.stream, event.epoch), []).append(event)
            if isinstance(event, Detection) and self._subscribers:
                text = dumps(detection_json(event))
                for subscriber in self._subscribers:
                    if event.id > subscriber.last_id:
                        subscriber.offer(event, text)
        for key, mine in by_stream.items():
            listener = self._listeners.get(key)
            if listener is not None:
                listener(mine)

    def listen(self, stream: str, epoch: str, listener: Callable[[list[Event]], None]) -> None:
        """Hand this stream's events to `listener`, in the loop's thread."""
        self._listeners[stream, epoch] = listener

    def unlisten(self, stream: str, epoch: str) -> None:
        """Stop it."""
        self._listeners.pop((stream, epoch), None)

    def subscribe(
        self, wanted: Filter, after: int | None
    ) -> tuple[Subscriber, list[Detection], tuple[int, int] | None]:
        """A live subscriber, what the log keeps after `after` (None: nothing), and ids (from, to) it no longer keeps.

        In the loop's thread.
        """
        subscriber = Subscriber(wanted)
        with self._lock:
            items = [] if after is None else [d for d in self._items if d.id > after]
            subscriber.last_id = self._last_id
            self._subscribers.add(subscriber)
            first = self._items[0].id if self._items else self._last_id + 1
        lost = (after + 1, first - 1) if after is not None and after + 1 < first else None
        return subscriber, [d for d in items if wanted.takes(d)], lost

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Forget it."""
        self._subscribers.discard(subscriber)

    def page(self, wanted: Filter, after: int, limit: int) -> tuple[list[Detection], int]:
        """Up to `limit` detections after id `after`, and the id to go on from."""
        with self._lock:
            items: Iterable[Detection] = list(self._items)
            last = self._last_id
        found = []
        for detection in items:
            if detection.id > after and wanted.takes(detection):
                found.append(detection)
                if len(found) == limit:
                    return found, detection.id
        return found, max(after, last) if after <= last else after
