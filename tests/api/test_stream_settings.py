"""Detector settings of single streams over HTTP: by name, kept, each token its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import websockets

from kws_serve.api.schemas.models import ModelList
from kws_serve.api.schemas.state import StreamList
from kws_serve.api.tokens import TokenFile
from kws_serve.commands.running import restore_settings
from tests.support.live_server import LiveServer, live_server

QUIETER = np.full(4800, 8000, "<i2").tobytes()  # scores 0.49, below the model's 0.5


@pytest.fixture
def server(level_model: Path, tmp_path: Path) -> Iterator[LiveServer]:
    with live_server([level_model], data=tmp_path) as running:
        yield running


def path(server: LiveServer, stream: str = "desk", model: str = "level") -> str:
    return f"{server.http}/v1/streams/{stream}/models/{model}/detection"


async def said(server: LiveServer, stream: str) -> list[str]:
    """What a stream that is a bit too quiet is told."""
    async with websockets.connect(f"{server.ws}/v1/audio?stream={stream}") as ws:
        await ws.send(QUIETER)
        await ws.send('{"type":"end"}')
        return [m["label"] for m in [json.loads(text) async for text in ws] if m["type"] == "detection"]


async def test_a_streams_settings_act_whether_it_is_there_or_not_and_are_seen(server):
    assert httpx.get(path(server)).json()["loud"]["threshold"] == 0.5
    changed = httpx.patch(path(server), json={"loud": {"threshold": 0.4}})
    assert changed.status_code == 200
    assert httpx.get(path(server)).json() == changed.json()
    assert (changed.json()["loud"]["threshold"], changed.json()["loud"]["k"]) == (0.4, 1)
    assert await said(server, "desk") == ["loud"]
    assert await said(server, "door") == []
    audio = f"{server.ws}/v1/audio?stream="
    async with websockets.connect(f"{audio}desk") as one, websockets.connect(f"{audio}door") as other:
        for ws in (one, other):
            assert json.loads(await ws.recv())["type"] == "ready"
        items = StreamList.model_validate(httpx.get(f"{server.http}/v1/streams").json()).items
    shown = {item.name: item.detection for item in items}
    assert shown["desk"]["level"]["loud"].threshold == 0.4
    assert shown["door"] == {}
    (model,) = ModelList.model_validate(httpx.get(f"{server.http}/v1/models").json()).items
    assert model.detection["loud"].threshold == 0.5 and model.overrides == {}
    assert model.stream_overrides["desk"]["loud"].threshold == 0.4
    found = httpx.get(f"{server.http}/v1/detections").json()["items"]
    why = httpx.get(f"{server.http}/v1/detections/{found[-1]['id']}/why").json()
    assert why["settings"]["threshold"] == 0.4
    assert httpx.patch(path(server), json={"loud": {"threshold": None}}).json()["loud"]["threshold"] == 0.5
    assert await said(server, "desk") == []


async def test_they_are_kept_by_name_through_a_restart(server, level_model, tmp_path):
    for stream, threshold in (("desk", 0.4), ("door", 0.1)):
        httpx.patch(path(server, stream), json={"*": {"threshold": threshold}}).raise_for_status()
    httpx.patch(path(server, "door"), json={"*": None}).raise_for_status()
    httpx.patch(f"{server.http}/v1/models/level/detection", json={"loud": {"threshold": 0.9}}).raise_for_status()
    server.stop()
    with live_server([level_model], data=tmp_path) as again:
        restore_settings(again.engine, again.log)
        (model,) = httpx.get(f"{again.http}/v1/models").json()["items"]
        assert (model["overrides"], model["stream_overrides"]) == (
            {"loud": {"threshold": 0.9}},
            {"desk": {"*": {"threshold": 0.4}}},
        )
        assert await said(again, "desk") == ["loud"]
        assert await said(again, "door") == []


@pytest.mark.parametrize("bad", ["[", '{"x":{}}', '{"loud":{"threshold":2}}', '{"loud":{"k":5}}', '{"loud":3}'])
def test_what_is_wrong_is_refused_and_changes_nothing(server, bad):
    answer = httpx.patch(path(server), content=bad)
    assert (answer.status_code, "wanted" in answer.json()["message"]) == (422, True)
    assert httpx.get(f"{server.http}/v1/models").json()["items"][0]["stream_overrides"] == {}


def test_names_that_cannot_be_and_models_that_are_not_there(server):
    for method in ("get", "patch"):
        body = {"json": {}} if method == "patch" else {}
        assert httpx.request(method, path(server, "Desk"), **body).status_code == 422
        assert httpx.request(method, path(server, "desk", "none"), **body).status_code == 404


def test_s4_a_token_of_some_streams_sees_its_own_only(level_model, tmp_path):
    tokens = TokenFile(tmp_path / "tokens.json")
    mine = {"Authorization": f"Bearer {tokens.new('a', ['listen'], ['a'])}"}
    admin = {"Authorization": f"Bearer {tokens.new('admin', ['admin'])}"}
    with live_server([level_model], tokens=tokens, data=tmp_path) as server:
        for stream in "ab":
            httpx.patch(path(server, stream), headers=admin, json={"loud": {"threshold": 0.4}}).raise_for_status()
        assert httpx.get(path(server, "a"), headers=mine).json()["loud"]["threshold"] == 0.4
        assert httpx.get(path(server, "b"), headers=mine).status_code == 403
        assert httpx.patch(path(server, "a"), headers=mine, json={}).status_code == 403  # changing is for admins
        assert httpx.get(path(server, "a")).status_code == 401
        (model,) = httpx.get(f"{server.http}/v1/models", headers=mine).json()["items"]
        assert list(model["stream_overrides"]) == ["a"]
