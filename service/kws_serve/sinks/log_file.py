"""The log's SQLite file: opened once, by one service, in spite of a full disk, damage or an unclean end.

WAL with `synchronous=FULL`: what a commit returned from survives `kill -9` and a power cut (as far as the disk keeps
its word). One connection writes, from one thread at a time; another reads, from any thread.

Beside the file lie `.lock` (held while a service has it), `.reserve` (room for a start on a full disk) and
`.all-logged` or `.not-logged` (see Given).
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kws_serve.messages import Hole
from kws_serve.sinks.given import Given
from kws_serve.sinks.holes import note_hole
from kws_serve.sinks.identity import Identity
from kws_serve.sinks.salvage import Read, Salvaged, salvage
from kws_serve.sinks.schema import LogError, LogInUse, connect, is_damage, migrate, transaction

_log = logging.getLogger(__name__)

SKIPPED_IDS = 1_000_000
"""How far ids jump where the last run may have pushed some that it could not log, so that none is ever given twice: at
ten detections a second a disk may be full for a day. 2**53, where JavaScript's whole numbers end, is 9e9 jumps away.
"""

RESERVE_BYTES = 256 * 1024
"""Room that a start on a full disk can use: a new log takes about 60 kB as it is opened, an old one less."""


class LogFile:
    """The open file. `writer` is the writing thread's alone; `read` is for any thread."""

    def __init__(self, path: Path) -> None:
        """Open or create, bring to today's schema. Raises LogError: in use, not writable, from a newer service; then
        nothing is held open, and the files are as they were, but for a folder or an empty file that may be new.
        """
        self.path = path
        self.set_aside: Path | None = None
        """A damaged or foreign file, under its new name; None: there was none."""
        self.damage = ""
        """What a query has found wrong with the file itself; empty: nothing. Any thread sets it."""
        self._identity = Identity(())
        self._closed = True  # there is no connection to read from
        self._reserve = Path(f"{path}.reserve")
        self.given = Given(path)
        self._reading = threading.Lock()
        self._lock = self._locked()
        try:
            self._open()
        except BaseException:
            os.close(self._lock)
            raise

    def _locked(self) -> int:
        """The lock, as a file descriptor. Raises LogError."""
        path = self.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as e:
            raise LogError(f"data-dir: cannot write {path.parent} ({e.strerror}); wanted --data-dir DIR") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            found = f"found {path} in use by another kws-serve"
            raise LogInUse(f"data-dir: {found}; wanted another --port or --data-dir DIR") from None
        return lock

    def _open(self) -> None:
        """Open the file; on a full disk with the reserve. Raises LogError."""
        self.new = not self.path.exists()
        for _ in range(2):
            try:
                self._open_file()
                break
            except (sqlite3.OperationalError, OSError) as e:
                with contextlib.suppress(AttributeError, sqlite3.Error):
                    self.writer.close()
                if not self._reserve.exists():
                    raise LogError(f"data-dir: cannot open {self.path} ({e}); wanted --data-dir DIR") from None
                self._reserve.unlink()
        self.keep_reserve()

    def _open_file(self) -> None:
        self.path.touch(mode=0o600)  # the files beside it take their mode from it
        known = True
        try:
            self._connect()
        except sqlite3.DatabaseError as e:
            if not is_damage(e):
                raise
            self._disconnect()
            found = self.salvaged()
            self.replace(found)
            self.new = found.log_id is None
            known = found.last_id is not None
        self._compare_ids(known)

    def _connect(self) -> None:
        """Both connections, and a look at both ends of what is there. Raises sqlite3.Error."""
        self.writer = connect(self.path)
        migrate(self.writer, self.path)
        with contextlib.suppress(sqlite3.OperationalError):  # a copy of the file alone then has its tables at least
            self.writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self._reader = connect(self.path)
        self._checker = connect(self.path)  # the writing thread's, which waits for no reader
        self.log_id = str(self.read("SELECT value FROM meta WHERE key = 'log_id'")[0][0])
        for order in ("ASC", "DESC"):
            self.read(f"SELECT * FROM detections ORDER BY id {order} LIMIT 1")
        self._closed = False
        self._identity = Identity([self.path, Path(f"{self.path}-wal")])
        self._identity.fault()

    def salvaged(self, log_id: str | None = None, last_id: int | None = None) -> Salvaged:
        """What can still be read, in a new file. `log_id`, `last_id`: of what is there, where they are known. Any
        thread. Raises sqlite3.Error, OSError.
        """
        beside = Path(f"{self.path}.salvage")
        beside.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self._closed:  # what was removed can be read through the open connection alone
            return salvage(self.read, beside, log_id, last_id)
        with contextlib.closing(sqlite3.connect(self.path)) as old:
            return salvage(lambda sql, values: old.execute(sql, values).fetchall(), beside, log_id, last_id)

    def fault(self, last_id: int = 0) -> str:
        """What is wrong with the file itself; empty: nothing. `last_id`: what was just written, and has to be found by
        another connection. In the writing thread.
        """
        if not self.damage and last_id:
            try:
                (found,) = self._checker.execute("SELECT max(id) FROM detections").fetchone()
                if (found or 0) < last_id:
                    self.damage = f"found id {found} in {self.path} after {last_id} was written"
            except sqlite3.Error as e:
                self.damage = f"{e}" if is_damage(e) else ""
        return self.damage or self._identity.fault()

    def replace(self, found: Salvaged) -> None:
        """Put a salvaged file in the place of the one that was open, which is kept aside if it is there; or go on with
        that where it has been put already. In the writing thread. Raises sqlite3.Error, OSError, LogError.
        """
        with self._reading:
            self._disconnect()
            if not self._locks():
                os.close(self._lock)
                self._lock = self._locked()
            if found.path.exists():
                self._put_aside()
                found.path.rename(self.path)
        self._connect()
        self.damage = ""

    def _disconnect(self) -> None:
        self._closed = True
        for name in ("_reader", "_checker", "writer"):
            with contextlib.suppress(AttributeError, sqlite3.Error):
                getattr(self, name).close()

    def _locks(self) -> bool:
        """Whether our lock is the file that others would find."""
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(self._lock), Path(f"{self.path}.lock").stat())
        return False

    def _put_aside(self) -> None:
        """Keep what lies in the file's place under another name."""
        self.set_aside = None
        if self.path.exists():
            kind = "replaced" if self._identity.is_other(self.path) else "damaged"
            self.set_aside = self.path.with_name(f"{self.path.name}.{kind}-{time.time_ns()}")
            self.path.rename(self.set_aside)
        for suffix in ("-wal", "-shm"):
            beside = Path(f"{self.path}{suffix}")
            with contextlib.suppress(FileNotFoundError):
                if self.set_aside:
                    beside.rename(f"{self.set_aside}{suffix}")
                else:
                    beside.unlink()

    def keep_reserve(self) -> None:
        """Hold some room, with which a service that is started on a full disk can open the log. Where there is none to
        hold, nothing is held; the next call tries again.
        """
        if self._reserve.exists():
            return
        try:
            self._reserve.touch(mode=0o600)
            self._reserve.write_bytes(bytes(RESERVE_BYTES))
        except OSError:
            self._reserve.unlink(missing_ok=True)

    @property
    def last_id(self) -> int:
        """The newest id ever given; 0 before the first. Kept when its row goes. Raises sqlite3.Error."""
        row = self.read("SELECT seq FROM sqlite_sequence WHERE name = 'detections'")
        return int(row[0][0]) if row else 0

    def mark_all_logged(self, logged: bool) -> None:
        """Note beside the log whether every id that was given is in it. Raises OSError: what the next start finds is
        then uncertain.
        """
        self.given.mark(logged)

    def _compare_ids(self, known: bool) -> None:
        """Hold the ids that were given against those of the file, so that none is given again unnoticed. `known`:
        whether the file tells its newest.
        """
        last, given = self.last_id, self.given.newest_id
        hole = None
        if given is None and not self.new:  # a copy or a backup: what else was given after it is not known here
            self.log_id = secrets.token_hex(8)
            with transaction(self.writer) as db:
                db.execute("UPDATE meta SET value = ? WHERE key = 'log_id'", (self.log_id,))
            _log.warning("event log: found %s without the note beside it; it goes on as another log", self.path)
        elif not self.new and not (known and self.given.all_logged):
            hole = Hole(last + 1, last + SKIPPED_IDS, "not_durable")
        elif given is not None and given > last:
            hole = Hole(last + 1, given, "restored")
            _log.warning("event log: %s lacks ids %d to %d: it is older than these", self.path, hole.first, given)
        if hole:
            with transaction(self.writer) as db:
                note_hole(db, hole)
        self.mark_all_logged(True)
        self.given.note(self.last_id)

    def read(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        """The rows of a query, as the last commit left them. Any thread. Raises sqlite3.Error."""
        with self._noticing(), self._reading:
            return self._reader.execute(sql, values).fetchall()

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Read]:
        """Several queries of one moment: `read` itself sees what was committed between two. Raises sqlite3.Error."""
        with self._noticing(), self._reading:
            self._reader.execute("BEGIN")
            try:
                yield lambda sql, values: self._reader.execute(sql, values).fetchall()
            finally:
                with contextlib.suppress(sqlite3.Error):
                    self._reader.execute("ROLLBACK")

    @contextlib.contextmanager
    def _noticing(self) -> Iterator[None]:
        """Damage that a query finds is noted, for the writing thread to mend it."""
        try:
            yield
        except sqlite3.Error as e:
            if is_damage(e):
                self.damage = f"{e}"
            raise

    def close(self) -> None:
        """Close the file and let others have it. Safe to call twice."""
        with self._reading:
            self._reader.close()
        self._checker.close()
        self.given.close()
        self.writer.close()
        with contextlib.suppress(OSError):
            os.close(self._lock)
