"""Whose a stream is: one that waits is for who knows its epoch or holds its token, a source's name for the server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websockets

from kws_serve.api import audio_socket
from kws_serve.api.tokens import TokenFile
from kws_serve.sources.spec import parse_sources
from kws_serve.sources.supervisor import Sources
from tests.api.test_security import closed_with
from tests.reliability.test_resume import until
from tests.support.live_server import LiveServer, live_server
from tests.support.streams import words

AUDIO = words(1).tobytes()[:16000]  # 8000 samples


@pytest.fixture(scope="module")
def shared(level_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LiveServer, dict[str, str]]]:
    """A server, and the tokens of two who may send any stream."""
    file = TokenFile(tmp_path_factory.mktemp("tokens") / "tokens.json")
    tokens = {name: file.new(name, ["ingest"]) for name in ("owner", "other")}
    with live_server([level_model], tokens=file) as server:
        yield server, tokens


def connection(shared: tuple[LiveServer, dict[str, str]], name: str, stream: str) -> Any:
    server, tokens = shared
    headers = {"Authorization": f"Bearer {tokens[name]}"}
    return websockets.connect(f"{server.ws}/v1/audio?stream={stream}", additional_headers=headers)


def resume(epoch: str, first_sample: int = 0) -> str:
    return json.dumps({"type": "resume", "epoch": epoch, "first_sample": first_sample})


async def vanished(shared: tuple[LiveServer, dict[str, str]], stream: str, *, ended: bool = False) -> str:
    """The epoch of a stream whose owner has sent 8000 samples, has perhaps said `end`, and has broken off."""
    server, _ = shared
    tick = server.engine.tick
    server.engine.tick = list if ended else tick  # nothing is finished until the owner has gone
    async with connection(shared, "owner", stream) as ws:
        epoch = json.loads(await ws.recv())["epoch"]
        opened = server.engine.streams[stream]
        await ws.send(AUDIO)
        if ended:
            await ws.send('{"type":"end"}')
        await until(lambda: opened.received_samples == 8000 and opened.ending == ended)
        ws.transport.abort()
    await until(lambda: not opened.connected)
    server.engine.tick = tick
    if ended:
        await until(lambda: stream not in server.engine.streams)
        assert server.log.flush(10)
    return str(epoch)


async def refusal(ws: Any, said: bytes | str) -> int:
    await ws.send(said)
    return (await closed_with(ws))[0]


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("said", [AUDIO, resume("00000000")])
async def test_a_waiting_stream_is_not_for_another_token(shared, said, ended):
    stream = f"mine-{len(said)}-{ended}".lower()
    epoch = await vanished(shared, stream, ended=ended)
    for _ in range(3):
        async with connection(shared, "other", stream) as ws:
            assert await refusal(ws, said) == 4409
    async with connection(shared, "owner", stream) as ws:
        await ws.send(resume(epoch))
        ready = json.loads(await ws.recv())
        assert (ready["epoch"], ready["next_sample"]) == (epoch, 8000)
        if not ended:
            await ws.send('{"type":"end"}')
        assert [json.loads(text) async for text in ws][-1] == {"type": "done", "samples": 8000}


async def test_a_waiting_stream_is_for_who_knows_its_epoch(shared):
    """Its token may have been made anew meanwhile."""
    epoch = await vanished(shared, "renewed")
    async with connection(shared, "other", "renewed") as ws:
        await ws.send(resume(epoch))
        assert json.loads(await ws.recv())["next_sample"] == 8000


async def test_the_owner_of_a_waiting_stream_may_begin_it_anew(shared):
    epoch = await vanished(shared, "restarted")
    async with connection(shared, "owner", "restarted") as ws:
        await ws.send(AUDIO)
        assert json.loads(await ws.recv())["epoch"] != epoch


async def test_a_stream_that_nobody_came_back_for_is_anybodys(shared, monkeypatch):
    monkeypatch.setattr(audio_socket, "RESUME_S", 0.1)
    await vanished(shared, "given-up")
    await until(lambda: "given-up" not in shared[0].engine.streams)
    async with connection(shared, "other", "given-up") as ws:
        await ws.send(AUDIO)
        assert json.loads(await ws.recv())["type"] == "ready"


async def test_an_epoch_that_was_overheard_takes_no_live_stream_away(shared):
    """Epochs stand in every detection: they do for a stream that waits, not for one whose owner is there."""
    async with connection(shared, "owner", "live") as ws:
        epoch = json.loads(await ws.recv())["epoch"]
        async with connection(shared, "other", "live") as thief:
            assert await refusal(thief, resume(epoch)) == 4409
        await ws.send(AUDIO)
        await ws.send('{"type":"end"}')
        assert [json.loads(text) async for text in ws][-1] == {"type": "done", "samples": 8000}


async def test_the_name_of_a_source_is_the_servers_own_also_while_it_is_unplugged(level_model):
    """A microphone that is not there keeps its name for when it is plugged in."""
    with live_server([level_model]) as server:
        sources = Sources(parse_sources(["front-door=mic:nothing of this name"]), server.engine)
        sources.start()
        try:
            async with websockets.connect(f"{server.ws}/v1/audio?stream=front-door") as ws:
                code, error = await closed_with(ws)
        finally:
            sources.stop()
    assert code == 4409
    assert "'front-door' is the name of a source of this server" in error["message"]


# and after a restart


@pytest.fixture
def left(level_model: Path, tmp_path: Path) -> tuple[Path, TokenFile, dict[str, str], str]:
    """What a server has left that was stopped while the owner of `mine` sent: folder, tokens, the stream's epoch."""
    file = TokenFile(tmp_path / "tokens.json")
    tokens = {name: file.new(name, ["ingest"]) for name in ("owner", "other")}

    async def feed(server: LiveServer) -> str:
        async with connection((server, tokens), "owner", "mine") as ws:
            epoch = json.loads(await ws.recv())["epoch"]
            await ws.send(AUDIO)
            await until(lambda: server.log.store.history.streams().get("mine", {}).get(epoch) == 8000)
            await asyncio.to_thread(server.stop)
        return str(epoch)

    with live_server([level_model], tokens=file, data=tmp_path) as server:
        epoch = asyncio.run(feed(server))
    return tmp_path, file, tokens, epoch


def test_after_a_restart_a_stream_waits_for_its_own_token(level_model, left):
    folder, file, tokens, epoch = left

    async def come(server: LiveServer) -> None:
        for said in (AUDIO, resume("00000000")):
            async with connection((server, tokens), "other", "mine") as ws:
                assert await refusal(ws, said) == 4409
        async with connection((server, tokens), "owner", "mine") as ws:
            await ws.send(resume(epoch))
            assert json.loads(await ws.recv())["epoch"] == epoch

    with live_server([level_model], tokens=file, data=folder) as server:
        asyncio.run(come(server))


@pytest.mark.parametrize(("name", "said"), [("other", "resume"), ("owner", "audio")])
def test_after_a_restart_a_stream_is_for_who_knows_its_epoch_or_has_its_token(level_model, left, name, said):
    folder, file, tokens, epoch = left

    async def come(server: LiveServer) -> str:
        async with connection((server, tokens), name, "mine") as ws:
            await ws.send(resume(epoch) if said == "resume" else AUDIO)
            return str(json.loads(await ws.recv())["epoch"])

    with live_server([level_model], tokens=file, data=folder) as server:
        assert (asyncio.run(come(server)) == epoch) == (said == "resume")


def test_a_stream_that_nobody_came_back_for_after_a_restart_is_anybodys(level_model, left, monkeypatch):
    folder, file, tokens, _ = left
    monkeypatch.setattr(audio_socket, "RESUME_S", 0.0)

    async def come(server: LiveServer) -> str:
        async with connection((server, tokens), "other", "mine") as ws:
            await ws.send(AUDIO)
            return str(json.loads(await ws.recv())["type"])

    with live_server([level_model], tokens=file, data=folder) as server:
        assert asyncio.run(come(server)) == "ready"


def test_the_log_keeps_no_name_of_a_token(left):
    folder, *_ = left
    with contextlib.closing(sqlite3.connect(folder / "events.db")) as db:
        assert [len(owner) for (owner,) in db.execute("SELECT owner FROM streams")] == [64]
