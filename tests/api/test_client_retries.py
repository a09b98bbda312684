"""What the Python client tries again, and how often: final are only 4400, 4401 and 4403."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from http import HTTPStatus

import httpx
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from kws_serve.client import KwsClient, ServiceError, retries
from tests.support.live_server import live_server
from tests.support.sending_away import sent_away
from tests.support.streams import expected, words

HELLO = json.dumps({"type": "hello", "log_id": "l", "last_id": 0, "reset": False, "version": "1"})
FOUND = json.dumps({"type": "detection", "id": 1})
REFUSALS = [429, 503, 1008, 1012, 4408, 4409, 4429]
"""HTTP status of the handshake or close code, none of which is final."""


class Refusing:
    """A server that refuses `times` tries, then has one detection."""

    def __init__(self, refusal: int, times: float, *, after_hello: bool = False) -> None:
        self.tries = 0
        self._refusal = refusal
        self._times = times
        self._after_hello = after_hello

    def handshake(self, connection: ServerConnection, request: Request) -> Response | None:
        self.tries += 1
        if self.tries <= self._times and self._refusal < 1000:
            return connection.respond(HTTPStatus(self._refusal), "later\n")
        return None

    async def talk(self, ws: ServerConnection) -> None:
        refused = self.tries <= self._times
        if self._after_hello or not refused:
            await ws.send(HELLO)
        if refused:
            await ws.send(json.dumps({"type": "error", "code": self._refusal, "message": "later"}))
            await ws.close(self._refusal)
        else:
            await ws.send(FOUND)
            await ws.wait_closed()


@contextlib.asynccontextmanager
async def serving(refusing: Refusing) -> AsyncIterator[str]:
    async with serve(refusing.talk, "127.0.0.1", 0, process_request=refusing.handshake) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_FIRST_RETRY_S", 0.02)


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_what_may_go_better_later_is_tried_again(refusal):
    refusing = Refusing(refusal, 3)
    async with serving(refusing) as url, KwsClient(url) as to, asyncio.timeout(20):
        assert (await anext(to.detections(after=0)))["id"] == 1
    assert refusing.tries == 4


@pytest.mark.parametrize(
    ("refusal", "after_hello"), [*((refusal, False) for refusal in REFUSALS), (1008, True), (4408, True), (4429, True)]
)
async def test_the_pauses_grow_while_it_is_refused(refusal, after_hello):
    """0.02 s doubling makes at most 8 tries in 2.5 s, however the jitter falls; without growth it is some 150."""
    refusing = Refusing(refusal, 1e9, after_hello=after_hello)
    async with serving(refusing) as url, KwsClient(url) as to:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.5):
                await anext(to.detections(after=0))
    assert 1 <= refusing.tries <= 9


@pytest.mark.parametrize("refusal", [4400, 4401, 4403])
async def test_what_another_try_would_meet_again_is_final(refusal):
    refusing = Refusing(refusal, 1)
    async with serving(refusing) as url, KwsClient(url) as to, asyncio.timeout(20):
        with pytest.raises(ServiceError, match="later") as e:
            await anext(to.detections())
    assert (e.value.code, refusing.tries) == (refusal, 1)


@pytest.mark.parametrize("code", [4408, 4429])
async def test_a_stream_that_is_sent_away_goes_on_and_nothing_is_told_twice(level_model, code):
    """As where the service sheds load: the client backs off, comes back, and is heard on to the sample."""
    audio = words(6)
    with live_server([level_model]) as server:
        async with KwsClient(server.http) as to, to.audio("shed") as sender, asyncio.timeout(60):
            epoch = sender.ready["epoch"]

            async def sending() -> None:
                for at in range(0, len(audio), 1600):
                    await sender.send(audio[at : at + 1600])
                await sender.end()

            feeding = asyncio.create_task(sending())
            sending_away = asyncio.create_task(sent_away(server, "shed", code, 3))
            messages = [m async for m in sender]
            await asyncio.gather(feeding, sending_away)
            assert len(to._open) == 1  # those that were lost are not kept
        items = httpx.get(f"{server.http}/v1/detections?limit=1000").json()["items"]
    assert messages[-1] == {"type": "done", "samples": len(audio)}
    assert [(d["label"], d["start_sample"]) for d in items] == expected(level_model, audio)
    assert {d["epoch"] for d in items} == {epoch}
