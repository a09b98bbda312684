"""The log's thread: gives ids, commits, and hands on; and what it does when the disk takes no more.

The engine's thread publishes; the writer commits all that has come meanwhile in one transaction and only then hands it
on. Nothing waits for company: a commit lasts a few milliseconds, and what arrives during one shares the next.

Where a commit fails (disk full, disk gone) detections go on, flagged `durable: false`; the last of them wait in memory
and are written when the disk takes writes again, the rest become holes. No id is ever given twice, not even after a
crash in that state: see LogFile.mark_all_logged.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from itertools import accumulate
from typing import TypeVar

from kws_serve.messages import Detection, Hole, StreamDone
from kws_serve.sinks.delivery import Delivery
from kws_serve.sinks.expiry import Expiry
from kws_serve.sinks.holes import named
from kws_serve.sinks.latency import Latency
from kws_serve.sinks.mending import Mending
from kws_serve.sinks.numbering import Numbering
from kws_serve.sinks.positions import NOTE_S, Positions
from kws_serve.sinks.schema import LogError, is_damage
from kws_serve.sinks.store import Store
from kws_serve.sinks.waiting import Waiting

_log = logging.getLogger(__name__)

RECOVER_S = 1.0
"""How often a disk that took nothing is tried again."""

EXPIRE_S = 60.0
"""How often the log looks for what it has to forget: within a minute it may grow past its size by some MB at most."""

STALLED_S = 5.0
"""A commit that lasts longer means that the disk is not well: not ready. Usual ones take milliseconds."""

INBOX = 10_000
"""Detections that wait while a commit hangs: as many as wait in memory for a disk that takes nothing."""

MEND_S = 3.0
"""How long an end waits for a file that is written anew, in s, of the 5 that the whole service has for its end."""

JOB_S = 30.0
"""How long who asks for a write waits for it: longer than a commit that has to wait for a lock (schema.BUSY_S)."""

_Result = TypeVar("_Result")
_Job = tuple[Callable[[], object], Future[object]]


class Writer:
    """Owns the thread; `publish`, `do`, `flush` and the properties are for any other."""

    def __init__(
        self, store: Store, expiry: Expiry, positions: Positions, waiting: Waiting, latency: Latency, delivery: Delivery
    ) -> None:
        """Begin to write. Raises sqlite3.Error: the newest id cannot be read."""
        self.last_id = store.file.last_id  # the newest id that is committed, or waits; 0 before the first
        self.fault = ""  # why commits fail; empty: they do not
        self._store = store
        self._expiry = expiry
        self._positions = positions
        self._waiting = waiting
        self._latency = latency
        self._delivery = delivery
        self._mending = Mending(store.file)
        self._numbering = Numbering(store, waiting)
        self._inbox: list[Detection | StreamDone] = []
        self._shed: Counter[str] = Counter()  # of each stream, that came while a commit hung, and are not kept
        self._jobs: list[_Job] = []
        self._changed = threading.Condition()  # of inbox, jobs, idle and stopping
        self._idle = True  # all that was published is handed on
        self._stopping = False
        self._busy_since_s: float | None = None
        self._next_recover_s = self._next_expire_s = 0.0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def durable(self) -> bool:
        """Whether what comes now will be on the disk before it is pushed."""
        busy_since_s = self._busy_since_s
        stalled = busy_since_s is not None and time.monotonic() - busy_since_s > STALLED_S
        return not self.fault and not stalled and self.alive

    def publish(self, events: Sequence[Detection | StreamDone]) -> None:
        """Take events, in order; returns at once."""
        with self._changed:
            self._inbox += events
            if len(self._inbox) > INBOX:
                self._shed_oldest()
            self._idle = False
            self._changed.notify_all()

    def _shed_oldest(self) -> None:
        """Keep the newest INBOX detections and all else; the others get ids and are a hole. With the lock held."""
        excess = sum(isinstance(e, Detection) for e in self._inbox) - INBOX
        kept: list[Detection | StreamDone] = []
        for event in self._inbox:
            if excess > 0 and isinstance(event, Detection):
                excess -= 1
                self._shed[event.stream] += 1
            else:
                kept.append(event)
        self._inbox = kept

    def do(self, job: Callable[[], _Result]) -> _Result:
        """The result of `job`, run by the thread between two commits. Raises what it raises, and TimeoutError after
        JOB_S: it may be done later all the same.
        """
        done: Future[object] = Future()
        with self._changed:
            self._jobs.append((job, done))
            self._changed.notify_all()
        return done.result(timeout=JOB_S)  # type: ignore[return-value]

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything published is committed and handed on; False where that took too long."""
        with self._changed:
            return self._changed.wait_for(lambda: self._idle, timeout_s)

    def close(self, timeout_s: float) -> bool:
        """Commit what has come and end; False where that took too long: the thread goes on. Safe to call twice."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        return not self.alive

    def _run(self) -> None:
        while (work := self._next()) is not None:
            self._busy_since_s = time.monotonic()
            try:
                self._turn(*work, self._busy_since_s)
            except Exception:  # a fault of ours must not stop the log
                _log.exception("the event log's writer failed")
            self._busy_since_s = None
        self._recover(MEND_S)
        if not self.fault:
            self._positions.note()

    def _next(self) -> tuple[list[Detection | StreamDone], list[_Job]] | None:
        """What has come, after NOTE_S perhaps nothing; None: that was all."""
        with self._changed:
            if not self._inbox and not self._jobs:
                self._idle = True
                self._changed.notify_all()
                if self._stopping:
                    return None
                self._changed.wait(NOTE_S)  # what is due by time is looked at without work, too
            batch, self._inbox = self._inbox, []
            jobs, self._jobs = self._jobs, []
            return batch, jobs

    def _turn(self, batch: list[Detection | StreamDone], jobs: list[_Job], now_s: float) -> None:
        if not self._mending.under_way and (why := self._store.file.fault()):
            self._fail(why)
            self._mending.begin(self._first_waiting() - 1)
        if self.fault and now_s >= self._next_recover_s:
            self._next_recover_s = now_s + RECOVER_S
            self._recover()
        if batch:
            self._commit(batch)
        for job, done in jobs:
            if self._mending.under_way:  # what it changed would be lost
                done.set_exception(sqlite3.OperationalError(f"it is written anew: {self.fault}"))
            else:
                _do(job, done)
        if self.fault:
            return
        self._positions.look(now_s)
        if now_s >= self._next_expire_s:
            self._next_expire_s = now_s + EXPIRE_S
            self._expiry.look(time.time(), time.monotonic(), self._commit_what_came)
            self._store.file.keep_reserve()

    def _commit_what_came(self) -> None:
        """Between two parts of a longer work. Raises sqlite3.Error where that cannot go on: commits fail."""
        with self._changed:
            batch, self._inbox = self._inbox, []
        if batch:
            self._commit(batch)
        if self.fault:
            raise sqlite3.OperationalError(self.fault)

    def _commit(self, batch: list[Detection | StreamDone]) -> None:
        """Give ids, commit, hand on."""
        hole = self._hole()
        events = self._numbering.numbered(batch, self.last_id)
        new = [e for e in events if isinstance(e, Detection)]
        if new or hole:
            durable = self._written(new, hole)
            now_s = time.monotonic()
            events = [
                self._latency.counted(replace(e, durable=durable), now_s) if isinstance(e, Detection) else e
                for e in events
            ]
            self.last_id = new[-1].id if new else self.last_id
            self._store.file.given.note(self.last_id)
        self._delivery.committed([*hole, *events])

    def _hole(self) -> list[Hole]:
        """Ids for what was shed, if anything was."""
        with self._changed:
            shed, self._shed = self._shed, Counter()
        if not shed:
            return []
        lasts = (self.last_id + n for n in accumulate(shed.values()))  # the ids of each stream follow one another
        whose = dict(zip(shed, lasts, strict=True))
        hole = Hole(self.last_id + 1, self.last_id + shed.total(), "not_durable", named(whose))
        self.last_id = hole.last
        _log.error("event log: a commit took so long that ids %d to %d could not be kept", hole.first, hole.last)
        return [hole]

    def _written(self, new: list[Detection], holes: list[Hole]) -> bool:
        """Whether these are on the disk; else they wait in memory."""
        if not self.fault:
            try:
                self._store.append(new, holes, self._positions.of(new))
            except (sqlite3.Error, OSError) as e:
                self._fail(str(e) or type(e).__name__, e)
            else:
                if why := self._store.file.fault(new[-1].id if new else 0):
                    self._fail(why)
        if self.fault:
            self._waiting.keep(new, holes)
        return not self.fault

    def _first_waiting(self) -> int:
        """The first id that is not in the file, or the next to be given."""
        waiting, holes = self._waiting.read()
        return min([d.id for d in waiting[:1]] + [h.first for h in holes[:1]], default=self.last_id + 1)

    def _fail(self, why: str, error: Exception | None = None) -> None:
        """The disk takes no more: say so once, and note beside the log that ids are given that it does not have."""
        if not self.fault:
            _log.error("event log: %s; detections go on, durable: false", why)
        self.fault = why
        if isinstance(error, sqlite3.Error) and is_damage(error):
            self._store.file.damage = why
        self._positions.forget()
        try:
            self._store.file.mark_all_logged(False)
        except OSError as e:
            _log.error("event log: cannot note that ids are not logged (%s): a crash now may give them again", e)

    def _recover(self, wait_s: float = 0.0) -> None:
        """Try to write what waits; where that fails it goes on waiting. `wait_s`: for a file that is written anew."""
        if not self.fault:
            return
        waiting, holes = self._waiting.read()
        try:
            if not self._mending.done(wait_s):
                return
            self._store.append(waiting, holes)
            self._store.file.mark_all_logged(True)
        except (sqlite3.Error, OSError, LogError) as e:
            found = self._store.file.damage or self._store.file.fault()
            self.fault = f"{found}; {e}" if found else str(e) or type(e).__name__
            return
        self._waiting.clear()
        self.fault = ""
        n = sum(h.last - h.first + 1 for h in holes)
        _log.warning("event log: writing again; %d detections written now, %d not kept", len(waiting), n)


def _do(job: Callable[[], object], done: Future[object]) -> None:
    try:
        done.set_result(job())
    except Exception as e:
        done.set_exception(e)
