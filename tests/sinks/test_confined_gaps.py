"""What the log lacks, as it is told to one who may hear some streams: of its own rows, whatever became of others'."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from kws_serve.messages import Detection, Hole, JsonObject
from kws_serve.sinks import holes as holes_module
from kws_serve.sinks import waiting, writer
from kws_serve.sinks.event_log import EventLog
from kws_serve.sinks.filter import Filter
from kws_serve.sinks.salvage import salvage
from kws_serve.sinks.telling import Telling
from tests.sinks.test_event_log import detection, until

A, B = Filter(streams=frozenset("a")), Filter(streams=frozenset("b"))


def published(path: Path, streams: str) -> EventLog:
    """A log with a row for each letter, of the stream of this name."""
    log = EventLog(path / "events.db")
    log.publish([detection(i, stream=stream) for i, stream in enumerate(streams)])
    assert log.flush(10)
    return log


def told(log: EventLog, wanted: Filter, after: int = 0) -> list[object]:
    """Ids of rows, and the rest as (from, to, reason)."""
    return plain(map(json.loads, log.replay(wanted, after, log.last_id)[0]))


def plain(messages: Iterable[JsonObject]) -> list[object]:
    return [m["id"] if m["type"] == "detection" else (m["from"], m["to"], m["reason"]) for m in messages]


def forget(log: EventLog, *ids: int) -> None:
    log._writer.do(lambda: log.store.space.forget(ids))


def test_rows_of_others_that_were_forgotten_are_no_gap(tmp_path):
    log = published(tmp_path, "abbabab")
    forget(log, 2, 3)
    assert told(log, A) == [1, 4, 6]
    assert told(log, B) == [(1, 3, "retention"), 5, 7]
    forget(log, 1)
    forget(log, 4)
    assert told(log, A) == [(1, 4, "retention"), 6]
    assert told(log, A, after=1) == [(2, 4, "retention"), 6]
    assert told(log, A, after=4) == [6]
    assert told(log, B) == [(1, 3, "retention"), 5, 7]
    log.close()


def test_what_was_forgotten_is_known_to_be_ones_own_at_the_next_start(tmp_path):
    """All of a's rows are gone: an id of them is still one of this log."""
    log = published(tmp_path, "aabb")
    forget(log, 1, 2)
    log.close()
    log = EventLog(tmp_path / "events.db")
    loop = asyncio.new_event_loop()
    log.bind(loop)
    assert told(log, A) == [(1, 2, "retention")]
    assert log.newest_id(A.streams) == 2
    assert log.start_after(A.streams, 2, log.log_id) == (2, False)
    assert log.start_after(A.streams, 3, log.log_id) == (0, True)
    log.close()
    loop.close()


async def live(log: EventLog, wanted: Filter, n: int) -> list[object]:
    """The next `n` that a subscriber gets."""
    subscriber = log.subscribe(wanted)
    found: list[object] = []
    async with asyncio.timeout(20):
        while len(found) < n:
            found += plain(map(json.loads, await subscriber.take() or []))
    return found


async def test_what_a_hanging_commit_shed_is_told_to_whom_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "INBOX", 4)
    log = published(tmp_path, "ab")
    log.bind(asyncio.get_running_loop())
    subscribers = [asyncio.create_task(live(log, wanted, n)) for wanted, n in ((Filter(), 6), (A, 3), (B, 3))]
    await asyncio.sleep(0)
    with contextlib.closing(sqlite3.connect(log.store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        log.publish([detection(2, stream="a")])
        await asyncio.to_thread(until, lambda: log._writer._inbox == [])  # it waits for the lock
        for i, stream in enumerate("bbbabcab"):
            log.publish([detection(10 + i, stream=stream)])
        other.execute("ROLLBACK")
    everybody, a, b = await asyncio.gather(*subscribers)
    assert everybody == [3, (4, 7, "not_durable"), 8, 9, 10, 11]
    assert b == [(3, 6, "not_durable"), 8, 11]
    assert a == [3, (4, 7, "not_durable"), 10]
    for after in (0, 2):
        assert told(log, Filter(streams=frozenset("c")), after) == [9]
        assert told(log, B, after)[-3:] == b
        assert told(log, A, after)[-3:] == a
    log.close()


def test_what_memory_no_longer_keeps_is_told_to_whom_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(waiting, "WAITING", 3)
    log = published(tmp_path, "ab")
    log._writer.do(lambda: log._writer._fail("no room"))
    log._writer._next_recover_s = 1e18
    log.publish([detection(10 + i, stream=stream) for i, stream in enumerate("acbcc")])
    assert log.flush(10)
    for _ in range(2):  # while it waits, and once it is written
        assert told(log, Filter()) == [1, 2, (3, 4, "not_durable"), 5, 6, 7]
        assert told(log, A) == [1, (2, 3, "not_durable")]
        assert told(log, B) == [2, 5]
        log._writer.do(log._writer._recover)
    assert not log.fault
    log.close()


@pytest.mark.parametrize("after", [0, 1])
def test_what_may_be_anybodys_is_told_between_ones_own_rows(tmp_path, after):
    """A damaged page: where it ends and how much it held is nobody's but theirs who may hear all."""
    log = published(tmp_path, "abbbba")
    with sqlite3.connect(log.store.path) as db:
        db.execute("DELETE FROM detections WHERE id IN (3, 4)")
    assert told(log, Filter(), after)[-4:] == [2, (3, 4, "retention"), 5, 6]
    assert told(log, A, after)[-2:] == [(2, 5, "retention"), 6]
    assert told(log, B, after) == [2, (3, 4, "retention"), 5]
    with sqlite3.connect(log.store.path) as db:
        db.execute("DELETE FROM detections WHERE id = 6")
    assert told(log, A, 1) == []  # until one of its own comes
    log.publish([detection(9, stream="a")])
    log.flush(10)
    assert told(log, A, 1) == [(2, 6, "retention"), 7]
    log.close()


def test_whose_it_was_is_known_in_a_file_that_was_written_anew(tmp_path):
    log = published(tmp_path, "abba")
    forget(log, 2, 3)
    (tmp_path / "anew").mkdir()
    salvage(log.store.file.read, tmp_path / "anew" / "events.db")
    log.close()
    log = EventLog(tmp_path / "anew" / "events.db")
    assert told(log, A) == [1, 4]
    assert told(log, B) == [(1, 3, "retention")]
    log.close()


def test_of_very_many_streams_a_hole_may_be_anybodys(tmp_path, monkeypatch):
    """Names are kept of so many only."""
    monkeypatch.setattr(holes_module, "MOST_NAMED", 2)
    log = published(tmp_path, "abcda")
    forget(log, 1, 2)
    assert told(log, Filter(streams=frozenset("d"))) == [4]
    forget(log, 3)
    assert told(log, Filter(streams=frozenset("d"))) == [(1, 3, "retention"), 4]
    assert told(log, A) == [(1, 4, "retention"), 5]
    log.close()


# whatever others do

SEGMENTS = st.lists(
    st.tuples(
        st.sampled_from(["kept", "kept", "forgotten", "shed", "damaged"]), st.text("abcd", min_size=1, max_size=6)
    ),
    max_size=8,
)


def world(path: Path, segments: list[tuple[str, str]], part: int) -> tuple[EventLog, dict[int, str]]:
    """A log with such rows and holes, and whose each id was; rows are forgotten `part` at a time."""
    rows: list[Detection] = []
    holes: list[Hole] = []
    due: list[int] = []
    whose: dict[int, str] = {}
    for fate, streams in segments:
        first = len(whose) + 1
        named = "".join(sorted(streams)) if fate == "shed" else streams  # those of each stream follow one another
        whose |= dict(enumerate(named, first))
        ids = range(first, len(whose) + 1)
        if fate in ("kept", "forgotten"):
            rows += [replace(detection(id_, stream=whose[id_]), id=id_) for id_ in ids]
            due += ids if fate == "forgotten" else []
        else:
            lasts = {whose[id_]: id_ for id_ in ids}
            reason = "not_durable" if fate == "shed" else "damaged"
            holes.append(Hole(first, ids[-1], reason, lasts if fate == "shed" else None))
    log = EventLog(path / "events.db")
    log._writer.do(lambda: log.store.append(rows, holes))
    for at in range(0, len(due), part):
        forget(log, *due[at : at + part])
    return log, whose


def told_by_place(log: EventLog, whose: dict[int, str], wanted: Filter, after: int, rows: int) -> list[object]:
    """What is told in parts of so many rows, its ids as places among one's own; the first `after` are not asked for."""
    own = [0, *(id_ for id_, stream in whose.items() if stream in (wanted.streams or ()))]
    reach = own[min(after, len(own) - 1)]
    telling, found = Telling(wanted, reach), []
    while reach < len(whose):
        texts, reach = log.replay(wanted, reach, len(whose), rows, telling)
        found += plain(map(json.loads, texts))
    places: list[object] = []
    for one in found:
        if isinstance(one, tuple):
            first, last, reason = one
            assert first - 1 in own
            assert last in own or last + 1 in own
            one = (sum(id_ < first for id_ in own), sum(id_ <= last for id_ in own), reason)
        places.append(own.index(one) if isinstance(one, int) else one)
    return places


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(segments=SEGMENTS, after=st.integers(0, 12), rows=st.integers(1, 4), parts=st.tuples(*[st.integers(1, 5)] * 2))
@example(segments=[("forgotten", "a"), ("kept", "c"), ("forgotten", "a")], after=0, rows=1, parts=(1, 1))
def test_it_is_the_same_whatever_others_do(tmp_path_factory, segments, after, rows, parts):
    """Beside others' rows and without; where nobody knows whose was lost, some of one's own was. Not asked from the
    midst of such a loss: whether the rest of it had own rows is not known, so that it is told.
    """
    wanted = Filter(streams=frozenset("ab"))
    segments = [(fate, f"a{streams}" if fate == "damaged" else streams) for fate, streams in segments]
    alone = [(fate, "".join(s for s in streams if s in "ab")) for fate, streams in segments]
    fates = [fate for fate, streams in alone for _ in streams]
    assume(after == 0 or not fates or fates[min(after, len(fates)) - 1] != "damaged")
    answers = []
    for some, part in zip((segments, [one for one in alone if one[1]]), parts, strict=True):
        log, whose = world(tmp_path_factory.mktemp("log"), some, part)
        answers.append(told_by_place(log, whose, wanted, after, rows))
        kept = Counter(fate == "kept" for fate, streams in alone for _ in streams)
        if after == 0:
            assert sum(isinstance(one, int) for one in answers[-1]) == kept[True]
        log.close()
    assert answers[0] == answers[1]
