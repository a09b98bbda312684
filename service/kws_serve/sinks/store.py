"""The event log's SQLite file: detections, review marks, detector overrides, and which streams there were.

WAL with `synchronous=FULL`: what a commit returned from survives `kill -9` and a power cut (as far as the disk keeps
its word). One connection writes, from one thread at a time; another reads, from any thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, Literal, get_args

from kws_serve.messages import Detection, Hole, JsonObject, KwsError

Review = Literal["right", "wrong"]
REVIEWS: tuple[Review, ...] = get_args(Review)

SKIPPED_IDS = 1_000_000
"""How far ids jump where the last run may have pushed some that it could not log: none is ever given twice."""

EXPIRE_ROWS = 5000
"""What is forgotten at once at most: commits wait meanwhile."""

RESERVE_BYTES = 256 * 1024

_COLUMNS = (
    "id", "uid", "stream", "epoch", "model", "version", "digest", "backend", "label", "score", "phase",
    "start_sample", "start_s", "decided_s", "at", "start_id", "end_s",
)  # fmt: skip

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE detections (
        id INTEGER PRIMARY KEY AUTOINCREMENT, uid TEXT NOT NULL UNIQUE, logged_at REAL NOT NULL,
        stream TEXT NOT NULL, epoch TEXT NOT NULL, model TEXT NOT NULL, version TEXT NOT NULL, digest TEXT NOT NULL,
        backend TEXT NOT NULL, label TEXT NOT NULL, score REAL NOT NULL, phase TEXT NOT NULL,
        start_sample INTEGER NOT NULL, start_s REAL NOT NULL, decided_s REAL NOT NULL, at REAL NOT NULL,
        start_id INTEGER, end_s REAL, review TEXT CHECK (review IN ('right', 'wrong'))
    );
    CREATE INDEX detections_at ON detections (at);
    CREATE INDEX detections_stream ON detections (stream, epoch, id);
    CREATE TABLE gaps (first INTEGER PRIMARY KEY, last INTEGER NOT NULL, reason TEXT NOT NULL);
    CREATE TABLE streams (name TEXT, epoch TEXT, heard_sample INTEGER NOT NULL, seen_at REAL NOT NULL,
        PRIMARY KEY (name, epoch)) WITHOUT ROWID;
    CREATE TABLE overrides (model TEXT PRIMARY KEY, settings TEXT NOT NULL) WITHOUT ROWID;
    """,
    "CREATE INDEX detections_logged_at ON detections (logged_at)",  # what is too old is found without reading all
)
"""Schema changes in order; `PRAGMA user_version` counts those that a file has had. Only ever append."""


class LogError(KwsError):
    """The event log cannot be opened: its folder, its file, or another service that has it."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which detections are wanted; None: all. `since` <= at < `until`, seconds since 1970."""

    stream: str | None = None
    label: str | None = None
    since: float | None = None
    until: float | None = None
    min_score: float | None = None
    streams: frozenset[str] | None = None  # what a token may hear

    def takes(self, detection: Detection) -> bool:
        """Whether `detection` is wanted."""
        d = detection
        return (
            self.stream in (None, d.stream)
            and self.label in (None, d.label)
            and (self.streams is None or d.stream in self.streams)
            and (self.since is None or d.at >= self.since)
            and (self.until is None or d.at < self.until)
            and (self.min_score is None or d.score >= self.min_score)
        )

    def sql(self) -> tuple[str, list[object]]:
        """The same as conditions on rows, beginning with AND, and their values."""
        text = ""
        values: list[object] = []
        for condition, value in (
            ("stream = ?", self.stream),
            ("label = ?", self.label),
            ("at >= ?", self.since),
            ("at < ?", self.until),
            ("score >= ?", self.min_score),
        ):
            if value is not None:
                text, values = f"{text} AND {condition}", [*values, value]
        if self.streams is not None:
            text += f" AND stream IN ({','.join('?' * len(self.streams))})"
            values += sorted(self.streams)
        return text, values


@dataclass(frozen=True, slots=True)
class Logged:
    """A detection as the log keeps it, and whether somebody marked it right or wrong."""

    detection: Detection
    review: Review | None = None


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept: at most so old and so large."""

    days: float = 90.0
    megabytes: float = 500.0


class Store:
    """The open file. Raises sqlite3.Error where the disk does not do its part; then nothing of the call is written."""

    def __init__(self, path: Path) -> None:
        """Open or create, bring to today's schema. Raises LogError: in use, not writable, from a newer service."""
        self.path = path
        self._reserve = Path(f"{path}.reserve")
        self._mark = Path(f"{path}.all-logged")
        self._reading = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock_file = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as e:
            raise LogError(f"data-dir: cannot write {path.parent} ({e.strerror}); wanted --data-dir DIR") from None
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock_file)
            found = f"found {path} in use by another kws-serve"
            raise LogError(f"data-dir: {found}; wanted another --port or --data-dir DIR") from None
        try:
            self._open()
        except BaseException:
            os.close(self._lock_file)
            raise

    def _open(self) -> None:
        """Open the file; on a full disk with the reserve. Raises LogError."""
        self.set_aside: Path | None = None
        self.new = not self.path.exists()
        for _ in range(2):
            try:
                self._open_file()
                break
            except (sqlite3.OperationalError, OSError) as e:
                with contextlib.suppress(AttributeError, sqlite3.Error):
                    self._writer.close()
                if not self._reserve.exists():
                    raise LogError(f"data-dir: cannot open {self.path} ({e}); wanted --data-dir DIR") from None
                self._reserve.unlink()
        self.keep_reserve()

    def _open_file(self) -> None:
        self.path.touch(mode=0o600)  # the files beside it take their mode from it
        try:
            self._writer = _connect(self.path)
            self._migrate()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:  # not a database, or a damaged one
            self._put_aside()
            self.path.touch(mode=0o600)
            self._writer = _connect(self.path)
            self._migrate()
        self._reader = _connect(self.path)
        self.log_id: str = self._meta("log_id")
        if self.new:
            self.mark_all_logged(True)
        elif not self._mark.exists():
            self._skip_ids()

    def keep_reserve(self) -> None:
        """Hold some room, with which a service that is started on a full disk can open the log."""
        if self._reserve.exists():
            return
        try:
            self._reserve.touch(mode=0o600)
            self._reserve.write_bytes(bytes(RESERVE_BYTES))
        except OSError:
            self._reserve.unlink(missing_ok=True)

    def _migrate(self) -> None:
        (found,) = self._writer.execute("PRAGMA user_version").fetchone()
        if found > len(MIGRATIONS):
            wanted = f"wanted at most {len(MIGRATIONS)}: a newer kws-serve wrote it"
            raise LogError(f"data-dir: {self.path}: found schema {found}, {wanted}")
        if found == 0:
            self._writer.execute("PRAGMA auto_vacuum=INCREMENTAL")
        for number, script in enumerate(MIGRATIONS[found:], found + 1):
            with self._transaction():
                for statement in filter(None, map(str.strip, script.split(";"))):
                    self._writer.execute(statement)
                if number == 1:
                    self._writer.execute("INSERT INTO meta VALUES ('log_id', ?)", (secrets.token_hex(8),))
                self._writer.execute(f"PRAGMA user_version={number}")

    def _put_aside(self) -> None:
        """Keep a file that cannot be read under another name; a new log begins, with a new log_id."""
        with contextlib.suppress(AttributeError, sqlite3.Error):
            self._writer.close()
        self.set_aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
        self.path.rename(self.set_aside)
        self.new = True
        for suffix in ("-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    @contextlib.contextmanager
    def _transaction(self) -> Any:
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            yield self._writer
            self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._writer.execute("ROLLBACK")
            raise

    def _meta(self, key: str) -> str:
        return str(self._reader.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0])

    # ids

    @property
    def last_id(self) -> int:
        """The newest id ever given; 0 before the first. Kept when its row goes."""
        row = self._reader_rows("SELECT seq FROM sqlite_sequence WHERE name = 'detections'")
        return int(row[0][0]) if row else 0

    def mark_all_logged(self, logged: bool) -> None:
        """Note beside the log whether every id that was given is in it: a file that is there, or is not.

        Taking a file away needs no space, so it works on a full disk too. Raises OSError.
        """
        if logged:
            self._mark.touch(mode=0o600)
        else:
            self._mark.unlink(missing_ok=True)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _skip_ids(self) -> None:
        """The last run died while it gave ids that it could not log: leave room, so that none is given again."""
        last = self.last_id
        self.append((), [Hole(last + 1, last + SKIPPED_IDS, "not_durable")])
        self.mark_all_logged(True)

    # writing

    def append(
        self,
        detections: Sequence[Detection],
        holes: Sequence[Hole] = (),
        heard: Sequence[tuple[str, str, int]] = (),
    ) -> None:
        """Commit detections that have their ids, ids that will have no row, and positions as of `heard`."""
        now_s = time.time()
        marks = ",".join("?" * (len(_COLUMNS) + 1))
        with self._transaction() as db:
            db.executemany(  # OR IGNORE: a commit that failed half-way may be there after all
                f"INSERT OR IGNORE INTO detections ({','.join(_COLUMNS)}, logged_at) VALUES ({marks})",
                [(*(getattr(d, c) for c in _COLUMNS), now_s) for d in detections],
            )
            for hole in holes:
                _add_hole(db, hole)
            db.executemany("INSERT OR REPLACE INTO streams VALUES (?, ?, ?, ?)", [(*p, now_s) for p in heard])

    def knows(self, uid: str) -> bool:
        """Whether an event is in the log."""
        return bool(self._writer.execute("SELECT 1 FROM detections WHERE uid = ?", (uid,)).fetchone())

    def open_start(self, d: Detection) -> int | None:
        """The id of the start that the end `d` belongs to."""
        row = self._writer.execute(
            "SELECT id, phase FROM detections WHERE stream = ? AND epoch = ? AND model = ? AND label = ? "
            "ORDER BY id DESC LIMIT 1",
            (d.stream, d.epoch, d.model, d.label),
        ).fetchone()
        return int(row[0]) if row and row[1] == "start" else None

    def review(self, id: int, mark: Review | None) -> bool:
        """Mark a detection, or take its mark away; False where the log has no such id."""
        with self._transaction() as db:
            return bool(db.execute("UPDATE detections SET review = ? WHERE id = ?", (mark, id)).rowcount)

    def save_overrides(self, model: str, settings: JsonObject) -> None:
        """Keep what PATCH has changed of a model's detector."""
        with self._transaction() as db:
            if settings:
                db.execute("INSERT OR REPLACE INTO overrides VALUES (?, ?)", (model, json.dumps(settings)))
            else:
                db.execute("DELETE FROM overrides WHERE model = ?", (model,))

    def heard(self, positions: Iterable[tuple[str, str, int]], gone: Iterable[tuple[str, str]]) -> None:
        """Note how far streams (name, epoch, sample) were processed, for those who resume after a restart, and forget
        the streams (name, epoch) that are gone.
        """
        now_s = time.time()
        with self._transaction() as db:
            db.executemany("DELETE FROM streams WHERE name = ? AND epoch = ?", list(gone))
            db.executemany("INSERT OR REPLACE INTO streams VALUES (?, ?, ?, ?)", [(*p, now_s) for p in positions])

    def older_than(self, at_s: float) -> list[int]:
        """Ids of rows that were logged before `at_s` (s since 1970) themselves, ascending; at most EXPIRE_ROWS."""
        rows = self._writer.execute(
            "SELECT id FROM detections WHERE logged_at < ? ORDER BY logged_at LIMIT ?", (at_s, EXPIRE_ROWS)
        )
        return sorted(id_ for (id_,) in rows)

    def oldest_beyond(self, megabytes: float) -> list[int]:
        """The oldest ids, if the file holds more than so much: down to nine tenths of it, but at most EXPIRE_ROWS."""
        most = megabytes * 1e6
        used = self.used_bytes
        if used <= most:
            return []
        (n,) = self._writer.execute("SELECT count(*) FROM detections").fetchone()
        wanted = min(EXPIRE_ROWS, ceil(n * (1 - 0.9 * most / used)))
        return [id_ for (id_,) in self._writer.execute("SELECT id FROM detections ORDER BY id LIMIT ?", (wanted,))]

    def forget(self, ids: Sequence[int]) -> None:
        """Delete these rows, with their marks; a hole that was not noted is told as retention."""
        db = self._writer
        with self._transaction():
            db.executemany("DELETE FROM detections WHERE id = ?", [(id_,) for id_ in ids])
            db.execute(  # below all rows, every missing id is told as retention
                "DELETE FROM gaps WHERE last < ? AND NOT EXISTS (SELECT 1 FROM detections WHERE id < gaps.first)",
                (max(ids),),
            )
        db.execute("PRAGMA incremental_vacuum(1000)").fetchall()
        db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def forget_streams(self, seen_before_s: float) -> None:
        """Forget the positions of streams that were last heard before then (s since 1970)."""
        with self._transaction() as db:
            db.execute("DELETE FROM streams WHERE seen_at < ?", (seen_before_s,))

    # reading

    @property
    def newest_at_s(self) -> float:
        """When the row of the highest id was logged, s since 1970; 0 without rows."""
        rows = self._reader_rows("SELECT logged_at FROM detections ORDER BY id DESC LIMIT 1")
        return float(rows[0][0]) if rows else 0.0

    @property
    def used_bytes(self) -> int:
        """Bytes of the file that hold something."""
        sizes = [self._reader_rows(f"PRAGMA {x}")[0][0] for x in ("page_count", "freelist_count", "page_size")]
        return int((sizes[0] - sizes[1]) * sizes[2])

    def rows(
        self, wanted: Filter, after: int, limit: int, upto: int | None = None, *, newest_first: bool = False
    ) -> list[Logged]:
        """At most `limit` wanted rows with after < id <= upto, oldest (or newest) first."""
        condition, values = wanted.sql()
        if upto is not None:
            condition, values = f"{condition} AND id <= ?", [*values, upto]
        order = "DESC" if newest_first else "ASC"
        found = self._reader_rows(
            f"SELECT {','.join(_COLUMNS)}, review FROM detections WHERE id > ?{condition} ORDER BY id {order} LIMIT ?",
            (after, *values, limit),
        )
        return [_logged(row) for row in found]

    def holes(self, after: int, upto: int) -> list[Hole]:
        """Ids in (after, upto] that the log does not have."""
        if upto <= after:
            return []
        known = self._reader_rows("SELECT first, last, reason FROM gaps WHERE last > ? AND first <= ?", (after, upto))
        rows = self._reader_rows(
            "SELECT id, before FROM (SELECT id, lag(id, 1, ?) OVER (ORDER BY id) AS before FROM detections "
            "WHERE id > ? AND id <= ?) WHERE id > before + 1",
            (after, after, upto),
        )
        last = self._reader_rows("SELECT max(id) FROM detections WHERE id > ? AND id <= ?", (after, upto))[0][0]
        spans = [(before + 1, id - 1) for id, before in rows]
        if (last or after) < upto:
            spans.append(((last or after) + 1, upto))
        return [hole for first, last in spans for hole in _explained(first, last, known)]

    def overrides(self) -> dict[str, JsonObject]:
        """Model -> what PATCH has changed."""
        return {m: json.loads(text) for m, text in self._reader_rows("SELECT model, settings FROM overrides")}

    def streams(self) -> dict[str, dict[str, int]]:
        """Name -> epoch -> how far it was processed, of streams whose clients may come back."""
        found: dict[str, dict[str, int]] = {}
        for name, epoch, sample in self._reader_rows("SELECT name, epoch, heard_sample FROM streams"):
            found.setdefault(name, {})[epoch] = int(sample)
        return found

    def decided(self, name: str, epoch: str) -> dict[tuple[str, str], float]:
        """(model, label) -> `decided_s` of its last detection in this stream."""
        rows = self._reader_rows(
            "SELECT model, label, max(decided_s) FROM detections WHERE stream = ? AND epoch = ? GROUP BY model, label",
            (name, epoch),
        )
        return {(model, label): float(s) for model, label, s in rows}

    def _reader_rows(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        with self._reading:
            return self._reader.execute(sql, values).fetchall()

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        with self._reading:
            self._reader.close()
        self._writer.close()
        with contextlib.suppress(OSError):
            os.close(self._lock_file)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    db.execute("PRAGMA journal_mode=WAL").fetchone()
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA journal_size_limit=4194304")
    db.execute("PRAGMA trusted_schema=OFF")
    return db


def _add_hole(db: sqlite3.Connection, hole: Hole) -> None:
    """Note ids that no row has (in the file, `gaps`); they are given all the same."""
    db.execute("INSERT OR REPLACE INTO gaps VALUES (?, ?, ?)", (hole.first, hole.last, hole.reason))
    done = db.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'detections'", (hole.last,))
    if not done.rowcount:
        db.execute("INSERT INTO sqlite_sequence VALUES ('detections', ?)", (hole.last,))


def _explained(first: int, last: int, known: Sequence[tuple[int, int, str]]) -> list[Hole]:
    """The missing ids [first, last] cut where the reason changes; retention removed what none of `known` has."""
    holes = []
    at = first
    for a, b, reason in sorted(known):
        a, b = max(a, at), min(b, last)
        if a > b:
            continue
        if a > at:
            holes.append(Hole(at, a - 1, "retention"))
        holes.append(Hole(a, b, reason))
        at = b + 1
    return [*holes, Hole(at, last, "retention")] if at <= last else holes


def _logged(row: Sequence[Any]) -> Logged:
    fields = dict(zip(_COLUMNS, row, strict=False))
    fields.pop("uid")
    return Logged(Detection(**fields, latency_ms=None, durable=True), row[-1])
