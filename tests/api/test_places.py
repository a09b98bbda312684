"""Nobody takes all places of viewers and subscribers, nor keeps others out by opening and closing a stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import websockets
from hypothesis import given
from hypothesis import strategies as st

from kws_serve.api.places import Places
from kws_serve.api.tokens import TokenFile
from kws_serve.wire import WireError
from tests.api.test_security import closed_with
from tests.campaigns.proof import count, record
from tests.reliability.test_resume import until
from tests.support.live_server import LiveServer, live_server

NAMES = ("greedy", "another", "third")


@pytest.fixture(scope="module")
def shared(level_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LiveServer, dict[str, dict]]]:
    """A server, and the headers of three who may do the same."""
    file = TokenFile(tmp_path_factory.mktemp("tokens") / "tokens.json")
    headers = {name: {"Authorization": f"Bearer {file.new(name, ['listen', 'view', 'ingest'])}"} for name in NAMES}
    headers["admin"] = {"Authorization": f"Bearer {file.new('admin', ['admin'])}"}
    with live_server([level_model], tokens=file) as server:
        yield server, headers


@pytest.mark.parametrize(("path", "what"), [("live?stream=a", "viewers"), ("detections", "subscribers")])
async def test_one_token_leaves_places_for_others(shared, path, what, monkeypatch):
    server, headers = shared
    places = getattr(server.app.state.service, what)
    monkeypatch.setattr(places, "most", 32)
    async with contextlib.AsyncExitStack() as open_ones:

        async def come(name: str) -> tuple[int, dict]:
            """Places that the bearer of a token gets before it is refused, and what it is told then."""
            for got in range(40):
                ws = await open_ones.enter_async_context(
                    websockets.connect(f"{server.ws}/v1/{path}", additional_headers=headers[name])
                )
                if "code" in (said := json.loads(await ws.recv())):
                    assert await closed_with(ws) == (4429, {})
                    return got, said
            raise AssertionError("it was never refused")

        found = [await come(name) for name in NAMES]
        assert [n for n, _ in found] == [16, 8, 4]
        assert "found 16 of 32 taken, 16 of them by your token" in found[0][1]["message"]
        text = httpx.get(f"{server.http}/metrics", headers=headers["admin"]).text
        assert f'kws_refused_total{{kind="{what}"}} 3.0' in text
    await until(lambda: not len(places))


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=200), st.integers(1, 64))
def test_who_has_none_finds_one_until_all_are_taken(turns, most):
    """Whoever comes and goes in whatever order; by token, or by address where there is none."""
    places = Places("places", most)
    taken: dict[int, list[contextlib.AbstractContextManager[None]]] = {}
    for who, comes in turns:
        mine = taken.setdefault(who, [])
        if not comes:
            if mine:
                mine.pop().__exit__(None, None, None)
            continue
        place = places.one(f"t{who}" if who % 2 else "", f"10.0.0.{who}")
        free = most - sum(map(len, taken.values()))
        if len(mine) < free:
            place.__enter__()
            mine.append(place)
        else:
            with pytest.raises(WireError):
                place.__enter__()
        assert len(mine) <= (most + 1) // 2
        assert len(places) == sum(map(len, taken.values())) <= most


async def test_opening_and_closing_a_stream_locks_nobody_out(shared, monkeypatch):
    """As many connections a second as an address may make, each opening the stream again; the engine has hardly
    anything to do, but reckons that a stream takes 1 % of it.
    """
    server, headers = shared
    monkeypatch.setattr(server.engine.load, "of_one", 0.01)
    going, opened, refused = True, 0, 0

    async def churn() -> None:
        nonlocal opened, refused
        while going:
            async with websockets.connect(f"{server.ws}/v1/audio?stream=a", additional_headers=headers["greedy"]) as ws:
                said = json.loads(await ws.recv())
                opened += said["type"] == "ready"
                refused += said.get("code") == 4429

    churning = [asyncio.create_task(churn()) for _ in range(8)]
    newcomers = count(200, 10)
    told = []
    try:
        await until(lambda: opened + refused > 100)
        for i in range(newcomers):
            seen = opened + refused
            async with websockets.connect(
                f"{server.ws}/v1/audio?stream=newcomer-{i}", additional_headers=headers["another"]
            ) as ws:
                told.append(json.loads(await ws.recv())["type"])
            await until(lambda seen=seen: opened + refused > seen)
    finally:
        going = False
        await asyncio.gather(*churning, return_exceptions=True)
    assert told == ["ready"] * newcomers
    assert refused, "it was not told that it opens the stream too often"
    record("places", f"{newcomers} newcomers while a stream is opened and closed", "each let in")
