"""What waits for the log's commit and what does not: another connection holds the real file's lock meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import websockets

from tests.support.live_server import LiveServer, live_server
from tests.support.tiny_model import write_level_model

LOUD = np.full(1600, 20000, "<i2").tobytes()  # 0.1 s: the level model fires
QUIET = np.zeros(1600, "<i2").tobytes()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    with live_server([write_level_model(tmp_path)]) as running:
        running.log._writer.do(lambda: running.log.store.file.writer.execute("PRAGMA busy_timeout=60000").fetchall())
        yield running


@contextlib.contextmanager
def held_up(path: Path) -> Iterator[None]:
    """No commit ends meanwhile; reading goes on."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


async def until_type(ws: websockets.ClientConnection, wanted: str) -> list[dict]:
    """What comes, acknowledgements aside, up to the first message of a type."""
    found: list[dict] = []
    while not found or found[-1]["type"] != wanted:
        message = json.loads(await ws.recv())
        found += [message] if message["type"] != "ack" else []
    return found


async def test_scores_and_gaps_do_not_wait_for_a_commit_and_detections_do(server):
    """A detection at 0.1 s waits for its commit; the scores of what follows it, a gap and more scores arrive."""
    with sqlite3.connect(server.log.store.path) as reading:
        async with (
            websockets.connect(f"{server.ws}/v1/audio?stream=held&scores=1") as ws,
            websockets.connect(f"{server.ws}/v1/detections?stream=held") as subscriber,
        ):
            await until_type(subscriber, "hello")
            told = await until_type(ws, "ready")
            with held_up(server.log.store.path):
                await ws.send(LOUD + QUIET * 4)
                while told[-1].get("end_sample") != 8000:
                    told += await until_type(ws, "scores")
                server.engine.streams["held"].skip(800, "device")
                told += await until_type(ws, "gap")
                await ws.send(QUIET * 5)
                await ws.send('{"type":"end"}')
                while told[-1].get("end_sample") != 16800:
                    told += await until_type(ws, "scores")
                assert {m["type"] for m in told} == {"ready", "scores", "gap"}
                assert reading.execute("SELECT count(*) FROM detections").fetchone() == (0,)
            last = await until_type(ws, "done")
            pushed = (await until_type(subscriber, "detection"))[-1]
        assert [(g["first_sample"], g["n"]) for g in told if g["type"] == "gap"] == [(8000, 800)]
        assert [m["type"] for m in last if m["type"] != "scores"] == ["detection", "done"]  # done: nothing follows
        assert next(m for m in last if m["type"] == "detection") == pushed
        assert pushed["durable"] is True
        assert reading.execute("SELECT uid FROM detections").fetchall() == [(pushed["uid"],)]


async def test_what_does_not_wait_is_in_order_itself(server):
    async with websockets.connect(f"{server.ws}/v1/audio?stream=order&scores=1") as ws:
        await until_type(ws, "ready")
        with held_up(server.log.store.path):
            for _ in range(4):
                await ws.send(LOUD + QUIET * 4)
            told: list[dict] = []
            while not told or told[-1]["end_sample"] != 32000:
                told += await until_type(ws, "scores")
        await ws.send('{"type":"end"}')
        last = await asyncio.wait_for(until_type(ws, "done"), 60)
    assert [m["end_sample"] for m in told] == list(range(320, 32001, 320))
    samples = [m["start_sample"] for m in last if m["type"] == "detection"]
    assert len(samples) == 4
    assert samples == sorted(samples)
