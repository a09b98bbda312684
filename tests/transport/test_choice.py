"""The service on uvicorn as it comes: by choice, or where ours would not work."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import websockets
from uvicorn.protocols.http.h11_impl import H11Protocol
from websockets.exceptions import ConnectionClosed

from kws_serve.client import KwsClient
from kws_serve.transport.choice import choose, fault_of_own
from tests.api.conftest import TOKEN
from tests.api.test_streams import WORD, say
from tests.support.live_server import LiveServer, live_server
from tests.support.streams import expected, words

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def plain(level_model: Path) -> Iterator[LiveServer]:
    with live_server([level_model], transport="plain") as running:
        yield running


def test_it_is_uvicorns_own(plain):
    with httpx.Client() as client:
        client.get(f"{plain.http}/healthz")
        (found,) = {type(p) for p in plain.server._uvicorn.server_state.connections}
    assert found is H11Protocol


async def test_a_stream_its_detections_and_a_subscriber(plain):
    begin = plain.log.last_id
    async with websockets.connect(f"{plain.ws}/v1/detections?after={begin}") as live:
        assert json.loads(await live.recv())["type"] == "hello"
        messages = await say(plain, "one", 3)
        kinds = [m["type"] for m in messages]
        assert (kinds[0], kinds[-1], kinds.count("detection")) == ("ready", "done", 3)
        assert messages[-1]["samples"] == 3 * len(WORD) // 2
        assert [json.loads(await live.recv())["id"] for _ in range(3)] == [begin + 1, begin + 2, begin + 3]


async def test_acks_come_while_nothing_else_does(plain):
    async with websockets.connect(f"{plain.ws}/v1/audio?stream=acks") as ws:
        await ws.send(b"")
        kinds = [json.loads(await asyncio.wait_for(ws.recv(), 30))["type"] for _ in range(3)]
    assert kinds == ["ready", "ack", "ack"]


async def test_many_streams_at_once_get_what_the_engine_finds(plain, level_model):
    audio = words(4.0)
    wanted = [start for _, start in expected(level_model, audio)]

    async def one(name: str) -> list[int]:
        async with websockets.connect(f"{plain.ws}/v1/audio?stream={name}", max_queue=None) as ws:
            for at in range(0, len(audio), 320):
                await ws.send(audio[at : at + 320].tobytes())
            await ws.send('{"type":"end"}')
            return [m["start_sample"] async for m in _messages(ws) if m["type"] == "detection"]

    found = await asyncio.gather(*(one(f"crowd-{i}") for i in range(20)))
    assert found == [wanted] * 20
    assert plain.engine.unaccounted_samples == 0


async def _messages(ws):
    async for text in ws:
        yield json.loads(text)


async def test_a_broken_connection_goes_on_where_it_was(plain):
    async with websockets.connect(f"{plain.ws}/v1/audio?stream=again") as ws:
        epoch = json.loads(await ws.recv())["epoch"]
        await ws.send(WORD)
        while json.loads(await ws.recv())["type"] != "ack":
            pass
        ws.transport.abort()
    async with websockets.connect(f"{plain.ws}/v1/audio?stream=again") as ws:
        await ws.send(json.dumps({"type": "resume", "epoch": epoch, "first_sample": len(WORD) // 2}))
        ready = json.loads(await ws.recv())
        assert (ready["epoch"], ready["next_sample"]) == (epoch, len(WORD) // 2)
        await ws.send(WORD)
        await ws.send('{"type":"end"}')
        assert [m async for m in _messages(ws)][-1] == {"type": "done", "samples": len(WORD)}


async def test_our_client_and_the_page(plain):
    assert "<html" in httpx.get(f"{plain.http}/").text
    assert httpx.get(f"{plain.http}/readyz").json() == {"status": "ready"}
    async with KwsClient(plain.http) as client, client.audio("by-client") as stream:
        await stream.send(WORD)
        await stream.end()
        assert [m["label"] async for m in stream if m["type"] == "detection"] == ["loud"]


async def refusal(url: str, *texts: str | bytes) -> tuple[int, int | None]:
    """The code of the error message, and of the close."""
    async with websockets.connect(url) as ws:
        code = None
        try:
            for text in texts:
                await ws.send(text)
            async for message in _messages(ws):
                code = message.get("code", code) if message["type"] == "error" else code
        except ConnectionClosed:
            pass
    return ws.close_code, code


async def test_close_codes_are_the_same(plain, level_model):
    assert await refusal(f"{plain.ws}/v1/audio?stream=x&rate=1") == (4400, 4400)
    assert await refusal(f"{plain.ws}/v1/audio?stream=x", b"odd") == (4400, 4400)
    assert await refusal(f"{plain.ws}/v1/audio?stream=x", bytes(256 * 1024 + 2)) == (4400, 4400)
    assert await refusal(f"{plain.ws}/v1/audio?stream=x", '{"type":"end"}') == (1000, None)
    async with websockets.connect(f"{plain.ws}/v1/audio?stream=taken") as ws:
        await ws.recv()
        assert await refusal(f"{plain.ws}/v1/audio?stream=taken") == (4409, 4409)
    with live_server([level_model], transport="plain", token=TOKEN) as locked:
        assert await refusal(f"{locked.ws}/v1/detections", '{"type":"auth","token":"wrong"}') == (4401, 4401)
        assert httpx.get(f"{locked.http}/v1/status").status_code == 401


def test_nothing_is_missing_here():
    assert fault_of_own() == ""
    assert choose("own").own
    assert not choose("plain").own


GONE = {
    "a name": ("from uvicorn.protocols import utils; del utils.ClientDisconnected", "ClientDisconnected"),
    "a parameter": (
        "from websockets.protocol import Protocol; fail = Protocol.fail; "
        "Protocol.fail = lambda self, code, why='': fail(self, code, why)",
        "Protocol.fail: found parameters ('code', 'why'), wanted ('code', 'reason')",
    ),
}
"""What a later version of a library may do to us, done beforehand to the one that is here; and what is told of it."""


def _text_with(path: Path, text: str) -> str:
    """A file's text, once a thread of the service has written `text` there."""
    while text not in (found := path.read_text()):
        time.sleep(0.01)
    return found


@pytest.mark.parametrize("what", GONE)
async def test_where_an_inside_is_gone_the_service_says_so_and_serves(what, level_model, free_port, tmp_path):
    change, told = GONE[what]
    flags = ["--source", "none", "--model-dir", str(level_model.parent), "--model", "level", "--port", str(free_port)]
    code = (
        "import uvicorn.protocols.http.h11_impl, uvicorn.protocols.websockets.websockets_sansio_impl; "
        f"{change}; from kws_serve.cli import serve; serve({flags!r})"
    )
    with (tmp_path / "stderr").open("w") as errors:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        while "Not a safety" not in (line := process.stdout.readline()):
            assert line, (tmp_path / "stderr").read_text()
        fault = await asyncio.to_thread(_text_with, tmp_path / "stderr", "uvicorn's own protocols")
        assert told in fault
        async with websockets.connect(f"ws://127.0.0.1:{free_port}/v1/audio?stream=one") as ws:
            await ws.send(WORD)
            await ws.send('{"type":"end"}')
            assert "detection" in [m["type"] async for m in _messages(ws)]
    finally:
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(30) == 0
        process.stdout.close()
