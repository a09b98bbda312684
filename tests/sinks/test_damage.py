"""FIELD 7: the log's file damaged, removed or replaced under a running service: noticed, mended, told."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from kws_serve.messages import Detection
from kws_serve.sinks.event_log import EventLog
from tests.reliability.test_disk_full import integrity, publish, until
from tests.sinks.test_event_log import detection, ids, replayed

ROWS = 2000


def overwrite(path: Path, first: int, last: int) -> None:
    with path.open("r+b") as f:
        f.seek(first)
        f.write(b"\xa5" * (last - first))


def whole(path: Path) -> None:
    overwrite(path, 0, path.stat().st_size)


def middle(path: Path) -> None:
    """Eight pages in the midst of the rows."""
    half = path.stat().st_size // 8192 * 4096
    overwrite(path, half, half + 8 * 4096)


def newest(path: Path) -> None:
    overwrite(path, path.stat().st_size * 3 // 4, path.stat().st_size)


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def journal(path: Path) -> None:
    """The write-ahead log, which has the newest rows."""
    wal = Path(f"{path}-wal")
    overwrite(wal, 32, wal.stat().st_size)


def checkpointed(path: Path) -> None:
    """All in the file itself, nothing in the write-ahead log."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)


def works(log: EventLog) -> bool:
    """Whether it can be read, from its beginning, and writes."""
    with contextlib.suppress(sqlite3.Error):
        return ids(log) != [] and log.durable and not log.pending
    return False


@pytest.mark.parametrize("damage", [whole, middle, newest, truncated, emptied, journal])
def test_a_damaged_file_is_noticed_salvaged_and_set_aside(tmp_path, damage: Callable[[Path], None], caplog):
    log = EventLog(tmp_path / "events.db")
    publish(log, 1, ROWS)
    checkpointed(log.store.path)
    publish(log, ROWS + 1, ROWS + 50)
    log.save_overrides("m", {"*": {"k": 2}})
    log.save_overrides("m", {"*": {"k": 3}}, "desk")
    log_id = log.log_id
    damage(log.store.path)
    caplog.clear()
    pushed = publish(log, ROWS + 51, ROWS + 500)  # it goes on, whatever it finds
    assert [d.id for d in pushed] == list(range(ROWS + 51, ROWS + 501))
    until(lambda: works(log))
    publish(log, ROWS + 501, ROWS + 510)
    assert len(caplog.records) <= 4
    kept = ids(log)
    assert kept[-460:] == list(range(ROWS + 51, ROWS + 511))  # what came since is there
    told = replayed(log)
    gaps = [m for m in told if m["type"] == "log_gap"]
    missing = sorted(i for m in gaps for i in range(m["from"], m["to"] + 1))
    assert {m["reason"] for m in gaps} <= {"damaged"}
    assert sorted([*kept, *missing]) == list(range(1, ROWS + 511))  # each id is there, or told
    if damage is middle:
        assert 0 < len(missing) < 200
    assert log.store.file.set_aside is not None
    assert log.store.file.set_aside.exists()
    assert log.log_id == log_id
    log.close()
    again = EventLog(log.store.path)
    assert (again.log_id, ids(again), again.last_id) == (log_id, kept, ROWS + 510)
    again.close()
    assert integrity(log.store.path) == "ok"


@pytest.mark.parametrize("damage", [middle, newest])
def test_what_a_start_finds_damaged_is_salvaged_too(tmp_path, damage):
    log = EventLog(tmp_path / "events.db")
    publish(log, 1, ROWS)
    log.close()
    damage(log.store.path)
    again = EventLog(log.store.path)
    publish(again, ROWS + 1, ROWS + 10)
    with contextlib.suppress(sqlite3.Error):
        ids(again)
    until(lambda: works(again))
    kept = ids(again)
    assert len(kept) > ROWS // 2
    assert len(set(kept)) == len(kept)
    told = replayed(again)
    assert {m["reason"] for m in told if m["type"] == "log_gap"} <= {"damaged", "not_durable"}
    again.close()
    assert integrity(log.store.path) == "ok"


def test_an_older_file_that_is_damaged_is_salvaged_and_brought_up(tmp_path):
    """Its rows are read for a change of the schema, which fails."""
    log = EventLog(tmp_path / "events.db")
    publish(log, 1, ROWS)
    log.close()
    with contextlib.closing(sqlite3.connect(log.store.path)) as db:
        db.executescript(
            "DROP TABLE lost; ALTER TABLE streams DROP COLUMN owner; "
            "ALTER TABLE detections DROP COLUMN verified; PRAGMA user_version=2"
        )
    middle(log.store.path)
    again = EventLog(log.store.path)
    assert again.log_id == log.log_id
    assert len(ids(again)) > ROWS // 2
    assert {m["reason"] for m in replayed(again) if m["type"] == "log_gap"} == {"damaged"}
    again.close()
    assert integrity(log.store.path) == "ok"


def removed(path: Path) -> None:
    for file in path.parent.glob("events.db*"):
        file.unlink()


def file_removed(path: Path) -> None:
    path.unlink()


def journal_removed(path: Path) -> None:
    Path(f"{path}-wal").unlink()


def folder_removed(path: Path) -> None:
    shutil.rmtree(path.parent)


def folder_moved(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


def replaced(path: Path) -> None:
    """A backup of before is put in place."""
    with contextlib.closing(sqlite3.connect(path)) as db, contextlib.closing(sqlite3.connect(path.parent / "b")) as to:
        db.backup(to)
        to.execute("DELETE FROM detections WHERE id > 100")
        to.commit()
    path.with_name("b").rename(path)


@pytest.mark.parametrize("way", [removed, file_removed, journal_removed, folder_removed, folder_moved, replaced])
def test_a_file_that_is_no_longer_there_is_noticed_and_written_again(tmp_path, way: Callable[[Path], None], caplog):
    """`durable` is said of nothing that the next start would not find."""
    log = EventLog(tmp_path / "state" / "events.db")
    publish(log, 1, 500)
    way(log.store.path)
    pushed = publish(log, 501, 600)
    assert [d.id for d in pushed] == list(range(501, 601))
    assert not pushed[0].durable
    until(lambda: works(log))
    assert publish(log, 601, 610)[-1].durable
    assert ids(log) == list(range(1, 611))
    assert len(caplog.records) <= 4
    log.close()
    again = EventLog(log.store.path)
    assert (again.log_id, ids(again), again.last_id) == (log.log_id, list(range(1, 611)), 610)
    again.close()
    assert integrity(log.store.path) == "ok"


def test_a_removed_file_is_noticed_though_nothing_comes(tmp_path):
    log = EventLog(tmp_path / "events.db")
    publish(log, 1, 10)
    removed(log.store.path)
    until(lambda: log.store.path.exists() and works(log))
    log.close()
    again = EventLog(log.store.path)
    assert ids(again) == list(range(1, 11))
    again.close()


def test_a_file_that_is_removed_while_a_commit_waits_has_not_taken_it(tmp_path):
    """It is looked at after each commit, too: what this one wrote is nowhere any more."""
    log = EventLog(tmp_path / "events.db")
    publish(log, 1, 10)
    pushed: list[Detection] = []
    log.on_commit = pushed.extend
    with contextlib.closing(sqlite3.connect(log.store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        log.publish([detection(11)])
        until(lambda: log._writer._inbox == [])  # it waits for the lock
        removed(log.store.path)
        other.execute("ROLLBACK")
        assert log.flush(10)
    assert [(d.id, d.durable) for d in pushed] == [(11, False)]
    until(lambda: works(log))
    log.close()
    again = EventLog(log.store.path)
    assert ids(again) == list(range(1, 12))
    again.close()


def test_a_mark_that_would_be_lost_is_refused(tmp_path):
    """While the file is written anew, what changes the old one is an error: it can be tried again."""
    log = EventLog(tmp_path / "events.db")
    publish(log, 1, 10)
    blocker = Path(f"{log.store.path}.salvage")
    blocker.mkdir()
    whole(log.store.path)
    Path(f"{log.store.path}-wal").unlink()
    until(lambda: not log.durable)
    with pytest.raises(sqlite3.Error):
        while True:
            log.review(1, "right")
    blocker.rmdir()
    until(lambda: works(log))
    assert log.review(ids(log)[-1], "right")
    log.close()


def test_damage_that_only_one_who_asks_finds_is_mended_too(tmp_path):
    log = EventLog(tmp_path / "events.db")
    publish(log, 1, 500)
    checkpointed(log.store.path)
    middle(log.store.path)
    with pytest.raises(sqlite3.Error):
        ids(log)
    until(lambda: works(log))
    log.close()
