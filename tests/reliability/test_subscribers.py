"""FIELD 7: subscribers that come and go at random, and one that is slow: the same contiguous ids for all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random

import websockets
from websockets.exceptions import ConnectionClosed

from kws_serve.client import KwsClient
from tests.campaigns.proof import FULL, record
from tests.sinks.test_event_log import detection
from tests.support.live_server import LiveServer

SUBSCRIBERS = 100


async def test_random_disconnects_leave_no_hole(server: LiveServer):
    """Each ends with every id of the log, once, in order, however often it was cut off in the middle."""
    disconnects = 10_000 if FULL else 250
    begin = server.log.last_id
    left = disconnects
    done = asyncio.Event()

    async def subscriber(seed: int) -> list[int]:
        nonlocal left
        rng = random.Random(seed)
        ids = [begin]
        while not (done.is_set() and ids[-1] >= server.log.last_id):
            with contextlib.suppress(OSError, ConnectionClosed, EOFError, websockets.InvalidHandshake):
                async with websockets.connect(f"{server.ws}/v1/detections?after={ids[-1]}", close_timeout=0.1) as ws:
                    for _ in range(rng.randrange(1, 12)):
                        message = json.loads(await asyncio.wait_for(ws.recv(), 10))
                        if message["type"] == "detection":
                            ids.append(message["id"])
                        if ids[-1] >= server.log.last_id and done.is_set():
                            break
                    left -= 1
                    if rng.random() < 0.5:
                        ws.transport.abort()
            if left <= 0:
                done.set()
        return ids[1:]

    async def publisher() -> None:
        i = 10**6 + begin
        while not done.is_set():
            server.log.publish([detection(i + k, stream="many") for k in range(random.Random(i).randrange(1, 4))])
            i += 4
            await asyncio.sleep(0.5)  # about as fast as a hundred that always leave can read

    publishing = asyncio.create_task(publisher())
    everyone = await asyncio.wait_for(asyncio.gather(*(subscriber(s) for s in range(SUBSCRIBERS))), 3000)
    await publishing
    assert server.log.flush(10)
    end = server.log.last_id
    for ids in everyone:
        assert ids == list(range(begin + 1, begin + 1 + len(ids)))
        assert end - len(ids) - begin < 50  # to the end, but for what came while it looked
    figure = f"{end - begin} detections each, the same contiguous ids for all {SUBSCRIBERS}"
    record("resume, subscribers", f"{disconnects} disconnects", figure)


async def test_the_python_client_rides_through_a_wiped_log(level_model, free_port, tmp_path):
    """Another log_id: its ids begin anew, and everything of it is told."""
    from tests.support.live_server import live_server

    with live_server([level_model], port=free_port, data=tmp_path / "one") as one:
        client = KwsClient(one.http)
        feed = client.detections(after=0)
        one.log.publish([detection(i) for i in range(3)])
        seen = [(await anext(feed))["uid"] for _ in range(3)]
    with live_server([level_model], port=free_port, data=tmp_path / "two") as two:
        two.log.publish([detection(i) for i in range(100, 105)])
        seen += [(await asyncio.wait_for(anext(feed), 20))["uid"] for _ in range(5)]
        await feed.aclose()
    assert len(set(seen)) == 8
