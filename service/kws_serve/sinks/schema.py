"""The tables of the log's file, how an older file gets them, and how a connection to it is set."""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from kws_serve.messages import KwsError

BUSY_S = 5.0
"""How long a statement waits for another program's lock on the file (a backup, a shell) before it fails: as long as the
log may take for a commit before it counts as stalled.
"""

JOURNAL_BYTES = 4 << 20
"""What the write-ahead log shrinks to after a checkpoint: a thousand pages of 4 KiB, SQLite's own checkpoint."""

COLUMNS = (
    "id", "uid", "stream", "epoch", "model", "version", "digest", "backend", "label", "score", "phase",
    "start_sample", "start_s", "decided_s", "at", "start_id", "end_s", "verified",
)  # fmt: skip
"""Of the table `detections`, but for `logged_at` (s since 1970) and `review`: attributes of a Detection."""

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
    "UPDATE detections SET at = at + end_s - start_s WHERE phase = 'end' AND end_s IS NOT NULL",  # they had the onset's
    """
    CREATE TABLE lost (first INTEGER NOT NULL, stream TEXT NOT NULL, last INTEGER NOT NULL,
        PRIMARY KEY (first, stream)) WITHOUT ROWID
    """,  # whose rows the ids of the gap that begins at `first` were; of a gap that is not here, nobody knows
    "ALTER TABLE streams ADD COLUMN owner TEXT",  # see Position; NULL: nobody knows
    "ALTER TABLE detections ADD COLUMN verified INTEGER",  # 1: by a second model; 0: which failed; NULL: there is none
    "CREATE TABLE stream_overrides (stream TEXT, model TEXT, settings TEXT NOT NULL, PRIMARY KEY (stream, model)) "
    "WITHOUT ROWID",
)
"""Schema changes in order; `PRAGMA user_version` counts those that a file has had. Only ever append."""


class LogError(KwsError):
    """The event log cannot be opened: its folder, its file, or another service that has it."""


class LogInUse(LogError):
    """Another service has it."""


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is not what was written: bytes of it, or all, are others. A full disk, for one, is no damage."""
    code = getattr(error, "sqlite_errorcode", None)  # None: a text that is no UTF-8
    if code is None:
        return isinstance(error, sqlite3.OperationalError)
    if code & 0xFF == sqlite3.SQLITE_ERROR:
        return str(error).startswith("no such")  # a table: we ask for those that were made
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def connect(path: Path) -> sqlite3.Connection:
    """A connection that is in no transaction, for one thread at a time. Raises sqlite3.Error."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_S)
    db.execute("PRAGMA journal_mode=WAL").fetchone()
    db.execute("PRAGMA synchronous=FULL")
    db.execute(f"PRAGMA journal_size_limit={JOURNAL_BYTES}")
    db.execute("PRAGMA trusted_schema=OFF")
    return db


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All of it is committed, or, where it raises, nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
        raise


def migrate(db: sqlite3.Connection, path: Path, upto: int | None = None) -> None:
    """Bring the file to today's schema, or to that of `upto` changes, a transaction for each change.

    Raises LogError (from a newer service): the file is as it was; sqlite3.Error: it has the changes before the one that
    failed.
    """
    (found,) = db.execute("PRAGMA user_version").fetchone()
    if found > len(MIGRATIONS):
        wanted = f"wanted at most {len(MIGRATIONS)}: a newer kws-serve wrote it"
        raise LogError(f"data-dir: {path}: found schema {found}, {wanted}")
    if found == 0:
        db.execute("PRAGMA auto_vacuum=INCREMENTAL")
    for number, script in enumerate(MIGRATIONS[found:upto], found + 1):
        with transaction(db):
            for statement in filter(None, map(str.strip, script.split(";"))):
                db.execute(statement)
            if number == 1:
                db.execute("INSERT INTO meta VALUES ('log_id', ?)", (secrets.token_hex(8),))
            db.execute(f"PRAGMA user_version={number}")
