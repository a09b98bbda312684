"""What the log forgets, and when the clock is believed: a wrong clock deletes nothing, a right one the old rows."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kws_serve.api.export import as_csv, as_jsonl
from kws_serve.messages import Detection, Hole, Position
from kws_serve.sinks import expiry as expiry_module
from kws_serve.sinks import space as space_module
from kws_serve.sinks.clock_guard import AGREED_S, APART_S, ClockGuard
from kws_serve.sinks.event_log import EventLog
from kws_serve.sinks.expiry import Expiry, Retention, spans
from kws_serve.sinks.filter import Filter
from kws_serve.sinks.schema import connect, migrate, transaction
from kws_serve.sinks.store import Store

NOW_S = 1.8e9
DAY_S = 86400.0


# the clock

looks = st.lists(
    st.tuples(
        st.sampled_from([0.0, 1.0, 59.0, 60.0, 600.0, 3599.0, 3600.0, 90_000.0]),  # since the look before
        st.sampled_from([0.0, 0.0, 0.0, 0.0, 1.0, -1.0, 30.0, -30.0, 61.0, -3600.0, 3600.0, 8.64e6, -8.64e6]),  # a step
    ),
    max_size=200,
)


@settings(max_examples=500, deadline=None)
@given(looks=looks, ahead_s=st.sampled_from([-1e9, -1.0, 0.0, 7200.0]))
def test_the_clock_is_believed_after_an_hour_in_which_both_agreed_and_never_else(looks, ahead_s):
    """`ahead_s`: how far the newest row is ahead of the clock at the start."""
    guard = ClockGuard(NOW_S + ahead_s)
    wall_s, monotonic_s = NOW_S, 1000.0
    history: list[tuple[float, float]] = []
    for passed_s, step_s in looks:
        wall_s, monotonic_s = wall_s + passed_s + step_s, monotonic_s + passed_s
        history.append((wall_s, monotonic_s))
        before = [i for i, (_, at_s) in enumerate(history) if at_s <= monotonic_s - AGREED_S]
        hour = [wall - at_s for wall, at_s in history[before[-1] if before else 0 :]]
        agreed = bool(before) and max(hour) - min(hour) <= APART_S
        assert guard.look(wall_s, monotonic_s) == (agreed and wall_s > NOW_S + ahead_s)


def believed_after(guard: ClockGuard, wall_s: float, monotonic_s: float, *, rate: float = 1.0) -> float | None:
    """Seconds of a monotonic clock until a clock of this `rate` is believed, looked at every minute for a day."""
    for passed_s in range(0, 86400, 60):
        if guard.look(wall_s + rate * passed_s, monotonic_s + passed_s):
            return passed_s
    return None


def test_a_step_and_a_suspended_machine_begin_the_hour_anew():
    guard = ClockGuard(0.0)
    assert believed_after(guard, NOW_S, 0.0) == 3600
    assert not guard.look(NOW_S + 3660 + 61, 3660.0)  # it slept a minute, or was set
    assert believed_after(guard, NOW_S + 3720 + 61, 3720.0) == 3540
    assert not guard.look(NOW_S - 1e6, 7400.0)
    assert not guard.look(NOW_S + 7460 + 61, 7460.0)  # back again: what was in between was within the hour
    assert believed_after(guard, NOW_S + 7500 + 61, 7500.0) == 3600


@pytest.mark.parametrize(("rate", "after_s"), [(1.0005, 3600), (0.9995, 3600), (1.016, 3600), (1.018, None)])
def test_a_slewed_clock_is_believed_unless_it_gains_a_minute_an_hour(rate, after_s):
    assert believed_after(ClockGuard(0.0), NOW_S, 0.0, rate=rate) == after_s


def test_a_clock_behind_the_newest_row_is_believed_once_it_is_later():
    assert believed_after(ClockGuard(NOW_S + 7200), NOW_S, 0.0) == 7260


# the rows


def write(path: Path, logged_at: Sequence[float], holes: Sequence[Hole] = ()) -> Store:
    """A file with a row for each time, its ids in order, but for those in `holes`."""
    store = Store(path)
    skipped = {id_ for hole in holes for id_ in range(hole.first, hole.last + 1)}
    ids = [id_ for id_ in range(1, len(logged_at) + len(skipped) + 1) if id_ not in skipped]
    rows = [Detection("s", "e", "m", "1", "onnx", "yes", 0.9, "once", i, i / 16000, 1.0, 0.0, id=i) for i in ids]
    store.append(rows, holes, positions=[Position("s", "e", 1)])
    with transaction(store.file.writer) as db:
        db.executemany("UPDATE detections SET logged_at = ? WHERE id = ?", list(zip(logged_at, ids, strict=True)))
        db.execute("UPDATE streams SET seen_at = ?", (NOW_S - 2 * DAY_S,))
    return store


def kept(store: Store) -> list[int]:
    return [item.detection.id for item in store.history.rows(Filter(), 0, 1_000_000)]


def an_hour(expiry: Expiry, *, wall_s: float = NOW_S, monotonic_s: float = 0.0) -> None:
    for minute in range(61):
        expiry.look(wall_s + 60 * minute, monotonic_s + 60 * minute)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was logged."""
    return lambda: caplog.messages


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ages_days=st.lists(st.sampled_from([0.0, 10.0, 89.0, 91.0, 20_000.0, -100.0]), min_size=1, max_size=40),
    hole=st.tuples(st.integers(1, 40), st.integers(1, 5)),
    after=st.integers(0, 45),
)
def test_only_rows_that_are_old_themselves_go_and_each_missing_id_is_told(tmp_path_factory, ages_days, hole, after):
    first = min(hole[0], len(ages_days) + 1)
    holes = [Hole(first, first + hole[1] - 1, "not_durable")]
    path = tmp_path_factory.mktemp("log") / "events.db"
    logged_at = [NOW_S - days * DAY_S for days in ages_days]
    store = write(path, logged_at, holes)
    before = kept(store)
    newest_s = logged_at[-1]
    an_hour(Expiry(store, Retention(), NOW_S))
    due = newest_s < NOW_S + 3600
    left = [id_ for id_, days in zip(before, ages_days, strict=True) if days < 90 or not due]
    assert kept(store) == left
    assert store.history.streams() == ({} if due else {"s": {"e": 1}})
    store.close()
    log = EventLog(path)
    texts, reach = log.replay(Filter(), after, log.last_id)
    messages = [json.loads(text) for text in texts]
    covered = []
    for m in messages:
        span = [m["id"]] if m["type"] == "detection" else list(range(m["from"], m["to"] + 1))
        covered += span
        if m["type"] == "log_gap":
            durable = {holes[0].first <= id_ <= holes[0].last for id_ in span}
            assert m["reason"] == "retention" or durable == {True}
            if left and left[0] < span[0] and durable == {True}:
                assert m["reason"] == "not_durable"
    assert covered == list(range(after + 1, log.last_id + 1))
    assert reach == log.last_id
    assert [m["id"] for m in messages if m["type"] == "detection"] == [id_ for id_ in left if id_ > after]
    assert [json.loads(line)["id"] for line in "".join(as_jsonl(log, Filter(), 0)).splitlines()] == left
    assert len("".join(as_csv(log, Filter(), 0)).splitlines()) == 1 + len(left)
    log.close()


def test_one_row_of_1970_takes_no_other_with_it(tmp_path, told):
    logged_at = [NOW_S - 5000 + i for i in range(5000)]
    logged_at[4989] = 300.0
    store = write(tmp_path / "events.db", logged_at)
    an_hour(Expiry(store, Retention(), NOW_S))
    assert kept(store) == [id_ for id_ in range(1, 5001) if id_ != 4990]
    assert told() == ["event log: deleted 1 detections older than 90 days: ids 4990"]
    store.close()


def test_a_clock_far_ahead_deletes_nothing_for_an_hour_after_each_step(tmp_path, told):
    store = write(tmp_path / "events.db", [NOW_S - DAY_S + i for i in range(100)])
    expiry = Expiry(store, Retention(), NOW_S + 100 * DAY_S)
    for second in range(0, 3600, 60):
        expiry.look(NOW_S + 100 * DAY_S + second, second)
    for minute in range(180):
        expiry.look(NOW_S + 60 * minute + (100 * DAY_S if minute % 60 == 0 else 0), 3600.0 + 60 * minute)
    assert kept(store) == list(range(1, 101))
    assert told() == []
    store.close()


def test_a_start_before_the_newest_row_is_told_and_deletes_nothing_until_later(tmp_path, told):
    store = write(tmp_path / "events.db", [NOW_S - 91 * DAY_S, NOW_S, NOW_S + DAY_S])
    expiry = Expiry(store, Retention(), NOW_S)
    assert "the clock is 86400 s before the newest detection" in told()[0]
    an_hour(expiry)
    assert kept(store) == [1, 2, 3]
    an_hour(expiry, wall_s=NOW_S + DAY_S, monotonic_s=DAY_S)
    assert kept(store) == [2, 3]
    store.close()


def test_by_size_the_oldest_ids_go_whatever_their_dates_say(tmp_path, told):
    """Before the first hour is over, too."""
    logged_at = [NOW_S - i for i in range(3000)]
    store = write(tmp_path / "events.db", logged_at, [Hole(2, 1_000_001, "not_durable")])
    expiry = Expiry(store, Retention(megabytes=0.3), NOW_S - 1e6)
    for minute in range(3):  # the index of uids shrinks less than the rows do
        expiry.look(NOW_S - 1e6 + 60 * minute, 60.0 * minute)
    left = kept(store)
    assert 0 < len(left) < 3000
    assert left == list(range(left[0], 1_003_001))
    assert store.space.used_bytes <= 0.3e6
    assert "the oldest beyond 0.3 MB: ids 1, 1000002-" in told()[1]
    assert told()[-1].endswith(f"-{left[0] - 1}")
    store.close()


def test_much_is_deleted_in_parts_minute_by_minute(tmp_path, monkeypatch, told):
    monkeypatch.setattr(space_module, "EXPIRE_ROWS", 100)
    monkeypatch.setattr(expiry_module, "EXPIRE_ROWS", 100)
    store = write(tmp_path / "events.db", [NOW_S - 100 * DAY_S + i for i in range(250)] + [NOW_S - 1] * 10)
    expiry = Expiry(store, Retention(), NOW_S)
    an_hour(expiry)
    for minute, left in ((61, 60), (62, 10), (63, 10)):
        expiry.look(NOW_S + 60 * minute, 60.0 * minute)
        assert len(kept(store)) == left
    assert [line.rpartition("ids ")[2] for line in told()] == ["1-100", "101-200", "201-250"]
    store.close()


@pytest.mark.parametrize("keep", [Retention(megabytes=0.2), Retention(days=1.0)], ids=["size", "age"])
def test_commits_do_not_wait_for_a_deletion(tmp_path, keep):
    """Between parts of at most so many rows others may write."""
    store = write(tmp_path / "events.db", [NOW_S - 100 * DAY_S + i for i in range(2000)])
    expiry = Expiry(store, keep, NOW_S)
    left = [2000]
    for minute in range(62):
        expiry.look(NOW_S + 60 * minute, 60.0 * minute, lambda: left.append(len(kept(store))))
    assert left[-1] < 1000
    assert max(before - after for before, after in itertools.pairwise(left)) <= space_module.PART_ROWS
    store.close()


def test_no_look_reads_all_rows(tmp_path):
    """What is asked each minute goes by an index, whatever the log's size."""
    store = write(tmp_path / "events.db", [NOW_S] * 10)
    asked: list[str] = []
    store.file.writer.set_trace_callback(asked.append)
    Expiry(store, Retention(megabytes=0.001), NOW_S).look(NOW_S, 0.0)
    store.space.older_than(NOW_S - 1)
    store.file.writer.set_trace_callback(None)
    selects = [sql for sql in asked if sql.startswith("SELECT")]
    assert len(selects) >= 2
    for sql in selects:
        for *_, plan in store.file.read(f"EXPLAIN QUERY PLAN {sql}"):
            assert not plan.startswith("SCAN") or "LIMIT" in sql, sql
    store.close()


def test_marks_of_other_rows_stay(tmp_path):
    store = write(tmp_path / "events.db", [NOW_S, 0.0, NOW_S])
    for id_ in (1, 2, 3):
        assert store.review(id_, "right")
    an_hour(Expiry(store, Retention(), NOW_S + 1), wall_s=NOW_S + 1)
    rows = store.history.rows(Filter(), 0, 9)
    assert [(item.detection.id, item.review) for item in rows] == [(1, "right"), (3, "right")]
    assert not store.review(2, "wrong")
    store.close()


def test_a_log_of_the_first_schema_gets_the_index_that_finds_old_rows(tmp_path):
    with contextlib.closing(connect(tmp_path / "events.db")) as db:
        migrate(db, tmp_path, 1)
        db.execute(
            "INSERT INTO detections VALUES (1, 'u', ?, 's', 'e', 'm', '1', '', 'onnx', 'yes', 0.9, 'once', 0, 0, 0, 0, "
            "NULL, NULL, NULL)",
            (NOW_S,),
        )
    store = Store(tmp_path / "events.db")
    plan = store.file.read("EXPLAIN QUERY PLAN SELECT id FROM detections WHERE logged_at < 1 ORDER BY logged_at")
    assert "detections_logged_at" in str(plan)
    assert kept(store) == [1]
    store.close()


def test_the_running_log_looks_at_the_clock_itself(tmp_path):
    """A row of 1970 is there until an hour has gone by for the writer's thread."""
    write(tmp_path / "events.db", [time.time() - 2, 300.0, time.time() - 1]).close()
    log = EventLog(tmp_path / "events.db")
    began_s = time.monotonic()
    for minute in range(60):
        log._writer.do(lambda s=60.0 * minute: log._expiry.look(time.time() + s, began_s + s))
        assert [item.detection.id for item in log.page(Filter(), 0, 9)[0]] == [1, 2, 3]
    log._writer.do(lambda: log._expiry.look(time.time() + 3601, began_s + 3601))
    assert [item.detection.id for item in log.page(Filter(), 0, 9)[0]] == [1, 3]
    log.close()


@pytest.mark.parametrize(
    ("ids", "text"),
    [([7], "7"), ([1, 2, 3, 7, 9, 10], "1-3, 7, 9-10"), (list(range(1, 61, 2)), "37, 39 and 10 more spans up to 59")],
)
def test_ids_as_spans(ids, text):
    assert spans(ids).endswith(text)
