"""What the page shows: the live socket, why something fired, history pages."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path

import httpx
import numpy as np
import pytest
import websockets
from hypothesis import given, settings
from hypothesis import strategies as st

from kws_serve.api import live_ws
from kws_serve.api.asyncapi import SENT
from kws_serve.api.schemas.detections import DetectionPage, Why
from kws_serve.api.tokens import TokenFile
from kws_serve.core.front_end import FrontEnd
from kws_serve.manifest.folder import load_model
from kws_serve.messages import Detection, Level, StreamState
from tests.api.test_security import closed_with
from tests.api.test_streams import WORD, check, say
from tests.support.live_server import LiveServer, live_server
from tests.support.tiny_model import FBANK_16K, write_level_model


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_level_model(
        tmp_path_factory.mktemp("m"), name="bank", front_end=FBANK_16K, n_frames=24, patch_hop_ms=60, gain=0.1, bias=1.0
    )


@pytest.fixture(scope="module")
def served(bank: Path, level_model: Path):
    with live_server([level_model, bank]) as server:
        yield server


async def looked(server: LiveServer, stream: str, model: str, audio: bytes) -> list[dict]:
    """All that a viewer is told from before the stream begins until after it has ended."""
    messages = []
    async with websockets.connect(f"{server.ws}/v1/live?stream={stream}&model={model}") as viewer:
        messages.append(json.loads(await viewer.recv()))
        async with websockets.connect(f"{server.ws}/v1/audio?stream={stream}&scores=1&models={model}") as ws:
            for at in range(0, len(audio), 3200):
                await ws.send(audio[at : at + 3200])
                await asyncio.sleep(0.01)
            await ws.send('{"type":"end"}')
            scores = [m for m in [json.loads(text) async for text in ws] if m["type"] == "scores"]
        while messages[-1]["type"] != "waiting" or len(messages) == 1:
            messages.append(json.loads(await viewer.recv()))
    for message in messages:
        check(SENT[message["type"]], message, message["type"])
    seen = [m for m in messages if m["type"] == "scores"]
    assert [m["end_sample"] for m in seen] == [m["end_sample"] for m in scores]
    assert np.allclose([m["values"] for m in seen], [m["values"] for m in scores], atol=1e-4)
    return messages


async def test_a_viewer_sees_the_features_that_the_model_gets(served, bank):
    audio = np.random.default_rng(0).normal(0, 3000, 32000).astype("<i2")
    messages = await looked(served, "seen", "bank", audio.tobytes())
    assert [m["type"] for m in messages[:2]] == ["waiting", "live"]
    assert (messages[1]["stream"], messages[1]["rate"]) == ("seen", 16000)
    frames = [m for m in messages if m["type"] == "frames"]
    for before, after in itertools.pairwise(frames):
        assert after["first_s"] == pytest.approx(before["end_s"])
    rows = np.array([row for m in frames for row in m["values"]])
    spec = load_model(bank).front_end
    heard = np.concatenate([np.zeros(spec.window_samples - spec.hop_samples), audio]).astype(np.float32) / 32768
    windows = np.lib.stride_tricks.sliding_window_view(heard, spec.window_samples)
    wanted = FrontEnd(spec).frames(np.ascontiguousarray(windows[:: spec.hop_samples]))
    assert np.allclose(rows[: len(wanted)], wanted, atol=0.0051)
    assert frames[-1]["end_s"] <= 2.0  # the zeros at the end are nobody's time
    assert frames[0]["end_s"] - frames[0]["first_s"] == pytest.approx(0.01 * len(frames[0]["values"]))
    assert any(m["type"] == "level" and 0 < m["peak"] <= 1 for m in messages)


async def test_a_raw_models_viewers_get_an_envelope_never_the_samples(served):
    audio = np.random.default_rng(1).normal(0, 3000, 16000).astype("<i2")
    messages = await looked(served, "raw", "level", audio.tobytes())
    frames = [m for m in messages if m["type"] == "frames"]
    assert {len(row) for m in frames for row in m["values"]} == {2}
    n = sum(len(m["values"]) for m in frames)
    assert n <= 1.2 * 2 * 50  # a row for each 20 ms of 1 s and of the zeros that end it


@pytest.mark.parametrize("query", ["", "stream=X", "stream=a&model=none", "stream=a&x=1", "stream=a&stream=b"])
async def test_wrong_queries_are_refused(served, query):
    async with websockets.connect(f"{served.ws}/v1/live?{query}") as ws:
        code, message = await closed_with(ws)
    assert code == 4400
    assert "wanted" in message["message"]


async def test_viewers_are_limited_and_leave(served, monkeypatch):
    monkeypatch.setattr(served.app.state.service.viewers, "most", 4)
    url = f"{served.ws}/v1/live?stream=a"
    async with websockets.connect(url) as one, websockets.connect(url) as two:
        await one.recv(), await two.recv()
        async with websockets.connect(url) as three:
            assert (await closed_with(three))[0] == 4429
    for _ in range(100):
        if not served.engine.viewers:
            break
        await asyncio.sleep(0.02)
    async with websockets.connect(url) as four:
        assert json.loads(await four.recv())["type"] == "waiting"


async def test_a_viewer_that_does_not_keep_up_is_told_what_it_missed(served, monkeypatch):
    monkeypatch.setattr(live_ws, "QUEUE_MESSAGES", 3)
    queue = live_ws._Queue(asyncio.get_running_loop())
    for i in range(10):
        queue.put(Level("a", float(i)))
    queue.put(StreamState("a"))
    found = await queue.take()
    assert [m.get("peak") for m in found] == [0, 1, 2, None, None]
    assert found[-1] == {"type": "skipped", "n": 7}


async def test_a_token_for_some_streams_looks_at_those_only(level_model, tmp_path):
    file = TokenFile(tmp_path / "tokens.json")
    tokens = {name: file.new(name, [scope], ["a"]) for name, scope in (("l", "view"), ("i", "listen"))}
    with live_server([level_model], tokens=file) as server:
        for token, stream, wanted in (("l", "a", None), ("l", "b", 4403), ("i", "a", 4403), ("x", "a", 4401)):
            headers = {"Authorization": f"Bearer {tokens.get(token, 'kws_x')}"}
            async with websockets.connect(f"{server.ws}/v1/live?stream={stream}", additional_headers=headers) as ws:
                if wanted is None:
                    assert json.loads(await ws.recv())["type"] == "waiting"
                else:
                    if wanted == 4401:  # the others are refused at once
                        await ws.send(json.dumps({"type": "auth", "token": "kws_x"}))
                    assert (await closed_with(ws))[0] == wanted


async def test_why_is_told_of_what_fired_and_said_where_it_is_not_kept(served):
    messages = await say(served, "asked", 2)
    found = next(m for m in messages if m["type"] == "detection" and m["model"] == "level")
    why = httpx.get(f"{served.http}/v1/detections/{found['id']}/why").json()
    Why.model_validate(why)
    assert why["detection"]["uid"] == found["uid"]
    assert why["patch"]["kind"] == "raw"
    assert "loud" in why["scores"]["labels"]
    served.engine.evidence._found.clear()  # as after a restart
    why = httpx.get(f"{served.http}/v1/detections/{found['id']}/why").json()
    Why.model_validate(why)
    assert (why["patch"], why["scores"], why["settings"]) == (None, None, None)
    assert httpx.get(f"{served.http}/v1/detections/{2**40}/why").status_code == 404
    assert httpx.get(f"{served.http}/v1/detections/0/why").status_code == 422


async def test_why_is_for_those_who_may_hear_the_stream(level_model, tmp_path):
    file = TokenFile(tmp_path / "tokens.json")
    headers = {s: {"Authorization": f"Bearer {file.new(s, ['view'], [s])}"} for s in ("a", "b")}
    admin = {"Authorization": f"Bearer {file.new('admin', ['admin'])}"}
    with live_server([level_model], tokens=file) as server:
        async with websockets.connect(f"{server.ws}/v1/audio?stream=a", additional_headers=admin) as ws:
            await ws.send(WORD)
            await ws.send('{"type":"end"}')
            found = next(m for m in [json.loads(t) async for t in ws] if m["type"] == "detection")
        url = f"{server.http}/v1/detections/{found['id']}/why"
        assert [httpx.get(url, headers=headers[s]).status_code for s in ("a", "b")] == [200, 404]


def test_an_events_end_shows_what_began_it(tmp_path):
    folder = write_level_model(tmp_path, task="event")
    with live_server([folder]) as server:
        asyncio.run(say(server, "s", 1))
        start, end = httpx.get(f"{server.http}/v1/detections").json()["items"]
        assert (start["phase"], end["phase"]) == ("start", "end")
        whys = [httpx.get(f"{server.http}/v1/detections/{d['id']}/why").json() for d in (start, end)]
        assert whys[0]["patch"] == whys[1]["patch"] is not None


@pytest.fixture(scope="module")
def filled(level_model: Path):
    with live_server([level_model]) as server:
        rng = np.random.default_rng(0)
        found = [
            Detection(f"s{i % 3}", "e", "m", "1", "onnx", f"w{i % 4}", float(rng.random()), "once", i, 0.0, 0.0, i)
            for i in range(100)
        ]
        server.log.publish(found)
        assert server.log.flush(5)
        yield server, found


@given(
    st.integers(1, 40), st.sampled_from([None, "s0", "s1"]), st.sampled_from([None, "w0", "w3"]),
    st.sampled_from([None, 0.0, 0.5, 0.9]),
)  # fmt: skip
@settings(max_examples=10, deadline=None)
def test_pages_backwards_are_the_log_newest_first(filled, limit, stream, label, score):
    server, found = filled
    query = {"stream": stream, "label": label, "min_score": score, "limit": limit}
    query = {key: value for key, value in query.items() if value is not None}
    before, got = 2**53 - 1, []
    for _ in range(110):
        page = httpx.get(f"{server.http}/v1/detections", params={**query, "before": before}).json()
        DetectionPage.model_validate(page)
        got += page["items"]
        before = page["next"]
        if not before:
            break
    wanted = [
        d
        for d in reversed(found)
        if stream in (None, d.stream) and label in (None, d.label) and (score is None or d.score >= score)
    ]
    assert [d["start_sample"] for d in got] == [d.start_sample for d in wanted]


@pytest.mark.parametrize(
    "query", ["before=0", "before=x", "before=3&after=1", "min_score=2", "min_score=nan", "min_score=x"]
)
def test_wrong_pages_are_refused(filled, query):
    answer = httpx.get(f"{filled[0].http}/v1/detections?{query}")
    assert answer.status_code == 422
    assert "wanted" in answer.json()["message"]
