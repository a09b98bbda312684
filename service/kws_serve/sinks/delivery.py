"""Who is told what, and when: detections after their commit, what is not logged at once.

```text
 engine's thread   scores, gaps ──────────────────────────────────┐
                                                                  ├─> server's loop: the stream's own client (listen)
 log's thread      detections, the end of a stream ── commit ─────┤                  subscribers (detections alone)
                                                                  └─> on_commit (detections alone)
```

Each of the two ways keeps its order; between them there is none: scores or a gap may arrive before a detection that was
decided earlier, whose commit takes longer. All three carry their samples. The end of a stream goes the long way, after
its last detection; what goes the short way was told before that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from kws_serve.messages import Detection, Event, Gap, Hole, ScoresRow, StreamDone
from kws_serve.sinks.filter import Filter
from kws_serve.sinks.subscribers import Subscriber
from kws_serve.sinks.telling import Telling
from kws_serve.wire import detection_json, dumps


class Delivery:
    """From the threads of log and engine to the server's loop, in which subscribers and listeners live."""

    def __init__(self) -> None:
        self.on_commit: Callable[[list[Detection]], None] = lambda _: None
        """In the log's thread, which waits for it: it must only queue."""
        self.delivered_id = 0  # the newest id that was handed on; in the loop's thread
        self._delivered_of: dict[str, int] = {}  # the same of each stream
        self._subscribers: set[Subscriber] = set()
        self._listeners: dict[tuple[str, str], Callable[[list[Event]], None]] = {}  # (stream, epoch) -> its client
        self._loop: asyncio.AbstractEventLoop | None = None

    def bind(self, loop: asyncio.AbstractEventLoop, last_id: int, last_of: dict[str, int]) -> None:
        """The loop, and the newest id of what was there before, of all and of each stream."""
        self.delivered_id = last_id
        self._delivered_of = last_of
        self._loop = loop

    def pass_on(self, events: Sequence[ScoresRow | Gap]) -> None:
        """Tell what is not logged, at once. In the engine's thread; waits for nothing."""
        self._in_loop(events)

    def committed(self, events: Sequence[Detection | StreamDone | Hole]) -> None:
        """Tell detections, `durable` or not, ids that have none, and streams that have ended. In the log's thread."""
        self._in_loop(events)
        if detections := [e for e in events if isinstance(e, Detection)]:
            self.on_commit(detections)

    def newest_id(self, streams: frozenset[str] | None) -> int:
        """The newest id that was handed on of these streams (None: of all); 0 before the first. Any thread."""
        return self.delivered_id if streams is None else max((self._delivered_of.get(s, 0) for s in streams), default=0)

    def _in_loop(self, events: Sequence[Event | Hole]) -> None:
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._tell, events)
            except RuntimeError:  # closed: nobody listens any more
                self._loop = None

    def _tell(self, events: Sequence[Event | Hole]) -> None:
        by_stream: dict[tuple[str, str], list[Event]] = {}
        for event in events:
            if isinstance(event, Hole):
                self.delivered_id = event.last
                self._delivered_of |= event.streams or {}
                for subscriber in self._subscribers:
                    subscriber.offer_hole(event)
                continue
            by_stream.setdefault((event.stream, event.epoch), []).append(event)
            if isinstance(event, Detection):
                self.delivered_id = self._delivered_of[event.stream] = event.id
                if self._subscribers:
                    text = dumps(detection_json(event))
                    for subscriber in self._subscribers:
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

    def subscribe(self, wanted: Filter, telling: Telling | None = None) -> Subscriber:
        """A live subscriber: gets everything after its `last_id`; `telling` as it was told of what is before. In the
        loop's thread.
        """
        told = telling or Telling(wanted, self.newest_id(wanted.streams))
        subscriber = Subscriber(wanted, self.delivered_id, told)
        self._subscribers.add(subscriber)
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Forget it."""
        self._subscribers.discard(subscriber)
