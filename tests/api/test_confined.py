"""What a token confined to a stream gets is the same whatever other streams do: on every route and socket."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import websockets

from kws_serve.api.tokens import TokenFile
from kws_serve.messages import JsonObject
from kws_serve.sinks.filter import Filter
from tests.api.test_security import closed_with
from tests.api.test_tokens import routes
from tests.campaigns.proof import record
from tests.support.live_server import LiveServer, live_server
from tests.support.streams import words

AUDIO = words(3.0)
MEASURED = {"at", "latency_ms", "uptime_s", "last_seen", "opened_at", "log_id", "epoch", "uid", "level"}
"""Times, and names made anew with each stream and log. `level` is of the last message that the engine took."""
IDS = {"id", "start_id", "next", "last_id", "to"}
NOBODYS = 999_999
OTHER_SERVER = {
    "name": "lab-2", "address": "10.0.0.2:8000", "device": "", "user": "", "note": "", "load": 1.0, "streams": 3,
    "state": "ON", "last_seen": None, "url": "http://10.0.0.2:8000/", "detail": "",
}  # fmt: skip


@dataclass
class Caller:
    """The bearer of a token of stream a, and what it was told."""

    server: LiveServer
    headers: dict[str, str]
    http: httpx.Client = field(default_factory=httpx.Client)
    ids: dict[int, str] = field(default_factory=dict)  # id of one of its own rows -> which it is
    told: dict[str, Any] = field(default_factory=dict)

    def open(self, path: str) -> Any:
        return websockets.connect(f"{self.server.ws}{path}", additional_headers=self.headers, max_queue=None)

    def get(self, path: str, method: str = "get") -> httpx.Response:
        return self.http.request(method, f"{self.server.http}{path}", headers=self.headers, json={})

    def plain(self, value: Any, key: str = "") -> Any:
        """`value` without what may differ: measured times, and ids as the place of its own rows."""
        if isinstance(value, dict):
            return {k: self.plain(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [self.plain(v, key) for v in value]
        if key in MEASURED and value is not None:
            return "measured"
        if key in IDS and f"{value}".isdigit():
            return self.ids.get(int(value), value)
        return value.replace(self.server.host, "HOST") if isinstance(value, str) else value

    def note(self, name: str, answer: httpx.Response, asked: str = "") -> None:
        """Keep an answer. `asked`: what it may repeat of the question."""
        kind, text = answer.headers["content-type"].split(";")[0], answer.text
        text = text.replace(asked, "asked ") if asked else text
        body: Any = text
        if kind == "application/json":
            body = json.loads(text)
        elif kind == "application/jsonl":
            body = [json.loads(line) for line in text.splitlines()]
        elif kind == "text/csv":
            body = list(csv.DictReader(io.StringIO(text)))
        headers = {k: v for k, v in answer.headers.items() if k not in ("date", "content-length", "last-modified")}
        self.told[name] = (answer.status_code, headers, self.plain(body))


async def heard(ws: Any, wanted: Callable[[JsonObject], bool]) -> list[JsonObject]:
    """Messages up to one that is wanted, without acks and levels, which come by the clock."""
    found: list[JsonObject] = []
    async with asyncio.timeout(20):
        while not found or not wanted(found[-1]):
            message = json.loads(await ws.recv())
            found += [message] if message["type"] not in ("ack", "level") else []
    return found


@contextlib.asynccontextmanager
async def fed(server: LiveServer, headers: dict[str, str], query: str) -> AsyncIterator[tuple[Any, JsonObject]]:
    """A stream that was let in, and its `ready`: a busy machine may make the service ask to come back later."""
    url = f"{server.ws}/v1/audio?{query}"
    async with asyncio.timeout(60):
        while True:
            ws = await websockets.connect(url, additional_headers=headers, max_queue=None)
            ready = json.loads(await ws.recv())
            if ready.get("code") != 4429:
                break
            await ws.close()
    try:
        yield ws, ready
    finally:
        await ws.close()


async def play(server: LiveServer, headers: dict[str, str], stream: str, seconds: float) -> None:
    """A whole stream that fires three times a second, with samples that are none."""
    beat = np.repeat(np.array([0, 0.7], np.float32), (3200, 1600))
    audio = np.tile(beat, int(seconds * 16000 / len(beat)))
    audio[1000:1010], audio[2000:2010] = np.nan, 7.0
    async with fed(server, headers, f"stream={stream}&format=f32le") as (ws, _):
        for at in range(0, len(audio), 16000):
            await ws.send(audio[at : at + 16000].tobytes())
        await ws.send('{"type":"end"}')
        assert [json.loads(text) async for text in ws][-1]["type"] == "done"


async def all_that_is_told(server: LiveServer, token: str, admin: str, busy: bool) -> dict[str, Any]:
    """What the bearer of `token` gets; while `busy` other streams fire, send nonsense, and are followed."""
    a, other = Caller(server, {"Authorization": f"Bearer {token}"}), {"Authorization": f"Bearer {admin}"}
    if busy:
        await play(server, other, "b", 3.0)
    follower = f"{server.ws}/v1/detections?after=0"
    async with (
        websockets.connect(follower, additional_headers=other, max_queue=None),
        a.open("/v1/detections?after=0") as all_kept,
        a.open("/v1/live?stream=a") as viewer,
        fed(server, a.headers, "stream=a&scores=1") as (ws, ready),
    ):
        for at in range(0, len(AUDIO), 1600):
            await ws.send(AUDIO[at : at + 1600].tobytes())
        found = [ready] + await heard(ws, lambda m: m["type"] == "scores" and m["end_sample"] > len(AUDIO) - 320)
        if busy:
            await asyncio.gather(*(play(server, other, name, 8.0) for name in "bcdef"))  # more than 100 detections
            httpx.post(f"{server.http}/v1/models/level/reload", headers=other)
            own = f"{server.http}/v1/streams/b/models/level/detection"
            httpx.patch(own, headers=other, json={"*": {"smoothing_ms": 300}}).raise_for_status()
        mine = [m for m in found if m["type"] == "detection"]
        a.ids = {m["id"]: f"own {i}" for i, m in enumerate(mine)}
        assert len(mine) > 3
        await asyncio.to_thread(ask, a)
        async with a.open("/v1/detections") as live_only:
            a.told["hello"] = a.plain(json.loads(await live_only.recv()))
        for path in ("/v1/live?stream=b", "/v1/audio?stream=b", "/v1/detections?nonsense=1"):
            async with a.open(path) as refused:
                a.told[path] = await closed_with(refused)
        await ws.send('{"type":"end"}')
        found += await heard(ws, lambda m: m["type"] == "done")
        a.told["audio"] = a.plain(sorted(found, key=lambda m: m["type"]))  # scores do not wait for a detection's commit
        a.told["detections"] = a.plain(await heard(all_kept, lambda m: m.get("id") == mine[-1]["id"]))
        seen = [m for _ in range(2) for m in await heard(viewer, lambda m: m["type"] == "waiting")]
    await asyncio.to_thread(forget_all, server)
    async with a.open("/v1/detections?after=0") as late:
        a.told["forgotten"] = a.plain(await heard(late, lambda m: m["type"] == "log_gap"))
    a.note("detections forgotten", a.get(f"/v1/detections?after={mine[0]['id']}"))
    frames = [row for m in seen if m["type"] == "frames" for row in m["values"]]  # in how many messages: by the clock
    a.http.close()
    a.told["live"] = frames, a.plain([m for m in seen if m["type"] != "frames"])
    return a.told


def forget_all(server: LiveServer) -> None:
    """As retention would."""
    log = server.log
    ids = [item.detection.id for item in log.page(Filter(), 0, 10**6)[0]]
    log._writer.do(lambda: log.store.space.forget(ids))


def ask(a: Caller) -> None:
    """Every route, with its own ids and with those of others or of nobody."""
    own = [*a.ids]
    foreign = next((n for n in range(1, own[-1]) if n not in a.ids), NOBODYS)
    for method, path in routes(a.server, a.headers):
        for what, id_ in (("own", own[0]), ("last", own[-1]), ("foreign", foreign)):
            filled = path.replace("{name}", "level").replace("{model}", "level").replace("{id}", f"{id_}")
            answer = a.get(filled.replace("{stream}", {"own": "a", "last": "a", "foreign": "b"}[what]), method)
            a.note(f"{method} {path} {what}", answer, f"no id {id_} ")
    for name, query in {
        "two": "limit=2", "after own": f"after={own[1]}", "before own": f"before={own[2]}", "before all": "before=1",
        "newest": f"before={10**9}", "other stream": "stream=b", "no label": "label=nothing", "certain": "min_score=1",
        "after last": f"after={own[-1]}", "after all": f"after={10**9}",
    }.items():  # fmt: skip
        for kind in ("", ".csv", ".jsonl"):
            if kind == "" or query.split("=")[0] not in ("limit", "before"):
                a.note(f"detections{kind} {name}", a.get(f"/v1/detections{kind}?{query}"))


@pytest.fixture
def told(level_model: Path, tmp_path: Path) -> Callable[[bool], dict[str, Any]]:
    """What a confined token is told by a new server."""

    def run(busy: bool) -> dict[str, Any]:
        folder = tmp_path / f"{busy}"
        file = TokenFile(folder / "tokens.json")
        token = file.new("a", ["listen", "ingest", "view"], ["a"])
        watched = [OTHER_SERVER] if busy else []
        with live_server([level_model], tokens=file, data=folder, watched=lambda: watched) as server:
            return asyncio.run(all_that_is_told(server, token, file.new("admin", ["admin"]), busy))

    return run


def test_s4_a_confined_token_is_told_the_same_whatever_other_streams_do(told):
    quiet, busy = told(False), told(True)
    assert quiet.keys() == busy.keys()
    different = {name: (quiet[name], busy[name]) for name in quiet if quiet[name] != busy[name]}
    assert not different, "\n".join(f"{name}: {one}\n  with others: {two}" for name, (one, two) in different.items())
    assert quiet["hello"]["last_id"] == quiet["get /v1/status own"][2]["last_id"] != 0
    record("S4 confined", f"{len(quiet)} answers and sockets", "each the same beside 5 streams and a watched server")
