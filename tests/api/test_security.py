"""FIELD 6, rows S1, S2, S3, S5, S6, S7 and S13; the others' tests are named in docs/guarantees.md."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket

import httpx
import numpy as np
import psutil
import pytest
import websockets
from websockets.exceptions import ConnectionClosed, InvalidStatus

from kws_serve.api.hosts import Hosts
from kws_serve.api.security import Access, check_exposure
from kws_serve.messages import KwsError
from kws_serve.transport import http_protocol
from kws_serve.transport.peer import open_connections
from tests.api.conftest import TOKEN
from tests.campaigns.proof import record


async def refused_upgrade(server, path="/v1/detections", **connect) -> int:
    """The HTTP status that came instead of the upgrade."""
    with pytest.raises(InvalidStatus) as e:
        await websockets.connect(f"{server.ws}{path}", **connect)
    return e.value.response.status_code


async def closed_with(ws) -> tuple[int, dict]:
    """The close code, and the error message before it."""
    error = {}
    try:
        async with asyncio.timeout(10):
            while True:
                message = json.loads(await ws.recv())
                error = message if message["type"] == "error" else error
    except ConnectionClosed:
        return ws.close_code, error


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]", "", "192.168.1.7", "example.org", "2001:db8::1", "0"])
def test_s1_another_host_needs_a_token_or_insecure(host):
    with pytest.raises(KwsError, match="token"):
        check_exposure(host, None, False)
    check_exposure(host, "t" * 16, False)
    check_exposure(host, None, True)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.0.0.2"])
def test_s1_loopback_needs_nothing(host):
    check_exposure(host, None, False)


BAD_ORIGINS = [
    "null", "", "http://evil.example", "https://evil.example", "http://127.0.0.1", "http://localhost",
    "https://{host}", "ws://{host}", "http://{host}.evil.example", "http://evil.example/{host}", "http://{host}/",
    "http://{host}@evil.example", "http://user@{host}", "http://{host}:80", "file://", "chrome-extension://abc",
    "http://[::1]:{port}", "http://127.0.0.1:1", "http://0.0.0.0:{port}", "http://127.1:{port}", "http://{host}x",
]  # fmt: skip
BAD_HOSTS = [
    "evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil.example:{port}", "0.0.0.0",
    "192.168.0.1:{port}", "10.0.0.1", "[::2]:{port}", "2130706433", "127.1:{port}", "0x7f.0.0.1", "localhost.", "-",
    "127.0.0.1:abc", "local host", "user@127.0.0.1", "127.0.0.1@evil.example", "localhost:80:80", "[::1", "%00",
]  # fmt: skip


UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


@pytest.mark.parametrize("origin", BAD_ORIGINS)
async def test_s2_a_foreign_origin_is_refused_before_the_upgrade(server, origin):
    found = origin.format(host=server.host, port=server.server.port)
    assert await refused_upgrade(server, additional_headers={"Origin": found}) == 403
    assert httpx.get(f"{server.http}/v1/streams", headers={"Origin": found}).status_code == 403


@pytest.mark.parametrize("host", BAD_HOSTS)
def test_s2_a_foreign_host_is_refused_before_the_upgrade(server, host):
    found = host.format(port=server.server.port)
    for path, extra in (("/v1/streams", ""), ("/", ""), ("/v1/detections", UPGRADE)):
        with socket.create_connection(("127.0.0.1", server.server.port)) as s:
            s.sendall(f"GET {path} HTTP/1.1\r\nHost: {found}\r\n{extra}\r\n".encode())
            answer = s.recv(4096)
        assert answer.startswith((b"HTTP/1.1 403", b"HTTP/1.1 400")), answer


async def test_s2_our_own_page_and_programs_are_let_in(server):
    for headers in ({}, {"Origin": f"http://{server.host}"}):
        async with websockets.connect(f"{server.ws}/v1/detections", additional_headers=headers) as ws:
            assert json.loads(await ws.recv())["type"] == "hello"
    for name in ("localhost", "127.0.0.1", "LOCALHOST"):
        host = f"{name}:{server.server.port}"
        assert httpx.get(f"{server.http}/healthz", headers={"Host": host}).status_code == 200


def test_s2_a_wildcard_host_takes_addresses_and_its_own_name_only():
    access = Access(Hosts("0.0.0.0"), "t" * 16)
    assert access.hosts.host_allowed("192.168.1.7:8000")
    assert access.hosts.host_allowed("[2001:db8::1]:8000")
    assert access.hosts.host_allowed(f"{socket.gethostname()}:8000")
    assert not access.hosts.host_allowed("evil.example:8000")


BAD_TOKENS = [
    None, 1, True, [], {}, "", " ", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "x" * 5000, "\x00", "é", TOKEN + "\n",
    " " + TOKEN,
]  # fmt: skip


@pytest.mark.parametrize("token", BAD_TOKENS, ids=repr)
@pytest.mark.parametrize("path", ["/v1/detections", "/v1/audio?stream=a"])
async def test_s3_a_bad_token_message_closes_4401(locked, token, path, caplog):
    caplog.set_level(logging.DEBUG)
    async with websockets.connect(f"{locked.ws}{path}") as ws:
        await ws.send(json.dumps({"type": "auth", "token": token}))
        code, error = await closed_with(ws)
    assert code == 4401
    assert "wanted" in error["message"]
    assert TOKEN not in "".join(r.getMessage() for r in caplog.records if r.name.startswith(("uvicorn", "kws")))


@pytest.mark.parametrize("first", ["{}", "no json", '{"type":"end"}', b"\0\0", "[" * 100, "x" * 20000])
async def test_s3_anything_else_first_closes_4401(locked, first):
    async with websockets.connect(f"{locked.ws}/v1/audio?stream=a") as ws:
        await ws.send(first)
        assert (await closed_with(ws))[0] == 4401


async def test_s3_silence_closes_4401_after_five_seconds(locked):
    async with websockets.connect(f"{locked.ws}/v1/detections") as ws:
        assert (await closed_with(ws))[0] == 4401


async def test_s3_the_token_opens_by_header_and_by_message(locked):
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    async with websockets.connect(f"{locked.ws}/v1/detections", additional_headers=bearer) as ws:
        assert json.loads(await ws.recv())["type"] == "hello"
    async with websockets.connect(f"{locked.ws}/v1/detections") as ws:
        await ws.send(json.dumps({"type": "auth", "token": TOKEN}))
        assert json.loads(await ws.recv())["type"] == "hello"
    for path in (
        "/v1/detections",
        "/v1/streams",
        "/v1/models",
        "/v1/status",
        "/v1/status.csv",
        "/metrics",
        "/openapi.json",
    ):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
            assert httpx.get(f"{locked.http}{path}", headers=headers).status_code == 401, path
        assert httpx.get(f"{locked.http}{path}", headers=bearer).status_code == 200, path
    for path in ("/healthz", "/readyz", "/"):
        assert httpx.get(f"{locked.http}{path}").status_code == 200
    assert httpx.patch(f"{locked.http}/v1/models/level/detection", json={}).status_code == 401


async def test_s3_a_token_in_the_url_is_refused(locked, capfd):
    assert await refused_upgrade(locked, f"/v1/detections?token={TOKEN}") == 403
    assert httpx.get(f"{locked.http}/v1/streams?Token={TOKEN}").status_code == 403
    out, err = capfd.readouterr()
    assert TOKEN not in out + err


def bad_audio() -> list[tuple[str, object]]:
    """50 messages that are no audio: (query, message)."""
    s16, f32 = "rate=16000&format=s16le", "rate=16000&format=f32le"
    cases: list[tuple[str, object]] = [(s16, b"\0" * n) for n in (1, 3, 5, 7, 999, 32001, 3199)]
    cases += [(f32, b"\0" * n) for n in (1, 2, 3, 5, 6, 7, 1001, 63999)]
    cases += [(f"{s16}&channels=3", b"\0" * n) for n in (2, 4, 8, 32)]
    cases += [(s16, b"\0" * n) for n in (32002, 40000, 64000, 262144, 262146, 300000, 524288, 1 << 20)]
    cases += [("rate=384000&format=s16le", b"\0" * n) for n in (262146, 300000, 700000)]
    cases += [("rate=4000&format=s16le", b"\0" * n) for n in (8002, 10000)]
    cases += [(s16, text) for text in ("", "x", "{}", "[]", "null", '"end"', '{"type":1}', '{"type":"nope"}', "{" * 9)]
    cases += [(s16, "[" * n) for n in (9, 100, 10000)]
    cases += [(s16, '{"type":"end","x":' + "[" * 9 + "]" * 9 + "}"), (s16, '{"type":"' + "e" * 17000 + '"}')]
    cases += [(s16, '{"type":"end"'), (s16, "\ufeff{}"), (s16, '{"type":"auth2"}'), (s16, "end")]
    return cases


async def test_s5_bad_audio_closes_4400_and_others_lose_nothing(server):
    cases = bad_audio()
    assert len(cases) >= 50
    before = psutil.Process(os.getpid()).memory_info().rss
    async with websockets.connect(f"{server.ws}/v1/audio?stream=witness") as witness:
        for i, (query, message) in enumerate(cases):
            await witness.send(np.zeros(160, "<i2").tobytes())
            async with websockets.connect(f"{server.ws}/v1/audio?stream=bad-{i}&{query}", max_size=None) as ws:
                await ws.send(message)
                code, error = await closed_with(ws)
            assert code == 4400, (query, message[:40])
            assert "found" in error["message"]
            assert "wanted" in error["message"]
        await witness.send('{"type":"end"}')
        messages = [json.loads(text) async for text in witness]
    assert messages[-1] == {"type": "done", "samples": 160 * len(cases)}
    assert not [m for m in messages if m["type"] in ("gap", "error")]
    grown = psutil.Process(os.getpid()).memory_info().rss - before
    assert grown < 10e6
    record("S5", f"{len(cases)} oversize and malformed messages", f"each 4400; memory grew {grown / 1e6:.1f} MB")


@pytest.mark.parametrize("text, says", [
    ('{"type":"end","x":"' + "e" * 17000 + '"}', "at most 16384"),
    ('{"type":"end","x":' + "[" * 9 + "]" * 9 + "}", "too deep"),
])  # fmt: skip
async def test_s5_good_json_that_is_too_much_is_refused_for_that(server, text, says):
    async with websockets.connect(f"{server.ws}/v1/audio?stream=much") as ws:
        await ws.send(text)
        code, error = await closed_with(ws)
    assert code == 4400
    assert says in error["message"]


BAD_QUERIES = [
    "", "stream=", "stream=A", "stream=../x", "stream=a%00", "stream=a%0a", "stream=" + "a" * 65, "stream=-a",
    "stream=a&rate=", "stream=a&rate=0", "stream=a&rate=3999", "stream=a&rate=384001", "stream=a&rate=1e4",
    "stream=a&rate=16000.0", "stream=a&rate=-1", "stream=a&rate=%D9%A1%D9%A6000", "stream=a&format=mp3",
    "stream=a&channels=0", "stream=a&channels=33", "stream=a&channel=1", "stream=a&channels=2&channel=2",
    "stream=a&scores=2", "stream=a&scores=yes", "stream=a&models=", "stream=a&models=nope", "stream=a&x=1",
    "stream=a&stream=b", "stream=a&Stream=b", "rate=16000", "stream=a&rate=16000&rate=16000",
]  # fmt: skip


@pytest.mark.parametrize("query", BAD_QUERIES)
async def test_s7_bad_parameters_close_4400(server, query):
    async with websockets.connect(f"{server.ws}/v1/audio?{query}") as ws:
        code, error = await closed_with(ws)
    assert code == 4400
    assert "wanted" in error["message"]


@pytest.mark.parametrize("path", [
    "/../pyproject.toml", "/%2e%2e/pyproject.toml", "/..%2fpyproject.toml", "/%2e%2e%2fpyproject.toml", "//etc/passwd",
    "/....//etc/passwd", "/%5c..%5cpyproject.toml", "/main.js/../../pyproject.toml", "/%00", "/main.js%00.html",
    "/.git/config", "/v1/models/../../x/detection", "/v1/models/%2e%2e/detection", "/v1/unknown",
])  # fmt: skip
def test_s7_no_path_leaves_the_page(server, path):
    with socket.create_connection(("127.0.0.1", server.server.port)) as s:
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: {server.host}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while part := s.recv(65536):
            answer += part
    assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 400", b"HTTP/1.1 405")), answer[:200]


def test_s13_every_answer_carries_the_headers(server):
    for path in ("/", "/v1/streams", "/v1/unknown", "/healthz"):
        headers = httpx.get(f"{server.http}{path}").headers
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "microphone=(self)" in headers["permissions-policy"]
        assert "access-control-allow-origin" not in headers


UP = [
    "..", "../..", "../../etc/passwd", "..%2f..", "%2e%2e/%2e%2e", "..\\..", "%2e%2e%5c", "....//", "..;/",
    "%c0%ae%c0%ae/", "/etc/passwd", "//etc/passwd", "\\\\host\\share", "C:\\boot.ini", "file:///etc/passwd", "~root",
    "$HOME", "`id`", ".git/config", ".", "%00", "a%00b", "a/../b", "a/b", "-a", "_a", ".a", "A", "a b", "a\tb",
    "a%0d%0ab", "ä", "ａ", "a" * 65,
]  # fmt: skip
PLACES = ["/v1/models/{x}/detection", "/v1/models/{x}/reload", "/v1/detections/{x}/review", "/v1/detections?stream={x}",
          "/v1/detections.csv?stream={x}", "/{x}"]  # fmt: skip


def test_s7_traversal_in_every_place_that_takes_a_name(server):
    """204 strings in all: each 4xx, and nothing of the machine's files in the answer."""
    n = 0
    for text in UP:
        for place in PLACES:
            method = "PATCH" if "detection" in place and "models" in place else "POST" if "reload" in place else "GET"
            method = "PUT" if "review" in place else method
            target = place.format(x=text.replace(" ", "%20").replace("\t", "%09")).encode("utf-8")
            with socket.create_connection(("127.0.0.1", server.server.port)) as s:
                head = f" HTTP/1.1\r\nHost: {server.host}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
                s.sendall(method.encode() + b" " + target + head.encode())
                answer = b""
                while part := s.recv(65536):
                    answer += part
            n += 1
            page = text == "." and place == "/{x}" and answer.startswith(b"HTTP/1.1 307")  # to /./, which is the page
            assert answer.startswith(b"HTTP/1.1 4") or page, (target, answer[:80])
            assert b"root:" not in answer
    assert n >= 200
    record("S7", f"{n} traversal strings", "each 4xx")


async def test_s5_streams_and_connections_are_limited(server, monkeypatch):
    monkeypatch.setattr(server.engine, "max_streams", len(server.engine.streams) + 3)
    async with contextlib.AsyncExitStack() as open_ones:
        codes = []
        for i in range(6):
            ws = await open_ones.enter_async_context(websockets.connect(f"{server.ws}/v1/audio?stream=limit-{i}"))
            message = json.loads(await ws.recv())
            codes.append(message.get("code"))
        assert codes == [None] * 3 + [4429] * 3
    monkeypatch.setattr(http_protocol, "MAX_PER_CLIENT", sum(open_connections.values()) + 5)
    async with contextlib.AsyncExitStack() as open_ones:
        answers = []
        for _ in range(12):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.server.port)
            open_ones.callback(writer.close)
            writer.write(f"GET /healthz HTTP/1.1\r\nHost: {server.host}\r\n\r\n".encode())
            answers.append((await reader.readline()).split()[1])
        assert answers[:3] == [b"200"] * 3
        assert answers[-3:] == [b"429"] * 3


async def test_s6_one_that_does_not_read_its_answer_is_dropped(server):
    """A large export whose reader stops: the connection is given up, not kept for ever."""
    from tests.sinks.test_event_log import detection

    server.log.publish([detection(10**9 + i, stream="export") for i in range(30_000)])
    assert await asyncio.to_thread(server.log.flush, 60)
    door = server.server.socket
    with socket.socket() as s, contextlib.ExitStack() as after:
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # newer kernels drop such a peer themselves: not here
            kernels_ms = door.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            after.callback(door.setsockopt, socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, kernels_ms)
            door.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(("127.0.0.1", server.server.port))
        s.sendall(f"GET /v1/detections.jsonl HTTP/1.1\r\nHost: {server.host}\r\n\r\n".encode())
        await asyncio.sleep(0.5)
        before = sum(open_connections.values())
        for _ in range(200):
            await asyncio.sleep(0.1)
            if sum(open_connections.values()) < before:
                break
        assert sum(open_connections.values()) < before
        read = b""
        with contextlib.suppress(ConnectionResetError):
            while part := s.recv(65536):
                read = read[-8:] + part
        assert read and not read.endswith(b"\r\n0\r\n\r\n")  # the last chunk of an answer that is whole
