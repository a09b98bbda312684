"""FIELD 7: an ingest client that loses its connection, or its service, goes on where it was."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable

import httpx
import numpy as np
import pytest
import websockets

from kws_serve.api import audio_socket, ingest
from kws_serve.client import KwsClient
from tests.support.live_server import LiveServer, live_server
from tests.support.proxy import Proxy
from tests.support.streams import RATE, expected, words


async def test_a_connection_cut_at_random_changes_nothing(level_model):
    """The same detections as uncut: same samples, no gap, one epoch."""
    audio = words(12)
    with live_server([level_model]) as server:
        async with Proxy(server.server.port) as proxy:
            rng = random.Random(1)
            async with KwsClient(f"http://127.0.0.1:{proxy.port}") as client, client.audio("cut") as sender:
                epoch = sender.ready["epoch"]

                async def sending() -> None:
                    for at in range(0, len(audio), 1600):
                        if rng.random() < 0.15:
                            proxy.cut()
                        await sender.send(audio[at : at + 1600])
                    await sender.end()

                feeding = asyncio.create_task(sending())
                messages = [m async for m in sender]
                await feeding
            assert proxy.cuts > 5
        page = httpx.get(f"{server.http}/v1/detections?limit=1000").json()["items"]
        received_s = server.engine.totals_s()[0]
    assert messages[-1] == {"type": "done", "samples": len(audio)}
    assert not [m for m in messages if m["type"] in ("gap", "error")]
    assert {d["epoch"] for d in page} == {epoch}
    assert [(d["label"], d["start_sample"]) for d in page] == expected(level_model, audio)
    assert received_s == pytest.approx(len(audio) / RATE)


async def test_audio_that_the_clients_ring_has_lost_is_an_exact_gap(server):
    async with websockets.connect(f"{server.ws}/v1/audio?stream=holey") as ws:
        epoch = json.loads(await ws.recv())["epoch"]
        await ws.send(words(1).tobytes()[:16000])
        ws.transport.abort()
    async with websockets.connect(f"{server.ws}/v1/audio?stream=holey") as ws:
        await ws.send(json.dumps({"type": "resume", "epoch": epoch, "first_sample": 10000}))
        assert json.loads(await ws.recv())["next_sample"] == 10000
        await ws.send(b"\0" * 320)
        await ws.send('{"type":"end"}')
        messages = [json.loads(text) async for text in ws]
    gaps = [m for m in messages if m["type"] == "gap"]
    assert [(g["first_sample"], g["n"], g["reason"]) for g in gaps] == [(8000, 2000, "client")]
    assert messages[-1] == {"type": "done", "samples": 10160}


async def test_what_was_found_meanwhile_is_told_at_once(server):
    """A client that comes back says nothing more, and yet hears what was found in what it had sent."""
    tick = server.engine.tick
    server.engine.tick = list  # it finds nothing until the client has gone
    async with websockets.connect(f"{server.ws}/v1/audio?stream=back") as ws:
        ready = json.loads(await ws.recv())
        stream = server.engine.streams["back"]
        await ws.send(words(1).tobytes())
        await until(lambda: stream.received_samples == RATE)
        ws.transport.abort()
    await until(lambda: not stream.connected)
    server.engine.tick = tick
    socket = server.app.state.service.ingest.feeding["back"]
    await until(lambda: any('"detection"' in text for text in socket.outbox.texts))
    async with websockets.connect(f"{server.ws}/v1/audio?stream=back") as ws:
        await ws.send(json.dumps({"type": "resume", "epoch": ready["epoch"], "first_sample": RATE}))
        async with asyncio.timeout(5):
            while json.loads(await ws.recv())["type"] != "detection":
                pass


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that comes soon."""
    for _ in range(500):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come")


async def test_nobody_comes_back_and_the_stream_ends(server, monkeypatch):
    monkeypatch.setattr(audio_socket, "RESUME_S", 0.3)
    async with websockets.connect(f"{server.ws}/v1/audio?stream=gone") as ws:
        await ws.recv()
        await ws.send(words(1).tobytes()[:16000])
        ws.transport.abort()
    stream = server.engine.streams["gone"]
    for _ in range(400):
        if "gone" not in server.engine.streams and stream.counts[3] == 0:
            break
        await asyncio.sleep(0.01)
    assert stream.counts == (8000, 8000, 0, 0)


async def test_one_that_begins_anew_gets_the_name_of_one_that_vanished(server):
    async with websockets.connect(f"{server.ws}/v1/audio?stream=anew") as ws:
        old = json.loads(await ws.recv())["epoch"]
        ws.transport.abort()
    async with websockets.connect(f"{server.ws}/v1/audio?stream=anew") as ws:
        await ws.send(words(1).tobytes()[:16000])  # no resume: what comes first is audio, and counts
        await ws.send('{"type":"end"}')
        messages = [json.loads(text) async for text in ws]
    assert messages[0]["epoch"] != old
    assert messages[-1] == {"type": "done", "samples": 8000}


@pytest.mark.parametrize("bad", [{}, {"epoch": 1, "first_sample": 0}, {"epoch": "x", "first_sample": -1},
                                 {"epoch": "x", "first_sample": 1.5}, {"epoch": "x", "first_sample": True},
                                 {"epoch": "x", "first_sample": 2**60}])  # fmt: skip
async def test_a_bad_resume_is_refused(server, bad):
    async with websockets.connect(f"{server.ws}/v1/audio?stream=badly") as ws:
        await ws.recv()
        await ws.send(json.dumps({"type": "resume", **bad}))
        assert json.loads(await ws.recv())["code"] == 4400


@pytest.mark.parametrize("ended", [False, True])
async def test_a_gap_that_is_beyond_belief_is_refused(server, monkeypatch, ended):
    """It would count as received and dropped, in sums that other streams share. The stream goes on waiting."""
    monkeypatch.setattr(audio_socket, "RESUME_S", 0.01 if ended else 10.0)
    name, before_s = f"far-{ended}".lower(), server.engine.totals_s()[0]
    async with websockets.connect(f"{server.ws}/v1/audio?stream={name}") as ws:
        epoch = json.loads(await ws.recv())["epoch"]
        await ws.send(b"\0" * 320)
        stream = server.engine.streams[name]
        await until(lambda: stream.received_samples == 160)
        ws.transport.abort()
    await until(lambda: (name not in server.engine.streams) if ended else not stream.connected)
    for first_sample, code in ((2**53 - 1, 4400), (160 + 86401 * RATE, 4400), (160 + RATE, None)):
        async with websockets.connect(f"{server.ws}/v1/audio?stream={name}") as ws:
            await ws.send(json.dumps({"type": "resume", "epoch": epoch, "first_sample": first_sample}))
            assert json.loads(await ws.recv()).get("code") == code
    assert server.engine.totals_s()[0] - before_s < 2


async def cut_off_behind_its_end(server: LiveServer, name: str, audio: np.ndarray) -> tuple[str, Callable[[], None]]:
    """A client that has sent `audio` (n,) int16, its end too, and is gone before the engine looks at any of it; the
    stream's epoch, and what lets the engine look.
    """
    tick = server.engine.tick
    server.engine.tick = list  # it finds nothing
    async with websockets.connect(f"{server.ws}/v1/audio?stream={name}") as ws:
        epoch = json.loads(await ws.recv())["epoch"]
        stream = server.engine.streams[name]
        if len(audio):
            await ws.send(audio.tobytes())
        await ws.send('{"type":"end"}')
        await until(lambda: stream.ending)
        ws.transport.abort()
    await until(lambda: not stream.connected)

    def go_on() -> None:
        server.engine.tick = tick

    return epoch, go_on


async def test_a_client_cut_off_behind_its_end_says_it_again_and_gets_done(server):
    """The engine has not got there when it comes back: it hears the rest on the new connection."""
    epoch, go_on = await cut_off_behind_its_end(server, "ended", words(1))
    async with websockets.connect(f"{server.ws}/v1/audio?stream=ended") as ws:
        await ws.send(json.dumps({"type": "resume", "epoch": epoch, "first_sample": RATE}))
        assert json.loads(await ws.recv())["next_sample"] == RATE
        await ws.send('{"type":"end"}')
        go_on()
        messages = [json.loads(text) async for text in ws]
    assert messages[-1] == {"type": "done", "samples": RATE}
    assert [m["type"] for m in messages if m["type"] != "ack"] == ["detection"] * 2 + ["done"]


async def test_a_client_cut_off_behind_its_end_gets_what_was_found_meanwhile(server):
    """The stream has come to its end when it comes back: nothing is heard twice, and `done` is told."""
    epoch, go_on = await cut_off_behind_its_end(server, "late", words(1))
    go_on()
    await until(lambda: "late" not in server.engine.streams and server.log.last_id)
    assert server.log.flush(10)
    async with websockets.connect(f"{server.ws}/v1/audio?stream=late") as ws:
        await ws.send(json.dumps({"type": "resume", "epoch": epoch, "first_sample": 0}))
        ready = json.loads(await ws.recv())
        assert (ready["epoch"], ready["next_sample"]) == (epoch, RATE)
        messages = [json.loads(text) async for text in ws]
    assert [m["type"] for m in messages if m["type"] != "ack"] == ["detection"] * 2 + ["done"]


async def test_audio_behind_an_end_on_another_connection_is_refused(server):
    epoch, go_on = await cut_off_behind_its_end(server, "more", words(0))
    async with websockets.connect(f"{server.ws}/v1/audio?stream=more") as ws:
        await ws.send(json.dumps({"type": "resume", "epoch": epoch, "first_sample": 0}))
        assert json.loads(await ws.recv())["type"] == "ready"
        await ws.send(b"\0" * 320)
        while (answer := json.loads(await ws.recv()))["type"] == "ack":
            pass
    go_on()
    assert answer["code"] == 4400


async def refused_once(server: LiveServer, stream: str, first: str | bytes) -> None:
    """A connection that the service has no room for; its first message is `first`."""
    room, server.engine.max_streams = server.engine.max_streams, 0
    async with websockets.connect(f"{server.ws}/v1/audio?stream={stream}") as ws:
        await ws.send(first)
        assert json.loads(await ws.recv())["code"] == 4429
    server.engine.max_streams = room


async def test_a_resume_that_was_refused_once_goes_on_at_the_next_try(level_model, tmp_path):
    """After a restart: nothing is told twice, however often there was no room for it first."""
    audio = words(3)
    half = len(audio) // 2
    with live_server([level_model], data=tmp_path) as one:
        async with websockets.connect(f"{one.ws}/v1/audio?stream=patient") as ws:
            epoch = json.loads(await ws.recv())["epoch"]
            for at in range(0, half, 8000):
                await ws.send(audio[at : at + 8000].tobytes())
            await until(lambda: one.log.last_id >= 1 and not one.engine.busy)
            ws.transport.abort()
    with live_server([level_model], data=tmp_path) as two:
        resume = json.dumps({"type": "resume", "epoch": epoch, "first_sample": 0})
        for _ in range(3):
            await refused_once(two, "patient", resume)
        async with websockets.connect(f"{two.ws}/v1/audio?stream=patient") as ws:
            await ws.send(resume)
            ready = json.loads(await ws.recv())
            for at in range(ready["next_sample"], len(audio), 8000):
                await ws.send(audio[at : at + 8000].tobytes())
            await ws.send('{"type":"end"}')
            assert [json.loads(text) async for text in ws][-1] == {"type": "done", "samples": len(audio)}
        items = httpx.get(f"{two.http}/v1/detections").json()["items"]
    assert ready["epoch"] == epoch
    assert [(d["label"], d["start_sample"]) for d in items] == expected(level_model, audio)


@pytest.mark.parametrize("first", [b"\0" * 320, '{"type":"resume","epoch":"another","first_sample":0}'])
async def test_a_waiting_stream_outlives_a_newcomer_that_is_refused(server, first):
    async with websockets.connect(f"{server.ws}/v1/audio?stream=waits") as ws:
        epoch = json.loads(await ws.recv())["epoch"]
        await ws.send(b"\0" * 16000)
        stream = server.engine.streams["waits"]
        await until(lambda: stream.received_samples == 8000)
        ws.transport.abort()
    await until(lambda: not stream.connected)
    await refused_once(server, "waits", first)
    async with websockets.connect(f"{server.ws}/v1/audio?stream=waits") as ws:
        await ws.send(json.dumps({"type": "resume", "epoch": epoch, "first_sample": 0}))
        ready = json.loads(await ws.recv())
        assert (ready["epoch"], ready["next_sample"]) == (epoch, 8000)
        await ws.send('{"type":"end"}')
        assert [json.loads(text) async for text in ws][-1] == {"type": "done", "samples": 8000}


async def test_one_that_comes_back_after_its_stream_has_ended_goes_on(level_model, monkeypatch):
    """Later than a stream waits: what it sends again is known, and is not told twice."""
    monkeypatch.setattr(audio_socket, "RESUME_S", 0.1)
    audio = words(3)
    half = 24000
    with live_server([level_model]) as server:
        async with websockets.connect(f"{server.ws}/v1/audio?stream=slowly") as ws:
            epoch = json.loads(await ws.recv())["epoch"]
            for at in range(0, half, 8000):
                await ws.send(audio[at : at + 8000].tobytes())
            stream = server.engine.streams["slowly"]
            await until(lambda: stream.received_samples == half)
            ws.transport.abort()
        await until(lambda: "slowly" not in server.engine.streams)
        async with websockets.connect(f"{server.ws}/v1/audio?stream=slowly") as ws:
            await ws.send(json.dumps({"type": "resume", "epoch": epoch, "first_sample": 0}))
            ready = json.loads(await ws.recv())
            for at in range(ready["next_sample"], len(audio), 8000):
                await ws.send(audio[at : at + 8000].tobytes())
            await ws.send('{"type":"end"}')
            assert [json.loads(text) async for text in ws][-1] == {"type": "done", "samples": len(audio)}
        items = httpx.get(f"{server.http}/v1/detections").json()["items"]
    assert ready["epoch"] == epoch
    assert [(d["label"], d["start_sample"]) for d in items] == expected(level_model, audio)


async def test_of_streams_that_have_ended_so_many_are_known(server, monkeypatch):
    monkeypatch.setattr(audio_socket, "RESUME_S", 0.01)
    monkeypatch.setattr(ingest, "MOST_EARLIER", 3)
    earlier = server.app.state.service.ingest.earlier
    for i in range(5):
        async with websockets.connect(f"{server.ws}/v1/audio?stream=ended-{i}") as ws:
            await ws.recv()
            ws.transport.abort()
        await until(lambda i=i: f"ended-{i}" in earlier)
    assert [name for name in earlier if name.startswith("ended-")] == ["ended-2", "ended-3", "ended-4"]
