"""The event log: what the rest of the service knows of it. Its parts, a module each:

writer      the thread that gives ids and commits        reader     pages, exports, replays
numbering   the next id, none twice                      latency    how many, how long they took
positions   where streams are, for a restart             expiry     what is forgotten, and when
waiting     what the disk has not taken yet              store      the file
delivery    who is told, after the commit or at once     telling     what of it, where a token is of some streams
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kws_serve.messages import Detection, Event, JsonObject, StreamDone
from kws_serve.sinks.delivery import Delivery
from kws_serve.sinks.expiry import Expiry, Retention
from kws_serve.sinks.filter import Filter, Logged, Review
from kws_serve.sinks.latency import Latency
from kws_serve.sinks.positions import Positions
from kws_serve.sinks.reader import REPLAY_ROWS, Reader
from kws_serve.sinks.store import Store
from kws_serve.sinks.subscribers import Subscriber
from kws_serve.sinks.telling import Telling
from kws_serve.sinks.waiting import Waiting
from kws_serve.sinks.writer import Writer


class EventLog:
    """Detections in, durable and with an id; told to those who follow, and kept for those who ask later."""

    def __init__(self, path: Path, keep: Retention = Retention()) -> None:  # noqa: B008 (frozen)
        """Open the log at `path`. Raises LogError: then nothing is held open."""
        self.store = Store(path)
        self.positions = Positions(self.store)
        self._expiry = Expiry(self.store, keep, time.time())
        self._waiting = Waiting()
        self._latency = Latency()
        self._delivery = Delivery()
        self._writer = Writer(self.store, self._expiry, self.positions, self._waiting, self._latency, self._delivery)
        self._reader = Reader(self.store.history, self._waiting, lambda: self._writer.last_id, self.newest_id)

    # state; any thread

    @property
    def log_id(self) -> str:
        """What this log is called: ids of another one mean something else."""
        return self.store.file.log_id

    @property
    def last_id(self) -> int:
        """The newest id; 0 before the first."""
        return self._writer.last_id

    @property
    def durable(self) -> bool:
        """Whether what comes now will be on the disk before it is pushed."""
        return self._writer.durable

    @property
    def fault(self) -> str:
        """Why commits fail; empty: they do not."""
        return self._writer.fault

    @property
    def alive(self) -> bool:
        """Whether the writer's thread runs."""
        return self._writer.alive

    @property
    def pending(self) -> int:
        """Detections that wait for the disk."""
        return len(self._waiting)

    @property
    def used_bytes(self) -> int:
        """The size of what the log holds; 0 where it cannot be told."""
        try:
            return self.store.space.used_bytes
        except sqlite3.Error:
            return 0

    @property
    def counts(self) -> dict[tuple[str, str], int]:
        """(model, label) -> detections since the service started."""
        return self._latency.counts

    def latency_buckets(self, upto_s: Sequence[float]) -> tuple[list[int], float, int]:
        """Detections with a latency of at most each of `upto_s`; the sum of all in s; how many."""
        return self._latency.buckets(upto_s)

    # writing

    def publish(self, events: Sequence[Event]) -> None:
        """Take events, in order; returns at once. Any one thread. Scores and gaps, which are not logged, are told at
        once; detections after their commit, and a stream's end after its detections.
        """
        passing = [e for e in events if not isinstance(e, Detection | StreamDone)]
        kept = [e for e in events if isinstance(e, Detection | StreamDone)]
        if passing:
            self._delivery.pass_on(passing)
        if kept:
            self._writer.publish(kept)

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything published is committed and handed on; False where that took too long."""
        return self._writer.flush(timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Commit what has come, then close the file; where that takes too long it is left open. Safe to call twice."""
        if self._writer.close(timeout_s):
            self.store.close()

    def review(self, id: int, mark: Review | None) -> bool:
        """Mark a detection; False where the log has no such id. Raises sqlite3.Error: then the mark is as it was."""
        return self._writer.do(lambda: self.store.review(id, mark))

    def save_overrides(self, model: str, settings: JsonObject, stream: str | None = None) -> None:
        """Keep detector settings, of `stream` or for all, for the next start. Raises sqlite3.Error: then it finds those
        of before.
        """
        self._writer.do(lambda: self.store.save_overrides(model, settings, stream))

    # telling

    @property
    def on_commit(self) -> Callable[[list[Detection]], None]:
        """Told each detection after its commit, in order, in the log's thread: it must only queue."""
        return self._delivery.on_commit

    @on_commit.setter
    def on_commit(self, told: Callable[[list[Detection]], None]) -> None:
        self._delivery.on_commit = told

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """The loop in which subscribers and listeners live."""
        newest: dict[str, int] = {}
        with contextlib.suppress(sqlite3.Error):  # damage is noticed by then, and mended
            newest = self.store.history.newest_ids()
        self._delivery.bind(loop, self._writer.last_id, newest)

    def newest_id(self, streams: frozenset[str] | None) -> int:
        """The newest id that was handed on of these streams (None: of all); 0 before the first. Any thread."""
        return self._delivery.newest_id(streams)

    @property
    def delivered_id(self) -> int:
        """The newest id that was handed on. In the loop's thread, as all that follows."""
        return self._delivery.delivered_id

    def listen(self, stream: str, epoch: str, listener: Callable[[list[Event]], None]) -> None:
        """Hand this stream's events to `listener`: scores and gaps at once, detections after their commit."""
        self._delivery.listen(stream, epoch, listener)

    def unlisten(self, stream: str, epoch: str) -> None:
        """Stop it."""
        self._delivery.unlisten(stream, epoch)

    def subscribe(self, wanted: Filter, telling: Telling | None = None) -> Subscriber:
        """A live subscriber: gets everything after its `last_id`; `telling`: as `replay` has told what is before."""
        return self._delivery.subscribe(wanted, telling)

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Forget it."""
        self._delivery.unsubscribe(subscriber)

    # reading; any thread; raises sqlite3.Error where the file cannot be read

    def start_after(self, streams: frozenset[str] | None, after: int, log_id: str | None) -> tuple[int, bool]:
        """The id that one who may hear `streams` (None: all) and has those of log `log_id` (None: not told) up to
        `after` goes on from, and whether that is 0 because these are another log's.
        """
        reset = log_id not in (None, self.log_id) or self._reader.of_another_log(streams, after)
        return (0 if reset else after), reset

    def replay(
        self, wanted: Filter, after: int, upto: int, rows: int = REPLAY_ROWS, telling: Telling | None = None
    ) -> tuple[list[str], int]:
        """The next messages about ids in (after, upto], and the id they reach. `telling`: the same for all parts."""
        return self._reader.replay(wanted, after, upto, rows, telling)

    def page(self, wanted: Filter, after: int, limit: int, upto: int | None = None) -> tuple[list[Logged], int]:
        """Up to `limit` wanted detections after id `after`, to `upto` at most, and the id to go on from."""
        return self._reader.page(wanted, after, limit, upto)

    def page_before(self, wanted: Filter, before: int, limit: int) -> tuple[list[Logged], int]:
        """Up to `limit` wanted detections before id `before`, newest first, and the id to go on from; 0: no more."""
        return self._reader.page_before(wanted, before, limit)

    def find(self, id: int) -> Logged | None:
        """The detection of this id, where it is still kept."""
        return self._reader.find(id)

    def earlier_streams(self) -> dict[str, dict[str, int]]:
        """Streams whose clients may come back: name -> epoch -> next sample to process."""
        return self.store.history.streams()

    def stream_owners(self) -> dict[str, set[str]]:
        """Name -> whose they are, of the same streams; see Position."""
        return self.store.history.owners()

    def decided(self, stream: str, epoch: str) -> dict[tuple[str, str], float]:
        """(model, label) -> `decided_s` of its last detection in this stream."""
        return self.store.history.decided(stream, epoch)

    def overrides(self) -> dict[str, JsonObject]:
        """Model -> detector settings for all streams kept by an earlier run."""
        return self.store.history.overrides()

    def stream_overrides(self) -> list[tuple[str, str, JsonObject]]:
        """(stream, model, detector settings) kept by an earlier run."""
        return self.store.history.stream_overrides()
