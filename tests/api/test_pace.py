"""`pace` of /v1/audio: live streams go as time goes and answer pings meanwhile, free ones as fast as there is room."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import httpx
import numpy as np
import pytest
import websockets

from kws_serve.api import audio_door
from kws_serve.client import KwsClient
from kws_serve.engine.admission import MAX_LOAD
from kws_serve.engine.engine import Engine
from kws_serve.engine.turns import FREE_S, Turns
from kws_serve.messages import StreamRefused
from tests.support.live_server import live_server
from tests.support.streams import RATE, expected, words


def told(messages: list[dict]) -> list[tuple[str, int]]:
    return [(m["label"], m["start_sample"]) for m in messages if m["type"] == "detection"]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 (counted in other threads)
            await asyncio.sleep(0.01)


async def until_done(ws) -> list[dict]:
    messages = []
    while not messages or messages[-1]["type"] != "done":
        messages.append(json.loads(await ws.recv()))
    return messages


async def send_all(ws, audio: np.ndarray, chunk: int = RATE) -> None:
    for at in range(0, len(audio), chunk):
        await ws.send(audio[at : at + chunk].tobytes())


@pytest.mark.parametrize("transport", ["own", "plain"])
async def test_pings_are_answered_while_a_stream_is_held_back(level_model, transport):
    """Four minutes at once, as a script sends a file; the client's own pings close it after 40 s without an answer."""
    audio = np.tile(words(4.0), 60)
    with live_server([level_model], transport=transport) as server:
        async with (
            asyncio.timeout(60),
            websockets.connect(
                f"{server.ws}/v1/audio?stream=file", ping_interval=None, max_queue=None, close_timeout=0.1
            ) as ws,
        ):
            await send_all(ws, audio)
            for _ in range(3):
                await (await ws.ping())
            stream = server.engine.streams["file"]
            assert stream.received_samples < len(audio) / 2  # and it is still held back
            ws.transport.abort()


async def test_what_is_held_is_heard_in_order_to_the_end(server, level_model):
    audio = words(6.0)
    async with websockets.connect(f"{server.ws}/v1/audio?stream=held", max_queue=None) as ws:
        await send_all(ws, audio, 1600)
        await ws.send('{"type":"end"}')
        messages = await until_done(ws)
    assert messages[-1]["samples"] == len(audio)
    assert told(messages) == expected(level_model, audio)
    assert not [m for m in messages if m["type"] in ("gap", "error")]
    assert server.app.state.service.ingest.held._bytes == 0


@pytest.mark.parametrize("pace", ["live", "free"])
async def test_what_is_held_has_a_bound(level_model, monkeypatch, pace):
    most, seen = 40_000, []
    monkeypatch.setattr(audio_door, "HELD_BYTES", most)
    take = audio_door.Held.take
    monkeypatch.setattr(audio_door.Held, "take", lambda self, n, own: seen.append(own) or take(self, n, own))
    audio = words(8.0)
    with live_server([level_model]) as server:
        async with websockets.connect(f"{server.ws}/v1/audio?stream=much&pace={pace}", max_queue=None) as ws:
            await send_all(ws, audio, 3200)
            await ws.send('{"type":"end"}')
            messages = await until_done(ws)
    assert told(messages) == expected(level_model, audio)
    assert max(seen, default=0) <= most
    assert pace == "free" or max(seen) > 0


async def test_of_all_together_too_and_one_that_breaks_off_gives_it_back(level_model, monkeypatch):
    monkeypatch.setattr(audio_door, "HELD_OF_ALL_BYTES", 100_000)
    with live_server([level_model]) as server:
        held = server.app.state.service.ingest.held
        async with asyncio.timeout(30):
            sockets = [await websockets.connect(f"{server.ws}/v1/audio?stream=s{i}", max_queue=None) for i in range(3)]
            sending = [asyncio.create_task(send_all(ws, words(8.0), 3200)) for ws in sockets]
            await until(lambda: held._bytes > 90_000)
            assert held._bytes <= 100_000
            for ws, task in zip(sockets, sending, strict=True):
                ws.transport.abort()
                await asyncio.wait({task})
            await until(lambda: held._bytes == 0)


async def test_one_that_leaves_in_order_is_heard_to_its_last_sample(level_model):
    audio = words(10.0)
    with live_server([level_model]) as server:
        async with websockets.connect(f"{server.ws}/v1/audio?stream=left", max_queue=None) as ws:
            await send_all(ws, audio)
        await until(lambda: server.engine.totals_s()[1] == 10.0 and not server.engine.streams)
        assert server.engine.totals_s() == (10.0, 10.0, 0.0)
        assert server.log.flush(10)
        async with httpx.AsyncClient() as client:
            items = (await client.get(f"{server.http}/v1/detections")).json()["items"]
        assert told(items) == expected(level_model, audio)


@pytest.mark.parametrize("transport", ["own", "plain"])
async def test_free_is_computed_as_fast_as_it_goes_and_drops_nothing(level_model, transport):
    audio = np.tile(words(4.0), 75)  # five minutes
    with live_server([level_model], transport=transport) as server:
        async with asyncio.timeout(120), KwsClient(server.http) as client, client.audio("free", pace="free") as sender:
            await sender.send(audio)
            await sender.end()
            messages = [m async for m in sender]
        assert messages[-1] == {"type": "done", "samples": len(audio)}
        assert server.engine.totals_s() == (300.0, 300.0, 0.0)
    assert told(messages) == expected(level_model, audio)
    assert all(m["latency_ms"] is None for m in messages if m["type"] == "detection")


async def test_beside_free_streams_a_live_one_loses_nothing(level_model):
    free, live = np.tile(words(4.0), 25), words(4.0)
    with live_server([level_model]) as server:

        async def feed(name: str, audio: np.ndarray, pace: str) -> list[dict]:
            async with websockets.connect(f"{server.ws}/v1/audio?stream={name}&pace={pace}", max_queue=None) as ws:
                await send_all(ws, audio, 1600)
                await ws.send('{"type":"end"}')
                return await until_done(ws)

        async with asyncio.timeout(120):
            found = await asyncio.gather(*(feed(f"f{i}", free, "free") for i in range(4)), feed("live", live, "live"))
    assert told(found[-1]) == expected(level_model, live)
    for messages in found[:-1]:
        assert told(messages) == expected(level_model, free)
    assert not [m for messages in found for m in messages if m["type"] in ("gap", "error")]


async def test_another_pace_is_refused(server):
    async with websockets.connect(f"{server.ws}/v1/audio?stream=a&pace=fast") as ws:
        message = json.loads(await ws.recv())
    assert message["message"] == "pace: found 'fast', wanted one of live, free"


def test_free_streams_count_neither_for_admission_nor_as_late():
    engine = Engine([])
    engine.load.share = MAX_LOAD + 0.05
    with pytest.raises(StreamRefused, match="busy"):
        engine.open_stream("live", RATE)
    free = engine.open_stream("free", RATE, live=False)
    free.push(np.zeros(10 * RATE, np.int16), 0.0)
    assert engine.lag_s == 0.0
    engine.load.share = 0.0
    before = engine.load.expected(0)
    for i in range(50):
        engine.open_stream(f"free-{i}", RATE, live=False)
    assert engine.load.expected(0) == before


def streams_of(*live: bool) -> list:
    engine = Engine([])
    return [engine.open_stream(f"s{i}", RATE, live=x, kind="file") for i, x in enumerate(live)]


def test_free_streams_take_turns_and_live_ones_always_have_theirs():
    streams, turns = streams_of(True, False, False, True, False), Turns()
    seen = []
    for _ in range(6):
        has, waits = turns.of(streams, 0.5)
        assert {s.slot for s in has} | {s.slot for s in waits} == set(range(5))
        assert {0, 3} < {s.slot for s in has}
        seen.append([s.slot for s in has if not s.live])
    assert seen == [[1], [2], [4], [1], [2], [4]]
    has, waits = turns.of(streams, MAX_LOAD)
    assert ([s.slot for s in has], [s.slot for s in waits]) == ([0, 3], [1, 2, 4])


def test_as_many_free_streams_as_their_time_allows_have_a_turn():
    streams, turns = streams_of(*[False] * 40), Turns()
    most = []
    for _ in range(60):
        n = len(turns.of(streams, 0.0)[0])
        most.append(n)
        turns.note(0.5, 0.5 * n, 0.001 + 0.001 * n)  # 1 ms each
    assert max(most[20:]) <= 2 * FREE_S / 0.001
    assert min(most[20:]) >= FREE_S / 0.001 / 2 - 1
    assert turns.live_share == pytest.approx(1 / (1 + most[-1]))
