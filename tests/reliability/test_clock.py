"""FIELD 7: the wall clock jumps an hour forth and back; samples are the truth, ids go on, nothing times out. A wrong
clock deletes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import websockets

from kws_serve.messages import Detection, Position
from kws_serve.sinks.store import Store
from tests.campaigns.proof import count, record
from tests.support.service import Service, running
from tests.support.streams import RawSender, expected, feed, words


def faketime_library() -> str:
    """libfaketime's path."""
    for folder in Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"):
        return str(folder)
    pytest.skip("needs libfaketime: apt-get install libfaketime")


async def test_the_wall_clock_jumps_an_hour(level_model, tmp_path, free_port):
    jumps = count(40, 4)
    clock = tmp_path / "clock"
    clock.write_text("+0")
    environ = {
        "LD_PRELOAD": faketime_library(),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # a real clock that jumps leaves it alone
    }
    audio = words(1.0 + 1.0 * jumps)
    service = Service(level_model.parent, free_port, tmp_path / "log", **environ)
    with running(service):
        async with (
            websockets.connect(f"{service.ws}/v1/detections?after=0", max_queue=None) as listener,
            websockets.connect(f"{service.ws}/v1/audio?stream=voice", max_queue=None) as ws,
        ):
            feeding = asyncio.create_task(feed(RawSender(ws), audio))
            for i in range(jumps):
                await asyncio.sleep(0.9)
                clock.write_text(("+3600", "-3600", "+0")[i % 3])
            await feeding
            messages = [json.loads(text) async for text in ws]
            rows = service.rows()
            assert json.loads(await listener.recv())["type"] == "hello"
            pushed = [json.loads(await listener.recv()) for _ in rows]
        status = service.status()
    assert messages[-1] == {"type": "done", "samples": len(audio)}
    assert not [m for m in messages if m["type"] in ("gap", "error")]
    assert [(d["label"], d["start_sample"]) for d in pushed] == expected(level_model, audio)
    assert [d["id"] for d in pushed] == list(range(1, len(pushed) + 1)) == [row["id"] for row in rows]
    assert max(row["at"] for row in rows) - min(row["at"] for row in rows) > 3000  # it did jump
    assert max(d["latency_ms"] for d in pushed) < 3e6
    assert status["log"]["durable"]
    assert not service.errors()
    record("clock jump", f"{jumps} jumps of 1 to 2 h", f"{len(pushed)} ids in order, 0 gaps, 0 timeouts")


DAY_S = 86400.0


def write_log(service: Service, logged_at: Sequence[float]) -> None:
    """A log of an earlier run: a detection, or so, for each of these times (s since 1970)."""
    store = Store(service.db)
    store.append(
        [
            Detection("s", "e", "m", "1", "onnx", "yes", 0.9, "once", i, i / 16000, i / 16000 + 1, 0.0, id=i)
            for i in range(1, len(logged_at) + 1)
        ],
        positions=[Position("s", "e", 16000)],
    )
    store.close()
    with contextlib.closing(sqlite3.connect(service.db)) as db:
        db.executemany(
            "UPDATE detections SET logged_at = ? WHERE id = ?", [(at, i + 1) for i, at in enumerate(logged_at)]
        )
        db.commit()


@pytest.mark.parametrize("clock", ["@1970-01-01 00:05:00", "+100d", "+0"])
def test_a_clock_that_is_wrong_at_the_start_deletes_nothing(level_model, tmp_path, free_port, clock):
    """One that is right neither, in its first hour; not for one row of 1970 either."""
    environ = {"LD_PRELOAD": faketime_library(), "FAKETIME": clock, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    service = Service(level_model.parent, free_port, tmp_path / "log", **environ)
    now_s = time.time()
    logged_at = [now_s - 50 * DAY_S + i for i in range(500)]
    logged_at[490] = 300.0
    write_log(service, logged_at)
    with running(service):
        assert service.terminate() == 0
    assert [row["logged_at"] for row in service.rows()] == logged_at
    store = Store(service.db)
    assert store.history.streams() == {"s": {"e": 16000}}
    store.close()
    told = [m["message"] for m in service.errors()]
    assert ["the clock" in message for message in told] == ([True] if "1970" in clock else [])
