"""The two WebSockets and the client at work: real sockets, a real engine, a model that fires on loud sound."""

from __future__ import annotations

import asyncio
import json
import secrets
import sqlite3
import time
from dataclasses import replace

import httpx
import numpy as np
import pytest
import websockets
from websockets.exceptions import ConnectionClosed

from kws_serve.api.asyncapi import RECEIVED, SENT, asyncapi_document
from kws_serve.api.schemas.detections import DetectionPage
from kws_serve.api.schemas.models import ModelList
from kws_serve.api.schemas.state import Status, StreamList
from kws_serve.client import KwsClient, ServiceError
from kws_serve.messages import Detection
from kws_serve.sinks.event_log import EventLog
from kws_serve.sinks.filter import Filter
from kws_serve.sinks.subscribers import QUEUE_MESSAGES
from tests.support.live_server import live_server

LOUD = np.full(1600, 20000, "<i2").tobytes()
QUIET = np.zeros(1600, "<i2").tobytes()
WORD = LOUD + QUIET * 4  # 0.5 s: the model's refractory time is 0.2 s, its off-threshold is met in between


async def say(server, stream: str, words: int) -> list[dict]:
    """A stream with so many loud words, sent as fast as the server takes it."""
    async with websockets.connect(f"{server.ws}/v1/audio?stream={stream}") as ws:
        for _ in range(words):
            await ws.send(WORD)
        await ws.send('{"type":"end"}')
        return [json.loads(text) async for text in ws]


async def until(server, condition) -> None:
    """Poll the server's own status until it is so."""
    async with httpx.AsyncClient() as http:
        for _ in range(400):
            if condition((await http.get(f"{server.http}/v1/status")).json()):
                return
            await asyncio.sleep(0.025)
    raise AssertionError("it never came to be")


async def test_a_stream_from_ready_to_done(server):
    messages = await say(server, "one", 3)
    kinds = [m["type"] for m in messages]
    assert kinds[0] == "ready"
    assert kinds[-1] == "done"
    assert kinds.count("detection") == 3
    ready = messages[0]
    assert (ready["stream"], ready["rate"], ready["channels"]) == ("one", 16000, 1)
    assert (ready["models"], ready["next_sample"]) == (["level"], 0)
    first = next(m for m in messages if m["type"] == "detection")
    assert first["epoch"] == ready["epoch"]
    assert first["latency_ms"] >= 0
    assert first["durable"] is True
    assert first["at"].endswith("Z")
    assert len({m["uid"] for m in messages if m["type"] == "detection"}) == 3


async def test_acks_come_at_least_every_second_and_scores_if_asked(server):
    async with websockets.connect(f"{server.ws}/v1/audio?stream=acks&scores=1") as ws:
        await ws.send(WORD)
        seen, began = [], time.monotonic()
        while sum(m["type"] == "ack" for m in seen) < 2:
            seen.append(json.loads(await asyncio.wait_for(ws.recv(), 1.5)))
        assert time.monotonic() - began < 10
    assert [m["sample"] for m in seen if m["type"] == "ack"][-1] == 8000
    rows = [m for m in seen if m["type"] == "scores"]
    assert [m["end_sample"] for m in rows] == list(range(320, 8001, 320))
    assert all(len(m["values"]) == 2 for m in rows)


@pytest.mark.parametrize("query, data", [
    ("format=f32le", np.full(3200, 0.6, "<f4").tobytes()),
    ("channels=3&channel=2", np.repeat([[0, 0, 20000]], 3200, axis=0).astype("<i2").tobytes()),
    ("rate=48000", np.random.default_rng(0).normal(0, 9000, 24000).astype("<i2").tobytes()),
    ("models=level", LOUD * 2),
])  # fmt: skip
async def test_formats_channels_and_rates(server, query, data):
    async with websockets.connect(f"{server.ws}/v1/audio?stream=formats&{query}") as ws:
        await ws.send(data)
        await ws.send('{"type":"end"}')
        kinds = [json.loads(text)["type"] async for text in ws]
    assert "detection" in kinds
    assert ws.close_code == 1000


async def test_samples_that_are_not_numbers_are_counted_and_nothing_stops(server):
    before = httpx.get(f"{server.http}/v1/status").json()
    async with websockets.connect(f"{server.ws}/v1/audio?stream=nan&format=f32le") as ws:
        await ws.send(np.array([np.nan, np.inf, -np.inf, 2.0, -3.0, 0.1], "<f4").tobytes())
        await ws.send(np.full(3200, 0.6, "<f4").tobytes())
        await ws.send('{"type":"end"}')
        messages = [json.loads(text) async for text in ws]
    after = httpx.get(f"{server.http}/v1/status").json()
    assert messages[-1] == {"type": "done", "samples": 3206}
    assert after["bad_samples"] - before["bad_samples"] == 3
    assert after["clipped_samples"] - before["clipped_samples"] == 2


async def test_an_infinity_is_full_scale_as_it_is_in_a_file(server):
    async with websockets.connect(f"{server.ws}/v1/audio?stream=infinite&format=f32le") as ws:
        await ws.send(np.full(3200, np.inf, "<f4").tobytes())
        await ws.send('{"type":"end"}')
        kinds = [json.loads(text)["type"] async for text in ws]
    assert "detection" in kinds


async def test_subscribers_see_everything_once_and_resume_without_a_hole(server):
    begin = server.log.last_id
    async with websockets.connect(f"{server.ws}/v1/detections?after={begin}") as live:
        assert json.loads(await live.recv())["last_id"] == begin
        await asyncio.gather(*(say(server, f"many-{i}", 6) for i in range(5)))
        ids = [json.loads(await live.recv())["id"] for _ in range(30)]
    assert ids == list(range(begin + 1, begin + 31))
    async with websockets.connect(f"{server.ws}/v1/detections?after={begin + 10}&stream=many-2") as again:
        await again.recv()
        some = [json.loads(await again.recv()) for _ in range(sum(1 for d in server.log.page(
            Filter("many-2"), begin + 10, 100)[0]))]  # fmt: skip
    assert {m["stream"] for m in some} == {"many-2"}
    assert all(m["replayed"] is True and m["latency_ms"] is None for m in some)
    page = httpx.get(f"{server.http}/v1/detections?after={begin}&limit=7").json()
    assert [d["id"] for d in page["items"]] == list(range(begin + 1, begin + 8))
    assert page["next"] == begin + 7
    DetectionPage.model_validate(page)


async def test_disconnecting_at_random_never_loses_or_repeats(server):
    begin = server.log.last_id
    rng = np.random.default_rng(3)
    talking = asyncio.gather(*(say(server, f"talk-{i}", 12) for i in range(4)))
    last, ids = begin, []
    while len(ids) < 48:
        # no bound on what lies unread: beyond it the library does not read the answer to its close, and waits for 10 s
        async with websockets.connect(f"{server.ws}/v1/detections?after={last}", max_queue=None) as ws:
            await ws.recv()
            for _ in range(int(rng.integers(0, 7))):
                if len(ids) == 48:
                    break
                last = json.loads(await asyncio.wait_for(ws.recv(), 20))["id"]
                ids.append(last)
    await talking
    assert ids == list(range(begin + 1, begin + 49))


async def test_empty_parameters_count_as_not_given(server):
    async with websockets.connect(f"{server.ws}/v1/detections?after=&stream=&label=") as ws:
        assert json.loads(await ws.recv())["type"] == "hello"
    assert httpx.get(f"{server.http}/v1/detections?after=&limit=&stream=&label=").status_code == 200


async def test_full_scale_samples_are_counted(server):
    before = httpx.get(f"{server.http}/v1/status").json()["clipped_samples"]
    async with websockets.connect(f"{server.ws}/v1/audio?stream=clipped") as ws:
        await ws.send(np.array([32767, -32768, 32766, 0], "<i2").tobytes())
        await ws.send('{"type":"end"}')
        assert [json.loads(text) async for text in ws][-1]["type"] == "done"
    assert httpx.get(f"{server.http}/v1/status").json()["clipped_samples"] - before == 2


async def test_what_the_log_no_longer_has_is_told(server):
    begin = server.log.last_id
    await say(server, "old", 8)
    with sqlite3.connect(server.log.store.path) as db:  # as retention would
        db.execute("DELETE FROM detections WHERE id <= ?", (begin + 3,))
    async with websockets.connect(f"{server.ws}/v1/detections?after={begin}") as ws:
        messages = [json.loads(await ws.recv()) for _ in range(7)]
    assert messages[1] == {"type": "log_gap", "from": begin + 1, "to": begin + 3, "reason": "retention"}
    assert [m["id"] for m in messages[2:]] == list(range(begin + 4, begin + 9))


def a_detection(i: int) -> Detection:
    return Detection("s", secrets.token_hex(4), "m", "1", "onnx", "yes", 0.9, "once", i, 0.0, 0.0, 0.0, 1.0)


async def test_a_slow_subscriber_gets_what_was_queued_and_then_none(tmp_path):
    log = EventLog(tmp_path / "events.db")
    log.bind(asyncio.get_running_loop())
    subscriber = log.subscribe(Filter())
    log.publish([a_detection(i) for i in range(QUEUE_MESSAGES + 10)])
    assert await asyncio.to_thread(log.flush, 10)
    await asyncio.sleep(0)
    taken = [await subscriber.take() for _ in range(QUEUE_MESSAGES + 1)]
    assert [len(texts) for texts in taken[:-1] if texts is not None] == [1] * QUEUE_MESSAGES
    assert taken[-1] is None
    log.close()


async def test_a_slow_subscriber_is_closed_4408_with_its_last_id(server):
    """A client that does not read, while far more is published than sockets buffer."""
    from websockets.asyncio.client import connect

    ws = await connect(f"{server.ws}/v1/detections", max_queue=1, compression=None)
    await ws.recv()
    ws.transport.pause_reading()
    for at in range(0, 60_000, 500):
        server.log.publish([a_detection(at + i) for i in range(500)])
        await asyncio.sleep(0.01)
    ws.transport.resume_reading()
    last, error = 0, {}
    with pytest.raises(ConnectionClosed):
        while True:
            message = json.loads(await asyncio.wait_for(ws.recv(), 20))
            last, error = message.get("id", last), message
    assert ws.close_code == 4408
    assert str(last) in error["message"]


async def test_one_name_one_stream(server):
    async with websockets.connect(f"{server.ws}/v1/audio?stream=twice") as first:
        await first.recv()
        async with websockets.connect(f"{server.ws}/v1/audio?stream=twice") as second:
            assert json.loads(await second.recv())["code"] == 4409
            with pytest.raises(ConnectionClosed):
                await second.recv()
            assert second.close_code == 4409
        await first.send(LOUD)
        await first.send('{"type":"end"}')
        assert json.loads([text async for text in first][-1]) == {"type": "done", "samples": 1600}


async def test_resume_takes_over_a_half_open_stream(server):
    async with websockets.connect(f"{server.ws}/v1/audio?stream=half") as old:
        ready = json.loads(await old.recv())
        await old.send(QUIET)
        await until(server, lambda s: any(x["received_samples"] == 1600 for x in s["streams"] if x["name"] == "half"))
        async with websockets.connect(f"{server.ws}/v1/audio?stream=half") as new:
            await new.send(json.dumps({"type": "resume", "epoch": ready["epoch"], "first_sample": 1600}))
            again = json.loads(await new.recv())
            assert (again["type"], again["epoch"], again["next_sample"]) == ("ready", ready["epoch"], 1600)
            await new.send(LOUD * 2)
            await new.send('{"type":"end"}')
            rest = [json.loads(text) async for text in new]
    assert rest[-1] == {"type": "done", "samples": 4800}
    assert [m["start_sample"] for m in rest if m["type"] == "detection"] == [1920]


async def test_a_vanished_client_frees_its_stream(server):
    ws = await websockets.connect(f"{server.ws}/v1/audio?stream=gone")
    await ws.recv()
    await ws.send(LOUD[:1000])
    ws.transport.abort()
    await until(server, lambda s: all(x["name"] != "gone" for x in s["streams"]))
    assert (await say(server, "gone", 1))[-1]["type"] == "done"


async def test_a_client_that_never_reads_is_heard_all_the_same(server):
    """It answers no ping for as long as its queue is full: it is alive all the same, its kernel acknowledges."""
    ws = await websockets.connect(f"{server.ws}/v1/audio?stream=deaf&scores=1", max_queue=1, ping_interval=None)
    for _ in range(24):  # 12 s: longer than any ping may stay unanswered
        await ws.send(WORD)
        await asyncio.sleep(0.5)
    await ws.send('{"type":"end"}')
    messages = [json.loads(text) async for text in ws]
    assert messages[-1] == {"type": "done", "samples": 24 * 8000}
    assert sum(m["type"] == "detection" for m in messages) == 24


async def test_one_that_reads_nothing_for_ever_is_closed_in_the_end(server):
    ws = await websockets.connect(f"{server.ws}/v1/audio?stream=stuck", max_queue=1, ping_interval=None)
    await ws.recv()
    stream = server.engine.streams["stuck"]
    ws.transport.pause_reading()
    for at in range(0, 60_000, 500):
        server.log.publish([replace(a_detection(at + i), stream="stuck", epoch=stream.epoch) for i in range(500)])
        await asyncio.sleep(0.01)
    await until(server, lambda s: all(x["name"] != "stuck" for x in s["streams"]))
    ws.transport.abort()


async def test_a_client_faster_than_real_time_meets_back_pressure_not_loss(server):
    began = time.monotonic()
    messages = await say(server, "fast", 10)  # 5 s of audio: 2 s may run ahead
    assert time.monotonic() - began >= 2.0
    assert messages[-1] == {"type": "done", "samples": 80000}
    assert sum(m["type"] == "detection" for m in messages) == 10
    assert not [m for m in messages if m["type"] == "gap"]


async def test_settings_patched_over_http_act_at_once_and_are_listed(server):
    path = f"{server.http}/v1/models/level/detection"
    assert httpx.patch(path, json={"loud": {"threshold": 1.0}}).json()["loud"]["threshold"] == 1.0
    quieter = np.full(1600, 9000, "<i2").tobytes()
    async with websockets.connect(f"{server.ws}/v1/audio?stream=patched") as ws:
        await ws.send(quieter)
        httpx.patch(path, json={"loud": {"threshold": 0.4}})
        await ws.send(quieter * 2)
        await ws.send('{"type":"end"}')
        found = [m for m in [json.loads(text) async for text in ws] if m["type"] == "detection"]
    assert [m["label"] for m in found] == ["loud"]
    (model,) = ModelList.model_validate(httpx.get(f"{server.http}/v1/models").json()).items
    assert model.overrides["loud"].threshold == 0.4
    assert httpx.patch(path, json={"loud": None}).json()["loud"]["threshold"] == 0.5
    for bad in ('{"loud":{"threshold":2}}', "[", '{"x":{}}', '{"loud":{"threshold":NaN}}', "[" * 50, "x" * 20000, ""):
        answer = httpx.patch(path, content=bad)
        assert answer.status_code == 422, bad
        assert "wanted" in answer.json()["message"]
    assert httpx.patch(f"{server.http}/v1/models/none/detection", json={}).status_code == 404


def test_answers_have_the_documented_shapes(server):
    Status.model_validate(httpx.get(f"{server.http}/v1/status").json())
    StreamList.model_validate(httpx.get(f"{server.http}/v1/streams").json())
    for bad in ("after=x", "limit=0", "limit=1001", "x=1", "after=1&after=2", "stream=A"):
        answer = httpx.get(f"{server.http}/v1/detections?{bad}")
        assert answer.status_code == 422
        assert "wanted" in answer.json()["message"]
    rows = httpx.get(f"{server.http}/v1/status.csv").text.splitlines()
    assert rows[0] == "name,address,device,user,note,load,streams,state,last_seen"
    assert len(rows) == 2
    metrics = httpx.get(f"{server.http}/metrics").text
    for name in ("kws_streams_active", "kws_audio_received_seconds_total", "kws_detection_latency_seconds_bucket"):
        assert f"\n{name}" in metrics


def test_openapi_lists_every_route(server):
    document = httpx.get(f"{server.http}/openapi.json").json()
    assert set(document["paths"]) == {
        "/v1/detections", "/v1/detections.csv", "/v1/detections.jsonl", "/v1/detections/{id}/review", "/v1/streams",
        "/v1/demo",
        "/v1/models", "/v1/streams/{stream}/models/{model}/detection", "/v1/models/{name}/detection",
        "/v1/models/{name}/reload", "/v1/status", "/v1/status.csv",
        "/v1/servers", "/v1/detections/{id}/why", "/healthz", "/readyz", "/metrics", "/asyncapi.json",
    }  # fmt: skip


def check(schema: dict, value: object, where: str) -> None:
    """As much of JSON Schema as the messages' schemas use."""
    if "anyOf" in schema:
        kinds = {s["type"] for s in schema["anyOf"]}
        assert ("null" in kinds and value is None) or not isinstance(value, dict), where
        return
    if "const" in schema:
        assert value == schema["const"], where
    if schema.get("type") == "object":
        assert isinstance(value, dict), where
        assert set(schema["required"]) <= set(value) <= set(schema["properties"]), (where, value)
        for key, part in value.items():
            check(schema["properties"][key], part, f"{where}.{key}")
    kinds = {"integer": int, "number": int | float, "string": str, "boolean": bool, "array": list}
    if schema.get("type") in kinds:
        assert isinstance(value, kinds[schema["type"]]), (where, value)


async def test_every_message_is_as_the_asyncapi_document_says(server, level_model):
    seen = await say(server, "documented", 2)
    async with websockets.connect(f"{server.ws}/v1/audio?stream=documented&scores=1") as ws:
        await ws.send(WORD)
        for _ in range(30):
            seen.append(json.loads(await ws.recv()))
    async with websockets.connect(f"{server.ws}/v1/audio?stream=X") as ws:
        seen.append(json.loads(await ws.recv()))
    async with websockets.connect(f"{server.ws}/v1/detections?after=0") as ws:
        seen += [json.loads(await ws.recv()) for _ in range(3)]
    stream = server.engine.open_stream("gappy", 16000)
    heard: list = []
    server.log.listen("gappy", stream.epoch, heard.extend)
    stream.skip(5, "device")
    stream.end()
    from kws_serve.wire import event_json

    await until(server, lambda s: all(x["name"] != "gappy" for x in s["streams"]))
    seen += [event_json(e) for e in heard]
    async with websockets.connect(f"{server.ws}/v1/live?stream=looked-at", max_queue=None) as ws:
        seen += [m for m in await say(server, "looked-at", 1) if m["type"] == "ready"]
        while seen[-1]["type"] != "frames":
            seen.append(json.loads(await ws.recv()))
        while seen[-1]["type"] != "level":
            seen.append(json.loads(await ws.recv()))
    seen.append({"type": "skipped", "n": 1})
    seen.append({"type": "log_gap", "from": 1, "to": 2, "reason": "retention"})
    assert {m["type"] for m in seen} == set(SENT)
    for message in seen:
        check(SENT[message["type"]], message, message["type"])
    document = asyncapi_document()
    assert set(document["components"]["messages"]) == set(SENT) | set(RECEIVED) | {"pcm"}


async def test_the_client_in_five_lines(server):
    async with KwsClient(server.http) as client:
        feed = client.detections(stream="client")
        waiting = asyncio.ensure_future(anext(feed))
        await until(server, lambda s: s["subscribers"] >= 1)
        async with client.audio("client", rate=16000) as audio:
            await audio.send(np.concatenate([np.full(8000, 20000), np.zeros(8000)]).astype(np.int16))
            await audio.end()
            kinds = [m["type"] async for m in audio]
        detection = await asyncio.wait_for(waiting, 10)
        await feed.aclose()
    assert kinds[-1] == "done"
    assert (detection["stream"], detection["label"]) == ("client", "loud")


async def test_the_client_tells_refusals(server, locked):
    async with KwsClient(locked.http, token="wrong") as client:
        with pytest.raises(ServiceError):
            await anext(client.detections())
    async with KwsClient(server.http) as client:
        with pytest.raises(ServiceError, match="wanted"):
            async with client.audio("NOT-A-NAME"):
                pass
    with pytest.raises(ValueError, match="wanted"):
        KwsClient("ftp://x")


async def test_the_client_goes_on_after_a_restart(level_model, free_port):
    with live_server([level_model], port=free_port) as one:
        client = KwsClient(one.http)
        feed = client.detections(after=0)
        await say(one, "a", 2)
        seen = [await anext(feed), await anext(feed)]
    with live_server([level_model], port=free_port) as two:
        await say(two, "b", 3)  # a new log: ids begin at 1 again
        seen += [await asyncio.wait_for(anext(feed), 20) for _ in range(3)]
        await feed.aclose()
    assert [(d["stream"], d["id"]) for d in seen] == [("a", 1), ("a", 2), ("b", 1), ("b", 2), ("b", 3)]
