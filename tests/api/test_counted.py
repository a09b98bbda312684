"""What is counted and bounded: followers that are still told what they missed, and what a client does not take."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import numpy as np
import websockets
from websockets.exceptions import ConnectionClosed

from kws_serve.client import KwsClient, audio_sender
from kws_serve.engine.engine import Engine
from kws_serve.engine.viewers import Viewer
from kws_serve.messages import StreamState, View
from tests.engine.test_engine import finish, loaded, tones
from tests.sinks.test_event_log import detection
from tests.support.live_server import live_server
from tests.support.streams import words
from tests.support.tiny_model import write_level_model


async def test_followers_count_from_the_beginning_of_their_replay(level_model):
    with live_server([level_model]) as server:
        server.app.state.service.subscribers.most = 6  # three for one address: it must not have more than are free
        server.log.publish([detection(i) for i in range(20_000)])
        assert await asyncio.to_thread(server.log.flush, 60)
        async with contextlib.AsyncExitStack() as stack, asyncio.timeout(30):
            url = f"{server.ws}/v1/detections?after=0"
            all_of_them = [await stack.enter_async_context(websockets.connect(url, max_queue=1)) for _ in range(10)]
            refused = 0
            for ws in all_of_them[3:]:
                with contextlib.suppress(ConnectionClosed):
                    while True:
                        await ws.recv()
                refused += ws.close_code == 4429
            assert refused == 7
            assert len(server.app.state.service.subscribers) == 3


async def test_what_a_client_does_not_take_is_bounded_and_counted(level_model, monkeypatch):
    """One that only sends keeps the last messages; what was left out is told first."""
    monkeypatch.setattr(audio_sender, "INBOX_MESSAGES", 20)
    with live_server([level_model]) as server:
        async with asyncio.timeout(30), KwsClient(server.http) as to, to.audio("a", scores=True) as sender:
            await sender.send(words(2.0))
            await sender.end()
            await sender._reading
            assert sender._inbox.qsize() == 20
            found = [m async for m in sender]
    assert found[0]["type"] == "skipped"
    assert len(found) == 21
    assert found[0]["n"] > 60
    assert found[-1]["type"] == "done"


def test_one_that_ends_does_not_hide_another_of_its_name(tmp_path: Path):
    """A stream that was given up is still processed when the next of its name is open: viewers are told `live`."""
    engine = Engine([loaded(write_level_model(tmp_path))])
    told: list[View] = []
    engine.viewers.join(Viewer("a", "level", told.append))
    first = engine.open_stream("a", 16000)
    first.push(tones(1, 1.0), 0.0)
    first.close()
    second = engine.open_stream("a", 16000)
    finish(engine)
    states = [event.epoch for event in told if isinstance(event, StreamState)]
    assert states[0] == ""
    assert states[-1] == second.epoch
    second.push(np.zeros(1600, np.int16), 0.0)
    second.end()
    finish(engine)
    assert [event.epoch for event in told if isinstance(event, StreamState)][-1] == ""
