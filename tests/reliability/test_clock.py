"""FIELD 7: the wall clock jumps an hour forth and back; samples are the truth, ids go on, nothing times out."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import websockets

from tests.proof import count, record
from tests.reliability.service import Service, running
from tests.reliability.streams import RawSender, expected, feed, words


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
