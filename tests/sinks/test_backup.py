"""The log's file as a backup, restored here or elsewhere, and as a copy: no false gap, no id told twice unnoticed."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from kws_serve.sinks.event_log import EventLog
from tests.reliability.test_disk_full import integrity, publish
from tests.sinks.test_event_log import ids, replayed


def backup(path: Path, to: Path) -> None:
    """`sqlite3 PATH ".backup TO"`, while the service runs."""
    with contextlib.closing(sqlite3.connect(path)) as db, contextlib.closing(sqlite3.connect(to)) as copy:
        db.backup(copy)


def vacuum(path: Path, to: Path) -> None:
    """`sqlite3 PATH "VACUUM INTO 'TO'"`."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("VACUUM INTO ?", (str(to),))


def gaps(log: EventLog) -> list[tuple[int, int, str]]:
    return [(m["from"], m["to"], m["reason"]) for m in replayed(log) if m["type"] == "log_gap"]


@pytest.mark.parametrize("make", [backup, vacuum])
def test_restored_elsewhere_it_is_another_log_without_a_gap(tmp_path, make: Callable[[Path, Path], None]):
    """What was told after the backup is unknown there: its ids are given again, so they are another log's."""
    log = EventLog(tmp_path / "events.db")
    publish(log, 1, 50)
    (tmp_path / "new").mkdir()
    make(log.store.path, tmp_path / "new" / "events.db")
    publish(log, 51, 60)
    restored = EventLog(tmp_path / "new" / "events.db")
    publish(restored, 61, 70)
    assert (ids(restored), gaps(restored), restored.last_id) == (list(range(1, 61)), [], 60)
    assert restored.log_id != log.log_id
    log_id = restored.log_id
    restored.close()
    log.close()
    again = EventLog(tmp_path / "new" / "events.db")
    assert (again.log_id, gaps(again)) == (log_id, [])
    again.close()


def test_restored_in_its_place_what_it_lacks_is_told_exactly(tmp_path):
    log = EventLog(tmp_path / "events.db")
    publish(log, 1, 50)
    backup(log.store.path, tmp_path / "backup")
    publish(log, 51, 80)
    log.close()
    shutil.copyfile(tmp_path / "backup", log.store.path)
    for _ in range(2):  # also at the start after
        restored = EventLog(log.store.path)
        assert (restored.log_id, gaps(restored), restored.last_id) == (log.log_id, [(51, 80, "restored")], 80)
        restored.close()
    restored = EventLog(log.store.path)
    publish(restored, 101, 110)
    assert ids(restored) == [*range(1, 51), *range(81, 91)]
    restored.close()
    assert integrity(log.store.path) == "ok"


def test_a_copy_of_the_stopped_services_file_is_whole(tmp_path):
    log = EventLog(tmp_path / "events.db")
    publish(log, 1, 50)
    log.close()
    (tmp_path / "new").mkdir()
    shutil.copyfile(log.store.path, tmp_path / "new" / "events.db")
    copied = EventLog(tmp_path / "new" / "events.db")
    assert (ids(copied), gaps(copied)) == (list(range(1, 51)), [])
    copied.close()


def test_a_copy_of_all_files_goes_on_as_the_same_log(tmp_path):
    """A folder that was moved, a disk that was cloned, `kill -9`: nothing is told that did not happen."""
    log = EventLog(tmp_path / "one" / "events.db")
    publish(log, 1, 50)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    copied = EventLog(tmp_path / "two" / "events.db")
    assert (copied.log_id, ids(copied), gaps(copied)) == (log.log_id, list(range(1, 51)), [])
    copied.close()
    log.close()


def test_a_copy_of_the_running_services_file_alone_opens(tmp_path, caplog):
    """It lacks what is in the write-ahead log: it is no backup, but a log, and that is said."""
    log = EventLog(tmp_path / "events.db")
    publish(log, 1, 50)
    (tmp_path / "new").mkdir()
    shutil.copyfile(log.store.path, tmp_path / "new" / "events.db")
    copied = EventLog(tmp_path / "new" / "events.db")
    publish(copied, 61, 70)
    assert copied.durable
    assert len(ids(copied)) >= 10
    assert copied.log_id != log.log_id
    assert copied.store.file.set_aside is None
    assert "another log" in caplog.text
    copied.close()
    log.close()
