"""FIELD 6, S6: budgets of what is not audio, and bounds of what a peer can make the service keep."""

from __future__ import annotations

import asyncio
import contextlib
import json
import selectors
import socket
import time
from collections.abc import Callable
from itertools import pairwise

import httpx
import pytest
import websockets
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from kws_serve.api.guard import RATES
from kws_serve.api.slices import ROWS, Slices
from kws_serve.transport import http_protocol, websocket_protocol
from kws_serve.transport.batching import BatchingSelector
from kws_serve.transport.budget import Budget, Budgets, Rate, network
from kws_serve.transport.connection import MAX_MESSAGE_BYTES
from kws_serve.transport.http_protocol import BEHIND_BYTES, READ_BYTES
from kws_serve.transport.websocket_protocol import UNKNOWN_FRAMES
from tests.api.conftest import TOKEN
from tests.sinks.test_event_log import detection
from tests.support.live_server import LiveServer
from tests.support.websocket_frames import BINARY, CLOSE, CONT, PING, PONG, TEXT, frame, unpacked

KEY = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
KEY += "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"


@pytest.fixture(autouse=True)
def own_budgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test's own: what others have spent does not count."""
    monkeypatch.setattr(http_protocol, "_connecting", Budgets(http_protocol.CONNECTIONS))
    monkeypatch.setattr(websocket_protocol, "_words", Budgets(websocket_protocol.WORDS_OF_ALL))


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 20)), max_size=60), st.floats(0, 10))
def test_a_budget_never_gives_more_than_its_rate(asked, longest_s):
    """Whatever is asked and when: what was let through by any moment is within burst + rate x time."""
    rate, now_s, done = Rate(5, 10), 0.0, []
    budget = Budget(rate, now_s)
    for pause_s, n in asked:
        now_s += pause_s
        wait_s = budget.spend(n, now_s, longest_s)
        if wait_s is not None:
            assert wait_s <= longest_s
            done.append((now_s + wait_s, n))
    for at_s, _ in done:
        assert sum(n for s, n in done if s <= at_s) <= rate.burst + rate.per_s * at_s + 1e-6


def test_budgets_forget_those_who_owe_nothing():
    budgets = Budgets(Rate(1, 1))
    budgets.of("debtor", 0.0).spend(1, 0.0)
    for i in range(3 * budgets.MOST):
        budgets.of(i, 0.5)
    assert len(budgets._of) <= budgets.MOST + 1
    assert budgets.of("debtor", 0.5).left(0.5) == 0.5


@pytest.mark.parametrize("address, peer", [
    ("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::ffff:10.0.0.1", "::ffff:10.0.0.1"), ("", ""), ("unix", "unix"),
    ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"), ("2001:db8::1", "2001:db8::/64"), ("fe80::1%eth0", "fe80::/64"),
])  # fmt: skip
def test_an_ipv6_network_is_one_peer(address, peer):
    assert network(address) == peer


def talk(server: LiveServer, path: str, data: bytes, *, token: bool) -> int | None:
    """The close code that frames get; None: none within a second."""
    with socket.create_connection(("127.0.0.1", server.server.port)) as s:
        bearer = f"Authorization: Bearer {TOKEN}\r\n" if token else ""
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{bearer}{KEY}\r\n".encode())
        got = b""
        while b"\r\n\r\n" not in got:
            got += s.recv(4096)
        got = got.partition(b"\r\n\r\n")[2]
        s.sendall(data)
        s.settimeout(1.0)
        until_s = time.monotonic() + 1.0
        with contextlib.suppress(TimeoutError):
            while time.monotonic() < until_s:
                while (found := unpacked(got)) is not None:
                    opcode, payload, got = found
                    if opcode == CLOSE:
                        return int.from_bytes(payload[:2], "big")
                got += (part := s.recv(65536))
                if not part:
                    return 1006
    return None


AUTH = frame(TEXT, json.dumps({"type": "auth", "token": TOKEN}).encode())
SOCKETS = ["/v1/detections", "/v1/audio?stream=budget", "/v1/live?stream=budget"]


@pytest.mark.parametrize("path", SOCKETS)
def test_before_the_token_there_is_one_message_and_no_ping(locked, path):
    assert talk(locked, path, frame(PING), token=False) == 1008
    assert talk(locked, path, frame(PING) + AUTH, token=False) == 1008
    assert talk(locked, path, frame(PONG) * (UNKNOWN_FRAMES + 1), token=False) == 1008
    assert talk(locked, path, AUTH * (UNKNOWN_FRAMES + 1), token=False) == 1008
    assert talk(locked, path, frame(PONG) + AUTH, token=False) is None  # the pong of a ping of ours
    assert talk(locked, path, frame(BINARY, bytes(3200)), token=False) == 4401


@pytest.mark.parametrize("path", SOCKETS)
@pytest.mark.parametrize("some, n", [
    (frame(PING), 30), (frame(PONG), 30), (AUTH, 30), (frame(TEXT, b"{", fin=0) + frame(CONT, b"}") * 299, 0),
], ids=["pings", "pongs", "texts", "fragments"])  # fmt: skip
def test_behind_the_token_there_is_a_budget(locked, path, some, n):
    if n:
        assert talk(locked, path, some * (n - 5), token=True) is None  # within it
    assert talk(locked, path, some * (n + 10 or 2), token=True) in ((1008,) if n else (1008, 1002, 4400))


def test_audio_in_very_short_messages_has_one_too(locked):
    path = "/v1/audio?stream=budget"
    assert talk(locked, path, frame(BINARY, b"\0\0") * 200, token=True) is None
    assert talk(locked, path, frame(BINARY, b"\0\0") * 400, token=True) == 1008
    assert talk(locked, path, frame(BINARY, bytes(64)) * 400, token=True) is None


def test_a_message_without_end_is_no_way_round(locked):
    fragments = frame(BINARY, b"", fin=0) + frame(CONT, b"", fin=0) * 400
    assert talk(locked, "/v1/audio?stream=budget", fragments, token=True) == 1008


async def test_ten_connections_have_no_more_than_one_address_may(locked, monkeypatch):
    monkeypatch.setattr(websocket_protocol, "_words", Budgets(Rate(0.1, 100)))
    codes: list[int | None] = []

    async def one() -> None:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with websockets.connect(f"{locked.ws}/v1/detections", additional_headers=headers) as ws:
            with contextlib.suppress(ConnectionClosed):
                for _ in range(20):  # within its own
                    await (await ws.ping())
            codes.append(ws.close_code)

    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with websockets.connect(f"{locked.ws}/v1/detections", additional_headers=headers) as innocent:
        await asyncio.gather(*(one() for _ in range(10)))
        await (await innocent.ping())  # what others of its address did is not its fault
    assert codes.count(1008) > 0


async def test_a_page_and_a_dragged_slider_are_within_their_budgets(locked):
    """What a browser sends when it opens three tabs, and a slider that moves two labels at once."""
    assert RATES["page"].burst >= 3 * 30
    async with httpx.AsyncClient(base_url=locked.http, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        answers = await asyncio.gather(*(client.get("/main.js") for _ in range(90)))
        answers += [
            await client.patch("/v1/models/level/detection", json={"*": {"refractory_s": 1.0}}) for _ in range(30)
        ]
    assert {a.status_code for a in answers} == {200}


async def test_what_does_not_get_its_turn_in_time_is_told_429(locked):
    async with httpx.AsyncClient(base_url=locked.http, timeout=20, limits=httpx.Limits(max_connections=300)) as client:
        answers = await asyncio.gather(*(client.patch("/v1/models/level/detection", json={}) for _ in range(200)))
    codes = [a.status_code for a in answers]
    assert set(codes) == {401, 429}
    refused = next(a for a in answers if a.status_code == 429)
    assert refused.headers["retry-after"] == "4"
    assert refused.headers["connection"] == "close"
    assert "wanted at most 20 a second" in refused.json()["message"]
    assert httpx.get(f"{locked.http}/readyz").status_code == 200  # of another line


async def test_a_token_has_a_line_of_its_own(locked):
    """Whoever has none can keep the line before the door full; those with one pass by."""
    async with httpx.AsyncClient(base_url=locked.http, timeout=20, limits=httpx.Limits(max_connections=300)) as client:
        crowd = [asyncio.create_task(client.patch("/v1/models/level/detection", json={})) for _ in range(200)]
        for answer in asyncio.as_completed(list(crowd)):
            if (await answer).status_code == 429:  # the line is full
                break
        headers = {"Authorization": f"Bearer {TOKEN}"}
        mine = await client.patch("/v1/models/level/detection", json={}, headers=headers)
        assert mine.status_code == 200
        await asyncio.gather(*crowd)


def test_a_body_counts_by_its_size(locked):
    """One that does not tell its size counts as the most that is taken."""
    rate = RATES["change"]
    with httpx.Client(base_url=locked.http, timeout=20) as client:
        began_s = time.monotonic()
        codes = [client.put("/v1/detections/1/review", content=iter([b"x"])).status_code for _ in range(2)]
        assert time.monotonic() - began_s > 64 / rate.per_s  # a lower bound, which no load can break
    assert codes == [401, 429] or codes == [401, 401]


async def test_new_connections_wait_for_their_turn(locked, monkeypatch):
    monkeypatch.setattr(http_protocol, "_connecting", Budgets(Rate(10, 5)))
    began_s = time.monotonic()
    async with contextlib.AsyncExitStack() as stack:
        first_lines = []
        for _ in range(15):
            reader, writer = await asyncio.open_connection("127.0.0.1", locked.server.port)
            stack.callback(writer.close)
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            first_lines.append(reader.readline())
        assert {line.split()[1] for line in await asyncio.gather(*first_lines)} == {b"200"}
        assert time.monotonic() - began_s > 0.9  # ten of them at 10 a second
    monkeypatch.setattr(http_protocol, "_connecting", Budgets(Rate(0.01, 0)))
    reader, writer = await asyncio.open_connection("127.0.0.1", locked.server.port)
    assert (await reader.readline()).split()[1] == b"429"
    writer.close()


def test_the_door_rests_after_each_look():
    selector = BatchingSelector()
    with socket.create_server(("127.0.0.1", 0)) as door, socket.socket() as client:
        selector.door(door.fileno())
        selector.register(door, selectors.EVENT_READ, "door")
        client.connect(door.getsockname())
        looks = []
        until_s = time.monotonic() + 0.1
        while time.monotonic() < until_s:
            looks += [time.monotonic() for key, _ in selector.select(0.05) if key.data == "door"]  # and none is let in
        assert 2 <= len(looks) <= 6
        assert all(b - a >= 0.019 for a, b in pairwise(looks))
        assert selector.get_key(door).data == "door"
        selector.unregister(door)  # while it rests
        assert not selector.get_map()
    selector.close()


@pytest.fixture
def long_log(server: LiveServer) -> int:
    n = server.log.last_id
    server.log.publish([detection(10**9 + n + i, stream="long") for i in range(500)])
    assert server.log.flush(60)
    return server.log.last_id


async def test_long_answers_are_made_in_turns(server, long_log, monkeypatch):
    """Of two exports neither waits for the end of the other, and none makes more than a slice at once."""
    made: list[int] = []
    page = server.log.page
    monkeypatch.setattr(server.log, "page", lambda w, a, limit, upto: (made.append(limit), page(w, a, limit, upto))[1])
    names = ("csv", "jsonl")
    async with httpx.AsyncClient(base_url=server.http, timeout=30) as client:
        answers = await asyncio.gather(*(client.get(f"/v1/detections.{name}?stream=long") for name in names))
        whole = (await client.get("/v1/detections?stream=long&limit=1000")).json()
        newest = (await client.get("/v1/detections?stream=long&limit=120&before=9999999")).json()
    assert max(made) <= ROWS
    items = whole["items"]
    assert len(answers[0].text.splitlines()) == len(items) + 1 >= 501
    assert [json.loads(line)["id"] for line in answers[1].text.splitlines()] == [d["id"] for d in items]
    assert [d["id"] for d in newest["items"]] == [d["id"] for d in items][::-1][:120]
    assert newest["next"] == newest["items"][-1]["id"]


async def test_slices_take_turns_and_rest_while_there_is_audio():
    order: list[str] = []

    def parts(name: str):
        for _ in range(4):
            time.sleep(0.01)
            order.append(name)
            yield name

    busy = True
    slices = Slices(lambda: busy)

    async def ask(name: str) -> None:
        assert [part async for part in slices.each(parts(name))] == [name] * 4

    began_s = time.monotonic()
    await asyncio.gather(ask("a"), ask("b"))
    assert order == ["a", "b"] * 4
    assert time.monotonic() - began_s >= 8 * 0.01 * 4  # each rests for three times what it took


def http_connection(server: LiveServer) -> http_protocol.Http:
    (found,) = [p for p in server.server._uvicorn.server_state.connections if isinstance(p, http_protocol.Http)]
    return found


def sends(server: LiveServer, head: bytes, more: bytes, look: Callable[[http_protocol.Http], int]) -> tuple[int, int]:
    """The most that `look` finds while the same bytes are sent on and on after `head`, and what was sent in all."""
    largest = sent = 0
    with socket.create_connection(("127.0.0.1", server.server.port)) as s:
        s.sendall(head)
        s.settimeout(0.3)
        protocol = None
        until_s = time.monotonic() + 4
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < until_s:
                with contextlib.suppress(TimeoutError):
                    sent += s.send(more)
                with contextlib.suppress(TimeoutError, BlockingIOError):
                    s.recv(1 << 20, socket.MSG_DONTWAIT)
                with contextlib.suppress(ValueError):
                    protocol = protocol or http_connection(server)
                if protocol is not None:
                    largest = max(largest, look(protocol))
    return largest, sent


def kept(protocol: http_protocol.Http) -> int:
    """Bytes of requests that it holds."""
    body = protocol.cycle.body if protocol.cycle is not None else b""
    return len(protocol.conn._receive_buffer) + len(body)


def test_behind_a_request_little_is_kept(server):
    request = f"GET / HTTP/1.1\r\nHost: {server.host}\r\n\r\n".encode()
    largest, _ = sends(server, request, request * 500, kept)
    assert 0 < largest <= BEHIND_BYTES


@pytest.mark.parametrize("path, method", [("/v1/status", "GET"), ("/", "GET"), ("/healthz", "GET"), ("/", "POST"),
                                          ("/v1/detections/1/review", "PUT"), ("/v1/none", "PUT")])  # fmt: skip
@pytest.mark.parametrize("coded", [False, True])
def test_a_body_that_nobody_reads_is_not_taken_in(locked, path, method, coded):
    size = "Transfer-Encoding: chunked" if coded else f"Content-Length: {10**10}"
    head = f"{method} {path} HTTP/1.1\r\nHost: {locked.host}\r\n{size}\r\n\r\n".encode()
    more = b"2000\r\n" + bytes(0x2000) + b"\r\n" if coded else bytes(0x2000)
    taken: list[int] = []
    largest, _ = sends(locked, head, more * 8, lambda p: (taken.append(p._taken), kept(p))[1])
    assert largest <= 2 * BEHIND_BYTES
    assert max(taken, default=0) <= BEHIND_BYTES + READ_BYTES  # none: it was closed before it was looked at


async def test_a_websocket_that_is_not_read_keeps_one_read(server):
    """A stream far ahead of its clock: what it sends stays in the kernel."""
    async with websockets.connect(f"{server.ws}/v1/audio?stream=ahead") as ws:
        await ws.recv()
        audio = bytes(32_000)

        async def push() -> None:
            while True:
                await ws.send(audio)

        pushing = asyncio.create_task(push())
        await asyncio.sleep(1.0)
        connection = server.app.state.service.ingest.feeding["ahead"]._connection
        lies = sum(len(m.get("bytes") or "") for m in list(connection.queue._queue))
        assert lies + len(connection._splitter._held) <= 2 * MAX_MESSAGE_BYTES
        pushing.cancel()
        ws.transport.abort()
