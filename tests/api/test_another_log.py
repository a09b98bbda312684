"""FIELD 7: an id of another log, asked of this one: it begins at its own beginning, and says so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest
import websockets

from kws_serve.api.tokens import TokenFile
from kws_serve.client import KwsClient
from tests.sinks.test_event_log import detection
from tests.support.live_server import LiveServer, live_server

BEYOND = 5000
"""An id that this log has not given yet."""


@pytest.fixture(scope="module")
def new(level_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A new log with three ids, the second of stream b."""
    with live_server([level_model], data=tmp_path_factory.mktemp("log")) as server:
        server.log.publish([detection(i, stream="sbs"[i]) for i in range(3)])
        assert server.log.flush(10)
        yield server


def page(server: LiveServer, **asked: object) -> dict:
    return httpx.get(f"{server.http}/v1/detections", params=asked).json()


def test_after_an_id_of_another_log_it_begins_anew_and_says_so(new):
    log_id = new.log.log_id
    for asked in ({"after": BEYOND}, {"after": 2, "log_id": "another"}, {"after": BEYOND, "log_id": log_id}):
        found = page(new, **asked)
        assert (found["log_id"], found["reset"]) == (log_id, True)
        assert ([d["id"] for d in found["items"]], found["next"]) == ([1, 2, 3], 3)


def test_after_an_id_of_this_log_it_goes_on(new):
    log_id = new.log.log_id
    for asked, ids in (
        ({}, [1, 2, 3]),
        ({"after": 2}, [3]),
        ({"after": 3}, []),
        ({"after": 2, "log_id": log_id}, [3]),
        ({"after": 1, "stream": "b"}, [2]),
        ({"after": 3, "stream": "b"}, []),
        ({"before": 3, "log_id": "another"}, [2, 1]),
        ({"before": 2**63 - 1}, [3, 2, 1]),
    ):
        found = page(new, **asked)
        assert (found["log_id"], found["reset"], [d["id"] for d in found["items"]]) == (log_id, False, ids)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_exports_begin_anew_too(new, kind):
    def lines(**asked: object) -> list[str]:
        return httpx.get(f"{new.http}/v1/detections.{kind}", params=asked).text.splitlines()

    assert lines(after=BEYOND) == lines(after=2, log_id="another") == lines()
    assert len(lines(after=2)) == len(lines()) - 2


@pytest.mark.parametrize(
    ("query", "reset"), [(f"after={BEYOND}", True), ("after=2&log_id=another", True), ("after=0", False)]
)
async def test_a_subscriber_is_told_and_gets_all_of_it(new, query, reset):
    async with asyncio.timeout(10), websockets.connect(f"{new.ws}/v1/detections?{query}") as ws:
        hello = json.loads(await ws.recv())
        assert (hello["log_id"], hello["reset"]) == (new.log.log_id, reset)
        assert [json.loads(await ws.recv())["id"] for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("kept", [{"after": BEYOND}, {"after": 2, "log_id": "another"}])
async def test_the_client_goes_on_in_the_new_log(new, kept):
    async with asyncio.timeout(10), KwsClient(new.http) as client, aclosing(client.detections(**kept)) as found:
        assert [(await anext(found))["id"] for _ in range(3)] == [1, 2, 3]
        assert client.log_id == new.log.log_id


def test_a_confined_token_is_told_of_its_own_ids_only(level_model, tmp_path):
    """Whether an id was given to others is not told: `reset` goes by those of its own streams."""
    file = TokenFile(tmp_path / "tokens.json")
    headers = {"Authorization": f"Bearer {file.new('b', ['listen'], ['b'])}"}
    answers = []
    with live_server([level_model], tokens=file) as server:
        server.log.publish([detection(0), detection(1, stream="b")])
        for i in (2, 3):
            server.log.publish([detection(i), detection(10 + i)])
            assert server.log.flush(10)
            answers += [[page_of(server, headers, after) for after in (0, 1, 2, 3, 4, 6)]]
    assert answers[0] == answers[1] == [(False, [2]), (False, [2]), (False, []), (True, [2]), (True, [2]), (True, [2])]


def page_of(server: LiveServer, headers: dict[str, str], after: int) -> tuple[bool, list[int]]:
    found = httpx.get(f"{server.http}/v1/detections", params={"after": after}, headers=headers).json()
    return found["reset"], [d["id"] for d in found["items"]]
