"""HEAD wherever GET; and whoever is refused is told why, in the answer and in the log."""

from __future__ import annotations

import json
import logging

import httpx
import pytest
import websockets
from websockets.exceptions import ConnectionClosed, InvalidStatus

from kws_serve.client import KwsClient, ServiceError
from kws_serve.host import log_format
from kws_serve.transport import http_protocol
from tests.api.conftest import TOKEN
from tests.support.live_server import live_server

PATHS = [
    "/", "/main.js", "/healthz", "/readyz", "/v1/status", "/v1/streams", "/v1/models", "/v1/servers", "/v1/demo",
    "/v1/status.csv",
    "/v1/detections", "/v1/detections.csv", "/v1/detections.jsonl", "/metrics", "/asyncapi.json", "/openapi.json",
    "/v1/detections/1/why", "/v1/unknown", "/v1/audio", "/v1/live", "/v1/detections?after=x",
]  # fmt: skip
VARYING = {"date", "content-length"}  # a status counts seconds


@pytest.mark.parametrize("transport", ["own", "plain"])
def test_head_is_get_without_its_body(level_model, transport):
    with (
        live_server([level_model], transport=transport) as server,
        httpx.Client(base_url=server.http, timeout=60) as client,
    ):
        documented = client.get("/openapi.json").json()["paths"]
        assert {p for p, of in documented.items() if "get" in of and "{" not in p} <= set(PATHS)
        for path in PATHS:
            got, head = client.get(path), client.head(path)
            assert (head.status_code, head.content) == (got.status_code, b""), path
            assert set(head.headers) == set(got.headers)
            same = set(got.headers) - VARYING
            assert [head.headers[x] for x in same] == [got.headers[x] for x in same], path


def test_head_needs_the_scope_of_get(locked):
    assert httpx.head(f"{locked.http}/v1/status").status_code == 401
    assert httpx.head(f"{locked.http}/v1/status", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


@pytest.mark.parametrize("path", ["/nothing", "/", "/v1/status", "/v1/audio/", "/v1/detections/1/why"])
async def test_a_websocket_where_there_is_none_is_told_where_they_are(server, path, caplog):
    with pytest.raises(InvalidStatus) as e:
        await websockets.connect(f"{server.ws}{path}")
    assert e.value.response.status_code == 404
    wanted = f"WebSocket: found none at '{path}', wanted /v1/audio, /v1/detections, /v1/live"
    assert json.loads(e.value.response.body)["message"] == wanted
    assert [r.getMessage() for r in caplog.records] == [f"WebSocket {path}: refused with 404: {wanted}"]


def test_a_proxy_that_hands_no_upgrade_on_is_told(server):
    for path in ("/v1/audio?stream=a", "/v1/live?stream=a"):
        answer = httpx.get(f"{server.http}{path}")
        assert answer.status_code == 426
        assert "a proxy in between has to hand it on" in answer.json()["message"]


async def test_too_many_connections_are_told_why(server, monkeypatch, caplog):
    monkeypatch.setattr(http_protocol, "MAX_PER_CLIENT", 0)
    answer = httpx.get(f"{server.http}/healthz")
    assert answer.status_code == 429
    assert "connections: found too many of this address" in answer.json()["message"]
    assert "refused one of 127.0.0.1 with 429" in caplog.text


async def test_the_client_says_why_it_was_refused(server):
    async with KwsClient(f"{server.http}/elsewhere") as client:
        with pytest.raises(ServiceError, match="refused with HTTP 404: WebSocket: found none at"):
            await anext(client.detections())


async def test_at_level_info_every_refusal_is_a_line_and_no_token_is_in_it(locked, capsys):
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    try:
        for level, told in (("warning", False), ("info", True), ("debug", True)):
            log_format.set_up((TOKEN,), level)
            httpx.get(f"{locked.http}/v1/status", headers={"Authorization": f"Bearer {TOKEN}x"})
            async with websockets.connect(f"{locked.ws}/v1/audio?stream=a") as ws:
                await ws.send(json.dumps({"type": "auth", "token": f"{TOKEN}x"}))
                with pytest.raises(ConnectionClosed):
                    while True:
                        await ws.recv()
            httpx.get(f"{locked.http}/v1/status", headers={"Authorization": f"Bearer {TOKEN}"})
            said = capsys.readouterr().err
            assert ("GET /v1/status: answered 401" in said) is told
            assert ("WebSocket /v1/audio: closed with 4401" in said) is told
            assert TOKEN not in said
    finally:
        root.handlers[:] = before
        log_format.set_up()
        root.handlers[:] = before
