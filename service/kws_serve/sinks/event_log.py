"""The event log: ids, commit before push, subscribers; and what happens when the disk takes no more.

The engine's thread publishes; a writer thread commits all that has come meanwhile in one transaction and only then
hands it on. Nothing waits for company: a commit lasts a few milliseconds, and what arrives during one shares the next.

Where a commit fails (disk full, disk gone) detections go on, flagged `durable: false`; the last PENDING of them are
written when the disk takes writes again, the rest become `log_gap`s. No id is ever given twice, not even after a crash
in that state: see Store.mark_all_logged.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import TypeVar

from kws_serve.messages import Detection, Event, Hole, JsonObject
from kws_serve.sinks.expiry import Expiry
from kws_serve.sinks.store import Filter, Logged, Retention, Review, Store
from kws_serve.sinks.subscribers import Subscriber
from kws_serve.wire import detection_json, dumps, hole_json

_log = logging.getLogger(__name__)

PENDING = 10_000
"""Detections kept in memory while the disk takes none."""

RECOVER_S = 1.0
HEARD_S = 5.0
NOTE_S = 0.25
"""How often positions are noted: of all streams, and of those that have just begun or gone."""
EXPIRE_S = 60.0
STALLED_S = 5.0
"""A commit that lasts longer means that the disk is not well: not ready."""

REPLAY_ROWS = 500

_Result = TypeVar("_Result")


class EventLog:
    """See the module."""

    def __init__(self, path: Path, keep: Retention = Retention()) -> None:  # noqa: B008 (frozen)
        """Open the log at `path`. Raises LogError."""
        self.store = Store(path)
        self._expiry = Expiry(self.store, keep, time.time())
        self.fault = ""  # why commits fail; empty: they do not
        self.on_commit: Callable[[list[Event]], None] = lambda _: None
        self.positions: Callable[[Collection[str] | None], Iterable[tuple[str, str, int]]] = lambda _: ()
        self.counts: dict[tuple[str, str], int] = {}  # (model, label) -> detections
        self._last_id = self.store.last_id
        self._delivered_id = self._last_id
        self._on: dict[tuple[str, str, str, str], int] = {}  # open events -> id of their start
        self._pending: deque[Detection] = deque()  # given ids, not yet in the file
        self._lost: list[Hole] = []  # given ids that never will be
        self._latencies_ms: dict[int, int] = {}  # whole ms, rounded up -> detections
        self._latency_sum_s = 0.0
        self._subscribers: set[Subscriber] = set()
        self._listeners: dict[tuple[str, str], Callable[[list[Event]], None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inbox: list[Event] = []
        self._jobs: deque[tuple[Callable[[], object], Future[object]]] = deque()
        self._wake = threading.Condition()
        self._read_lock = threading.Lock()  # of what the writer changes and others read
        self._idle = True
        self._stopping = False
        self._busy_since_s: float | None = None
        self._heard: dict[tuple[str, str], int] = {}
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    # state

    @property
    def log_id(self) -> str:
        """What this log is called: ids of another one mean something else."""
        return self.store.log_id

    @property
    def last_id(self) -> int:
        """The newest id; 0 before the first."""
        return self._last_id

    @property
    def subscribers(self) -> int:
        """How many listen."""
        return len(self._subscribers)

    @property
    def durable(self) -> bool:
        """Whether what comes now will be on the disk before it is pushed."""
        busy_since_s = self._busy_since_s
        stalled = busy_since_s is not None and time.monotonic() - busy_since_s > STALLED_S
        return not self.fault and not stalled and self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether the writer's thread runs."""
        return self._thread.is_alive()

    @property
    def pending(self) -> int:
        """Detections that wait for the disk."""
        return len(self._pending)

    @property
    def used_bytes(self) -> int:
        """The size of what the log holds; 0 where it cannot be told."""
        try:
            return self.store.used_bytes
        except sqlite3.Error:
            return 0

    def latency_buckets(self, upto_s: Sequence[float]) -> tuple[list[int], float, int]:
        """Detections with a latency of at most each of `upto_s`; the sum of all in s; how many. Any thread."""
        with self._read_lock:
            counts, total = dict(self._latencies_ms), self._latency_sum_s
        return [sum(n for ms, n in counts.items() if ms <= s * 1000) for s in upto_s], total, sum(counts.values())

    # writing

    def publish(self, events: list[Event]) -> None:
        """Take events, in order; returns at once. Any one thread."""
        with self._wake:
            self._inbox += events
            self._idle = False
            self._wake.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything published is committed and handed on; False where that took too long."""
        with self._wake:
            return self._wake.wait_for(lambda: self._idle, timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Commit what has come, then close the file. Safe to call twice."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            self.store.close()

    def review(self, id: int, mark: Review | None) -> bool:
        """Mark a detection; False where the log has no such id. Raises sqlite3.Error."""
        return self._written(lambda: self.store.review(id, mark))

    def save_overrides(self, model: str, settings: JsonObject) -> None:
        """Keep detector settings for the next start. Raises sqlite3.Error."""
        self._written(lambda: self.store.save_overrides(model, settings))

    def _written(self, job: Callable[[], _Result]) -> _Result:
        """The result of `job`, run by the writer thread."""
        done: Future[object] = Future()
        with self._wake:
            self._jobs.append((job, done))
            self._wake.notify_all()
        return done.result(timeout=30)  # type: ignore[return-value]

    def _run(self) -> None:
        began_s = time.monotonic()
        next_heard_s = next_note_s = next_expire_s = next_recover_s = 0.0
        while True:
            with self._wake:
                if not self._inbox and not self._jobs:
                    self._idle = True
                    self._wake.notify_all()
                    if self._stopping:
                        break
                    self._wake.wait(RECOVER_S)
                batch, self._inbox = self._inbox, []
                jobs, self._jobs = self._jobs, deque()
            self._busy_since_s = now_s = time.monotonic()
            try:
                if self.fault and now_s >= next_recover_s:
                    next_recover_s = now_s + RECOVER_S
                    self._recover()
                if batch:
                    self._commit(batch)
                for job, done in jobs:
                    _do(job, done)
                if now_s >= next_note_s:
                    next_note_s = now_s + NOTE_S
                    self._note_heard(all_moved=now_s >= next_heard_s)
                    if now_s >= next_heard_s:
                        young = now_s - began_s < 2 * HEARD_S  # it may be one of many short lives
                        next_heard_s = now_s + (NOTE_S if young else HEARD_S)
                if now_s >= next_expire_s and not self.fault:
                    next_expire_s = now_s + EXPIRE_S
                    self._expiry.look(time.time(), time.monotonic())
                    self.store.keep_reserve()
            except Exception:  # a fault of ours must not stop the log
                _log.exception("the event log's writer failed")
            self._busy_since_s = None
        self._recover()
        self._note_heard()

    def _commit(self, batch: list[Event]) -> None:
        """Give ids, commit, hand on."""
        found = [e for e in batch if isinstance(e, Detection)]
        numbered: dict[int, Detection | None] = {}
        if found:
            numbered = self._numbered(found)
            new = [d for d in numbered.values() if d is not None]
            if new and not self.fault:
                try:
                    self.store.append(new, heard=self._heard_of(new))
                except (sqlite3.Error, OSError) as e:
                    self._fail(e)
            if self.fault:
                numbered = {k: d and replace(d, durable=False) for k, d in numbered.items()}
                self._keep_pending([d for d in numbered.values() if d is not None])
        now_s = time.monotonic()
        events: list[Event] = []
        for event in batch:
            if not isinstance(event, Detection):
                events.append(event)
            elif (d := numbered[id(event)]) is not None:
                events.append(self._counted(d, now_s))
        with self._read_lock:
            self._last_id = max([self._last_id, *(d.id for d in numbered.values() if d is not None)])
        self._hand_on(events)

    def _numbered(self, found: list[Detection]) -> dict[int, Detection | None]:
        """id(detection) -> the detection with its id, or None where the log has that very event already."""
        result: dict[int, Detection | None] = {}
        given = self._last_id
        seen = {d.uid for d in self._pending}
        for d in found:
            uid = d.uid
            if uid in seen or self._known(uid):
                result[id(d)] = None
                continue
            seen.add(uid)
            given += 1
            key = (d.stream, d.epoch, d.model, d.label)
            start_id = None
            if d.phase == "end":
                start_id = self._on.pop(key, None) or self._open_start(d)
            elif d.phase == "start":
                self._on[key] = given
            result[id(d)] = replace(d, id=given, start_id=start_id, durable=True)
        return result

    def _known(self, uid: str) -> bool:
        try:
            return self.store.knows(uid)
        except sqlite3.Error:
            return False

    def _open_start(self, d: Detection) -> int | None:
        try:
            return self.store.open_start(d)
        except sqlite3.Error:
            return None

    def _fail(self, error: Exception) -> None:
        """The disk takes no more: say so once, and note beside the log that ids are given that it does not have."""
        if not self.fault:
            _log.error("event log: %s; detections go on, durable: false", error)
        self.fault = str(error) or type(error).__name__
        self._heard.clear()  # what was to be noted with that commit
        try:
            self.store.mark_all_logged(False)
        except OSError as e:
            _log.error("event log: cannot note that ids are not logged (%s): a crash now may give them again", e)

    def _keep_pending(self, detections: list[Detection]) -> None:
        with self._read_lock:
            self._pending.extend(detections)
            while len(self._pending) > PENDING:
                id_ = self._pending.popleft().id
                if self._lost and self._lost[-1].last == id_ - 1:
                    self._lost[-1] = replace(self._lost[-1], last=id_)
                else:
                    self._lost.append(Hole(id_, id_, "not_durable"))

    def _recover(self) -> None:
        """Try to write what waits."""
        if not self.fault:
            return
        waiting, lost = list(self._pending), list(self._lost)
        try:
            self.store.append([replace(d, durable=True) for d in waiting], lost)
            self.store.mark_all_logged(True)
        except (sqlite3.Error, OSError) as e:
            self.fault = str(e) or type(e).__name__
            return
        with self._read_lock:
            self._pending.clear()
            self._lost.clear()
        self.fault = ""
        n = sum(h.last - h.first + 1 for h in lost)
        _log.warning("event log: writing again; %d detections written now, %d not kept", len(waiting), n)

    def _heard_of(self, detections: Sequence[Detection]) -> list[tuple[str, str, int]]:
        """Where the streams of these detections are: noted in the same commit, so that a stream that is resumed is
        known by the log that has its detections.
        """
        wanted = {(d.stream, d.epoch) for d in detections}
        found = [p for p in self.positions({name for name, _ in wanted}) if p[:2] in wanted]
        self._heard |= {(name, epoch): sample for name, epoch, sample in found}
        return found

    def _note_heard(self, *, all_moved: bool = True) -> None:
        """Note how far the streams of clients have got, for those who resume after a restart; new ones at once."""
        moved = {(name, epoch): sample for name, epoch, sample in self.positions(None)}
        old = self._heard
        new = {key: at for key, at in moved.items() if key not in old or (all_moved and old[key] != at)}
        gone = [key for key in old if key not in moved]
        if self.fault or not (new or gone):
            return
        try:
            self.store.heard([(*key, at) for key, at in new.items()], gone)
            self._heard = {key: at for key, at in {**old, **new}.items() if key in moved}
        except sqlite3.Error as e:
            _log.warning("event log: %s", e)

    # handing on

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """The loop in which subscribers live."""
        self._delivered_id = self._last_id
        self._loop = loop

    @property
    def delivered_id(self) -> int:
        """The newest id that was handed on. In the loop's thread."""
        return self._delivered_id

    def _counted(self, d: Detection, now_s: float) -> Detection:
        """With its latency, which ends here, after the commit."""
        latency_ms = None if d.arrived_s is None else 1000 * (now_s - d.arrived_s)
        with self._read_lock:
            counted = (d.model, d.label)
            self.counts[counted] = self.counts.get(counted, 0) + (d.phase != "end")
            if latency_ms is not None:
                ms = min(ceil(latency_ms), 10_000)
                self._latencies_ms[ms] = self._latencies_ms.get(ms, 0) + 1
                self._latency_sum_s += latency_ms / 1000
        return replace(d, latency_ms=latency_ms)

    def _hand_on(self, events: list[Event]) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._deliver, events)
        self.on_commit(events)

    def _deliver(self, events: Sequence[Event]) -> None:
        by_stream: dict[tuple[str, str], list[Event]] = {}
        for event in events:
            by_stream.setdefault((event.stream, event.epoch), []).append(event)
            if isinstance(event, Detection):
                self._delivered_id = event.id
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

    def subscribe(self, wanted: Filter) -> Subscriber:
        """A live subscriber: gets everything after its `last_id`. In the loop's thread."""
        subscriber = Subscriber(wanted, self._delivered_id)
        self._subscribers.add(subscriber)
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Forget it."""
        self._subscribers.discard(subscriber)

    # reading

    def replay(self, wanted: Filter, after: int, upto: int, rows: int = REPLAY_ROWS) -> tuple[list[str], int]:
        """The next messages about ids in (after, upto] (at most `rows` detections, and log_gaps where some are
        missing), and the id they reach: `upto`, or less where there is more. Any thread; reads the file.
        """
        items = self._read(wanted, after, rows, upto)
        reach = items[-1].detection.id if len(items) == rows else upto
        messages = [(item.detection.id, dumps(logged_json(item))) for item in items]
        messages += [(hole.first, dumps(hole_json(hole))) for hole in self._holes(after, reach)]
        return [text for _, text in sorted(messages)], reach

    def page(self, wanted: Filter, after: int, limit: int) -> tuple[list[Logged], int]:
        """Up to `limit` wanted detections after id `after`, and the id to go on from. Any thread."""
        last = self._last_id
        items = self._read(wanted, after, limit, last)
        if len(items) == limit:
            return items, items[-1].detection.id
        return items, max(after, last)

    def page_before(self, wanted: Filter, before: int, limit: int) -> tuple[list[Logged], int]:
        """Up to `limit` wanted detections before id `before`, newest first, and the id to go on from; 0: no more."""
        items = self._read(wanted, 0, limit, min(before - 1, self._last_id), newest_first=True)
        return items, items[-1].detection.id if len(items) == limit else 0

    def find(self, id: int) -> Logged | None:
        """The detection of this id, where it is still kept. Any thread."""
        found = self._read(Filter(), id - 1, 1, id)
        return found[0] if found else None

    def _read(self, wanted: Filter, after: int, limit: int, upto: int, *, newest_first: bool = False) -> list[Logged]:
        with self._read_lock:  # not while the file is read, which may take its time
            waiting = [Logged(d) for d in self._pending if after < d.id <= upto and wanted.takes(d)]
        items = self.store.rows(wanted, after, limit, upto, newest_first=newest_first)
        by_id = {item.detection.id: item for item in (*waiting, *items)}
        return [by_id[id_] for id_ in sorted(by_id, reverse=newest_first)[:limit]]

    def _holes(self, after: int, upto: int) -> list[Hole]:
        """What neither the file nor the memory has of ids (after, upto]."""
        with self._read_lock:
            waiting = {d.id for d in self._pending}
            lost = list(self._lost)
        holes = self.store.holes(after, upto)
        return [part for hole in holes for part in _without(hole, waiting, lost)] if waiting else holes


def logged_json(item: Logged) -> JsonObject:
    """A row of the log as a replayed message."""
    message = detection_json(item.detection, replayed=True)
    return message | ({"review": item.review} if item.review else {})


def _without(hole: Hole, waiting: set[int], lost: Sequence[Hole]) -> list[Hole]:
    """A hole of the file, less the ids that wait in memory."""
    if hole.last < min(waiting) and not lost:
        return [hole]
    parts: list[Hole] = []
    for id_ in range(hole.first, hole.last + 1):
        if id_ in waiting:
            continue
        reason = "not_durable" if any(h.first <= id_ <= h.last for h in lost) else hole.reason
        if parts and parts[-1].last == id_ - 1 and parts[-1].reason == reason:
            parts[-1] = replace(parts[-1], last=id_)
        else:
            parts.append(Hole(id_, id_, reason))
    return parts


def _do(job: Callable[[], object], done: Future[object]) -> None:
    try:
        done.set_result(job())
    except Exception as e:
        done.set_exception(e)
