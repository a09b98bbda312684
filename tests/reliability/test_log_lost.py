"""FIELD 7: the service while its log's file is gone or unreadable."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import httpx
import pytest
import websockets
from websockets.exceptions import ConnectionClosedError

from tests.reliability.test_disk_full import until
from tests.sinks.test_damage import checkpointed, whole
from tests.sinks.test_event_log import detection, ids
from tests.support.live_server import live_server


async def test_meanwhile_it_is_not_ready_and_live_goes_on(level_model, tmp_path, capfd):
    """Its folder is gone and cannot be made again: live subscribers hear on, others are told to come later."""
    data = tmp_path / "state"
    data.mkdir()
    with live_server([level_model], data=data) as server:
        server.log.publish([detection(i) for i in range(20)])
        assert server.log.flush(10)
        async with asyncio.timeout(30), websockets.connect(f"{server.ws}/v1/detections") as ws:
            await ws.recv()  # hello
            shutil.rmtree(data)
            data.write_text("in the way")
            for i in range(20, 30):
                server.log.publish([detection(i)])
                assert await asyncio.to_thread(server.log.flush, 10)
                found = json.loads(await ws.recv())
                assert (found["id"], found["durable"]) == (i + 1, False)
            ready = await asyncio.to_thread(httpx.get, f"{server.http}/readyz")
            assert (ready.status_code, "removed" in ready.json()["status"]) == (503, True)
            data.unlink()
            await asyncio.to_thread(until, lambda: server.log.durable)
            assert (await asyncio.to_thread(httpx.get, f"{server.http}/readyz")).status_code == 200
        assert ids(server.log) == list(range(1, 31))


async def test_what_cannot_be_read_is_an_answer(level_model, tmp_path, capfd):
    """Pages and exports 503, subscribers 4429, and no traceback: they come back when it is mended."""
    with live_server([level_model], data=tmp_path) as server:
        server.log.publish([detection(i) for i in range(500)])
        assert server.log.flush(10)
        checkpointed(server.log.store.path)
        Path(f"{server.log.store.path}.salvage").mkdir()  # so that it is not mended meanwhile
        whole(server.log.store.path)
        server.log.publish([detection(501)])
        for path in ("/v1/detections", "/v1/detections.csv", "/v1/detections.jsonl", "/v1/detections/5/why"):
            answer = await asyncio.to_thread(httpx.get, f"{server.http}{path}")
            assert (answer.status_code, answer.json()["code"]) == (503, 503), path
        async with asyncio.timeout(10), websockets.connect(f"{server.ws}/v1/detections?after=0") as ws:
            said = []
            with pytest.raises(ConnectionClosedError):
                while True:
                    said.append(json.loads(await ws.recv()))
        assert [m["type"] for m in said] == ["hello", "error"]
        assert ws.close_code == 4429
    assert "Traceback" not in capfd.readouterr().err
