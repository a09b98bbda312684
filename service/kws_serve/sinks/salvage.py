"""What can still be read of a log's file, written into a new one: rows, holes, settings and where streams were."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kws_serve.messages import Hole
from kws_serve.sinks.holes import explained, note_given, note_hole
from kws_serve.sinks.schema import COLUMNS, MIGRATIONS, connect, is_damage, migrate, transaction

ROWS = 500
"""Rows that are read and written at once: who asks the log meanwhile waits some ms."""

SALVAGE_S = 60.0
"""How long reading may take where much is damaged: a million whole rows take about 20 s, a damaged page 1 ms."""

_ALL = (*COLUMNS, "logged_at", "review")
_TEXTS = frozenset({"uid", "stream", "epoch", "model", "version", "digest", "backend", "label", "phase"})
_MAY_BE_NULL = frozenset({"start_id", "end_s", "verified"})

Read = Callable[[str, Sequence[object]], list[Any]]
"""The rows of a query with these values. Raises sqlite3.Error."""


@dataclass
class Salvaged:
    """The new file and what it has."""

    path: Path
    log_id: str | None  # None: the old one could not be read, it has one of its own
    last_id: int | None  # None: nobody knows which ids were given
    rows: int = 0
    lost: list[Hole] = field(default_factory=list)  # ids that could not be read


def salvage(read: Read, target: Path, log_id: str | None = None, last_id: int | None = None) -> Salvaged:
    """Write what `read` finds into a new file `target`. `log_id`, `last_id`: of the old file, where they are known.

    Raises sqlite3.Error, OSError: `target` cannot be written.
    """
    for suffix in ("", "-wal", "-shm"):
        Path(f"{target}{suffix}").unlink(missing_ok=True)
    target.touch(mode=0o600)
    log_id = log_id or _one(read, "SELECT value FROM meta WHERE key = 'log_id'")
    if last_id is None:
        last_id = _one(read, "SELECT seq FROM sqlite_sequence WHERE name = 'detections'")
    version = _one(read, "PRAGMA user_version")
    found = Salvaged(target, log_id, last_id)
    with contextlib.closing(connect(target)) as db:
        db.execute("PRAGMA synchronous=NORMAL")  # on the disk once it is closed
        migrate(db, target, version if version in range(1, len(MIGRATIONS)) else len(MIGRATIONS))
        for table in ("gaps", "lost", "streams", "overrides", "stream_overrides"):
            _copy(read, db, table)
        _copy_rows(read, db, found)
        _note_missing(db, found)
        migrate(db, target)
        with transaction(db):
            if log_id is not None:
                db.execute("UPDATE meta SET value = ? WHERE key = 'log_id'", (log_id,))
            _note_lost(db, found)
    return found


def _one(read: Read, sql: str) -> Any:
    """The only value; None where there is none, or it cannot be read."""
    with contextlib.suppress(sqlite3.Error):
        rows = read(sql, ())
        return rows[0][0] if rows else None
    return None


def _copy(read: Read, db: sqlite3.Connection, table: str) -> None:
    with contextlib.suppress(sqlite3.Error):
        if rows := read(f"SELECT * FROM {table}", ()):
            with transaction(db):
                db.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({','.join('?' * len(rows[0]))})", rows)


def _copy_rows(read: Read, db: sqlite3.Connection, found: Salvaged) -> None:
    """Rows by their ids, a part at a time; a part that cannot be read is halved, until it can or is one id."""
    until_s = time.monotonic() + SALVAGE_S
    there = {name for _, name, *_ in db.execute("PRAGMA table_info(detections)").fetchall()}  # of an older schema
    columns = [name for name in _ALL if name in there]
    insert = f"INSERT OR IGNORE INTO detections ({','.join(columns)}) VALUES ({','.join('?' * len(columns))})"
    select = f"SELECT {','.join(columns)} FROM detections WHERE id BETWEEN ? AND ? ORDER BY id LIMIT {ROWS}"
    todo = [(1, 2**53 if found.last_id is None else found.last_id)]
    while todo:
        first, last = todo.pop()
        try:
            rows = read(select, (first, last))
        except sqlite3.ProgrammingError:  # closed: no damage
            raise
        except sqlite3.Error as e:
            if not is_damage(e) or first == last or time.monotonic() > until_s or not str(e).startswith(_IN_PLACES):
                found.lost.append(Hole(first, last, "damaged"))
            else:
                middle = (first + last) // 2
                todo += [(middle + 1, last), (first, middle)]
            continue
        sound = [row for row in rows if _sound(row, columns) and first <= row[0] <= last]
        if not sound:
            found.lost += [Hole(first, last, "damaged")] if rows else []
            continue
        with transaction(db):
            db.executemany(insert, sound)
        found.rows += len(sound)
        # What was not sound between them is lost. What follows is asked for though there were fewer than ROWS: before
        # some damaged pages SQLite ends silently.
        told = sorted(row[0] for row in sound)
        bad = {row[0] for row in rows} - {*told}
        found.lost += [Hole(id_, id_, "damaged") for id_ in bad if isinstance(id_, int) and first <= id_ <= told[-1]]
        if told[-1] < last:
            todo.append((told[-1] + 1, last))


def _note_missing(db: sqlite3.Connection, found: Salvaged) -> None:
    """Where something is damaged, what is missing between rows is lost too: a query may step over a page in silence."""
    if found.lost:
        missing = db.execute(
            "SELECT before + 1, id - 1 FROM (SELECT id, lag(id, 1, id - 1) OVER (ORDER BY id) AS before "
            "FROM detections) WHERE id > before + 1"
        )
        found.lost += [Hole(first, last, "damaged") for first, last in missing]


_IN_PLACES = ("database disk image is malformed", "Could not decode")
"""Messages of damage that may be in one place; others are of the whole file."""


def _sound(row: Sequence[object], columns: Sequence[str]) -> bool:
    """Whether each value is of the kind that its column should have."""
    return all(
        isinstance(value, str if name in _TEXTS else int | float) or (value is None and name in _MAY_BE_NULL)
        for name, value in zip(columns, row, strict=True)
        if name != "review"
    )


def _note_lost(db: sqlite3.Connection, found: Salvaged) -> None:
    """Note which ids are lost, but for those that were missing before; and the newest that was given."""
    newest = found.last_id
    if newest is None:
        newest = db.execute("SELECT max(id) FROM detections").fetchone()[0] or 0
    known = [Hole(*row) for row in db.execute("SELECT first, last, reason FROM gaps").fetchall()]
    cut = [Hole(h.first, min(h.last, newest), h.reason) for h in _merged(found.lost) if h.first <= newest]
    found.lost = [p for h in cut for p in explained(h, known) if p.reason == h.reason]
    for hole in found.lost:
        note_hole(db, hole)
    if newest:
        note_given(db, newest)


def _merged(holes: list[Hole]) -> list[Hole]:
    """The same ids in as few holes as can be, ascending."""
    spans: list[Hole] = []
    for hole in sorted(holes, key=lambda h: h.first):
        if spans and hole.first <= spans[-1].last + 1:
            spans[-1] = Hole(spans[-1].first, max(spans[-1].last, hole.last), hole.reason)
        else:
            spans.append(hole)
    return spans
