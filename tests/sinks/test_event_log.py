"""The event log: ids, commit before push, holes that are told, retention, migrations, marks, damage."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kws_serve.api.export import COLUMNS, as_csv, as_jsonl
from kws_serve.messages import Detection, Hole, Position, StreamDone
from kws_serve.sinks import schema, writer
from kws_serve.sinks.event_log import EventLog
from kws_serve.sinks.expiry import Retention
from kws_serve.sinks.filter import Filter
from kws_serve.sinks.reader import logged_json
from kws_serve.sinks.schema import LogError
from kws_serve.sinks.store import Store


def detection(i: int, *, stream: str = "s", label: str = "yes", phase: str = "once", at: float = 0.0) -> Detection:
    return Detection(stream, "e", "m", "1", "onnx", label, 0.9, phase, i, i / 16000, i / 16000 + 1, at, digest="d" * 16)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    opened = EventLog(tmp_path / "events.db")
    yield opened
    opened.close()


def until(condition: Callable[[], object]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to be")


def ids(log: EventLog, after: int = 0, **wanted: object) -> list[int]:
    return [item.detection.id for item in log.page(Filter(**wanted), after, 10_000)[0]]


def replayed(log: EventLog, after: int = 0) -> list[dict]:
    found: list[dict] = []
    while after < log.last_id:
        texts, after = log.replay(Filter(), after, log.last_id)
        found += map(json.loads, texts)
    return found


def test_what_is_handed_on_is_on_the_disk(log):
    """Another connection sees each row at the moment of the push."""
    seen = []

    def committed(events):
        with sqlite3.connect(f"file:{log.store.path}?mode=ro", uri=True) as other:
            for d in events:
                row = other.execute("SELECT uid FROM detections WHERE id = ?", (d.id,)).fetchone()
                seen.append((d.id, row == (d.uid,), d.durable))

    log.on_commit = committed
    for i in range(50):
        log.publish([detection(i)])
    assert log.flush(10)
    assert seen == [(i, True, True) for i in range(1, 51)]


def test_the_same_event_twice_is_one(log, tmp_path):
    pushed = []
    log.on_commit = lambda events: pushed.extend(d.id for d in events)
    log.publish([detection(1), detection(2), detection(1)])
    log.publish([detection(2), detection(3)])
    assert log.flush(10)
    assert pushed == [1, 2, 3]
    assert ids(log) == [1, 2, 3]
    log.close()
    again = EventLog(tmp_path / "events.db")
    again.publish([detection(3), detection(4)])
    assert again.flush(10)
    assert ids(again) == [1, 2, 3, 4]
    assert again.log_id == log.log_id
    again.close()


def test_an_end_names_its_start_also_after_a_restart(log, tmp_path):
    log.publish([detection(1, phase="start"), detection(1, label="no", phase="start")])
    log.flush(10)
    log.close()
    again = EventLog(tmp_path / "events.db")
    again.publish([detection(1, phase="end")])
    again.flush(10)
    assert [item.detection.start_id for item in again.page(Filter(), 0, 10)[0]] == [None, None, 1]
    again.close()


def test_the_latency_ends_after_the_commit(log):
    pushed = []
    log.on_commit = pushed.extend
    log.publish([replace(detection(1), arrived_s=time.monotonic() - 0.5), detection(2)])
    log.flush(10)
    assert pushed[0].latency_ms >= 500
    assert pushed[1].latency_ms is None
    assert log.latency_buckets([0.2, 2.0])[0] == [0, 1]


async def test_a_subscriber_joins_without_a_hole(log):
    """At any moment: what was, then what comes, each once."""
    log.bind(asyncio.get_running_loop())
    log.publish([detection(i) for i in range(100)])
    log.flush(10)
    await asyncio.sleep(0)
    subscriber = log.subscribe(Filter())
    log.publish([detection(i) for i in range(100, 150)])
    texts, reach = log.replay(Filter(), 90, subscriber.last_id)
    live = [json.loads(text)["id"] for _ in range(50) for text in await subscriber.take() or []]
    assert [json.loads(t)["id"] for t in texts] + live == list(range(91, 151))
    assert reach == 100


def test_pages_by_id_and_time_and_filter(log):
    log.publish([detection(i, stream=f"s{i % 3}", label="ab"[i % 2], at=1000.0 + i) for i in range(30)])
    log.flush(10)
    assert ids(log, after=27) == [28, 29, 30]
    assert ids(log, since=1010.0, until=1013.0) == [11, 12, 13]
    assert ids(log, stream="s1", label="b") == [2, 8, 14, 20, 26]
    assert ids(log, streams=frozenset({"s0"})) == list(range(1, 31, 3))
    assert ids(log, streams=frozenset()) == []
    items, following = log.page(Filter(stream="s2"), 0, 4)
    assert (len(items), following) == (4, items[-1].detection.id)
    assert log.page(Filter(stream="none"), 0, 4) == ([], 30)


def test_exports_are_the_log(log):
    log.publish([detection(i, label='=evil,"x"\n' if i == 7 else "yes") for i in range(1203)])
    log.flush(30)
    assert log.review(5, "wrong")
    lines = "".join(as_jsonl(log, Filter(), 0)).splitlines()
    rows = list(csv.DictReader(io.StringIO("".join(as_csv(log, Filter(), 0)), newline="")))
    assert [json.loads(line)["id"] for line in lines] == list(range(1, 1204))
    assert tuple(rows[0]) == COLUMNS
    assert [int(row["id"]) for row in rows] == list(range(1, 1204))
    assert json.loads(lines[4])["review"] == rows[4]["review"] == "wrong"
    assert json.loads(lines[7])["label"] == '=evil,"x"\n'
    assert rows[7]["label"] == '\'=evil,"x"\n'  # a spreadsheet must not compute it
    assert set(json.loads(lines[0])) - {"type", "durable", "replayed", "latency_ms"} <= set(COLUMNS)


def test_marks_are_kept_and_taken_back(log, tmp_path):
    log.publish([detection(1), detection(2)])
    log.flush(10)
    assert log.review(1, "right")
    assert log.review(2, "wrong")
    assert log.review(2, None)
    assert not log.review(3, "right")
    log.close()
    again = EventLog(tmp_path / "events.db")
    assert [logged_json(item).get("review") for item in again.page(Filter(), 0, 10)[0]] == ["right", None]
    again.close()


def test_retention_by_age_and_size_forgets_the_oldest_and_says_so(tmp_path):
    log = EventLog(tmp_path / "events.db", Retention(days=1.0, megabytes=0.3))
    log.publish([detection(i) for i in range(2000)])
    assert log.flush(30)
    log._writer.do(lambda: log._expiry.look(time.time(), time.monotonic()))
    left = ids(log)
    assert 0 < len(left) < 2000
    assert left == list(range(left[0], 2001))
    assert log.store.space.used_bytes <= 0.3e6
    assert replayed(log)[0] == {"type": "log_gap", "from": 1, "to": left[0] - 1, "reason": "retention"}
    log.close()
    with sqlite3.connect(log.store.path) as db:
        db.execute("UPDATE detections SET logged_at = ?", (time.time() - 2 * 86400,))
    again = EventLog(log.store.path, Retention(days=1.0))
    began_s = time.monotonic()
    for minute in range(62):
        again._writer.do(lambda s=60.0 * minute: again._expiry.look(time.time() + s, began_s + s))
    assert ids(again) == []
    assert again.last_id == 2000
    again.publish([detection(5000)])
    again.flush(10)
    assert ids(again) == [2001]  # an id is never given twice
    assert [(m["type"], m.get("from"), m.get("to")) for m in replayed(again)] == [
        ("log_gap", 1, 2000),
        ("detection", None, None),
    ]
    again.close()


def test_a_second_service_is_refused_the_file(log):
    with pytest.raises(LogError, match="in use by another kws-serve; wanted another --port or --data-dir"):
        Store(log.store.path)


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_damaged_file_is_set_aside_and_a_new_log_begins(tmp_path, content):
    path = tmp_path / "events.db"
    path.write_bytes(content)
    store = Store(path)
    assert store.file.set_aside is not None
    assert store.file.set_aside.read_bytes() == content
    assert store.file.last_id == 0
    store.close()


def test_an_older_schema_is_brought_up_and_a_newer_refused(log, tmp_path, monkeypatch):
    log.publish([detection(1)])
    log.flush(10)
    log.close()
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, "ALTER TABLE detections ADD COLUMN note TEXT"))
    newer = Store(log.store.path)
    assert newer.history.rows(Filter(), 0, 10)[0].detection.id == 1
    assert newer.file.log_id == log.log_id
    newer.close()
    monkeypatch.undo()
    n = len(schema.MIGRATIONS)
    with pytest.raises(LogError, match=f"found schema {n + 1}, wanted at most {n}"):
        Store(log.store.path)


def test_a_migration_that_fails_changes_nothing(log, monkeypatch):
    log.close()
    both = "CREATE TABLE half (x); CREATE TABLE half (x)"
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, both))
    with pytest.raises(LogError):
        Store(log.store.path)
    monkeypatch.undo()
    store = Store(log.store.path)
    assert not store.file.read("SELECT name FROM sqlite_master WHERE name = 'half'")
    store.close()


def test_ends_of_older_logs_are_at_their_own_time(log):
    """They had the onset's; what is asked for by time finds them where they are now."""
    log.close()
    log.store.path.unlink()
    ends = [replace(detection(16000 * i, phase="end", at=1000.0), id=i, end_s=i + 6.0) for i in (1, 2)]
    kept = [replace(detection(0, phase=phase, at=1000.0), id=i) for i, phase in ((3, "once"), (4, "start"), (5, "end"))]
    with contextlib.closing(schema.connect(log.store.path)) as db:
        schema.migrate(db, log.store.path, 2)
        columns = schema.COLUMNS[:-1]  # without `verified`
        db.executemany(
            f"INSERT INTO detections ({','.join(columns)}, logged_at) VALUES ({','.join('?' * len(columns))}, 0)",
            [[getattr(d, name) for name in columns] for d in (*ends, *kept)],
        )
    for _ in range(2):  # once, however often it is opened
        again = EventLog(log.store.path)
        found = {item.detection.id: item.detection for item in again.page(Filter(), 0, 10)[0]}
        assert [d.at for d in found.values()] == [1006.0, 1006.0, 1000.0, 1000.0, 1000.0]
        assert [d.start_at for d in found.values()] == [1000.0] * 5
        assert ids(again, since=1006.0) == [1, 2]
        again.close()


def test_what_a_second_model_said_is_kept(log):
    """On the wire and in exports null where it failed, and absent where there is none."""
    said = (True, False, None)
    log.publish([replace(detection(16000 * i), verified=v) for i, v in enumerate(said)])
    assert log.flush(10)
    assert tuple(item.detection.verified for item in log.page(Filter(), 0, 10)[0]) == said
    rows = [json.loads(line) for text in as_jsonl(log, Filter(), 0) for line in text.splitlines()]
    assert [row.get("verified", "absent") for row in rows] == [True, None, "absent"]
    cells = [row["verified"] for row in csv.DictReader(io.StringIO("".join(as_csv(log, Filter(), 0))))]
    assert cells == ["true", "", ""]


@pytest.mark.parametrize("bad", ["/proc/kws", "/dev/null/kws"])
def test_a_folder_that_cannot_be_written_is_told(bad):
    with pytest.raises(LogError, match=r"cannot write .* wanted --data-dir DIR"):
        Store(Path(bad) / "events.db")


def test_files_are_the_users_alone(log):
    for path in log.store.path.parent.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


def test_the_streams_of_an_earlier_run_are_known(log, tmp_path):
    log.positions.source = lambda _: [Position("a", "e1", 16000), Position("b", "e2", 5)]
    log.publish([replace(detection(1, stream="a"), epoch="e1")])
    log.flush(10)
    log.close()
    store = Store(tmp_path / "events.db")
    assert store.history.streams() == {"a": {"e1": 16000}, "b": {"e2": 5}}
    assert store.history.decided("a", "e1") == {("m", "yes"): 1 / 16000 + 1}
    store.close()


def test_positions_are_noted_though_nothing_is_detected(log):
    """A stream that has begun and found nothing yet is known to the log all the same, and forgotten when it is gone."""
    here = [Position("a", "e1", 16000)]
    log.positions.source = lambda _: here
    until(lambda: log.store.history.streams() == {"a": {"e1": 16000}})
    here.clear()
    until(lambda: log.store.history.streams() == {})


def test_what_the_disk_holds_up_is_bounded_and_told(tmp_path, monkeypatch):
    """While a commit hangs, what waits for it is bounded: the oldest beyond it get ids, and are a gap."""
    monkeypatch.setattr(writer, "INBOX", 100)
    log = EventLog(tmp_path / "events.db")
    pushed: list[int] = []
    log.on_commit = lambda found: pushed.extend(d.id for d in found)
    with contextlib.closing(sqlite3.connect(log.store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        log.publish([detection(0)])
        until(lambda: log._writer._inbox == [])  # it waits for the lock
        for i in range(1, 251):
            log.publish([detection(i), *([StreamDone("s", 5, "e")] if i == 1 else [])])
        assert len(log._writer._inbox) == 101
        other.execute("ROLLBACK")
    assert log.flush(20)
    assert pushed == [1, *range(152, 252)]
    assert [m for m in replayed(log) if m["type"] == "log_gap"] == [
        {"type": "log_gap", "from": 2, "to": 151, "reason": "not_durable"}
    ]
    log.close()


def test_a_hole_at_the_end_is_told_too(log):
    log.publish([detection(1)])
    log.flush(10)
    log._writer.do(lambda: log.store.append([], [Hole(2, 4, "not_durable")]))
    assert log.store.history.holes(0, 4) == [Hole(2, 4, "not_durable")]
    assert log.store.file.last_id == 4
