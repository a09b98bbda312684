"""FIELD 6: S3 and S4, tokens and their scopes; S12 the log; S14 privacy; S15 TLS."""

from __future__ import annotations

import json
import logging
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import websockets

from kws_serve.api.tokens import SCOPES, TokenFile, digest
from kws_serve.app import Server, ServerOptions
from kws_serve.client import KwsClient, ServiceError
from kws_serve.host.log_format import JsonLine, OneLine
from kws_serve.messages import KwsError
from tests.api.conftest import TOKEN
from tests.api.test_security import closed_with
from tests.campaigns.proof import record
from tests.support.certificate import self_signed
from tests.support.echo_server import echo_app
from tests.support.live_server import LiveServer, live_server
from tests.support.service import Service, running
from tests.support.streams import words

ROLES = ("nobody", "wrong", "listen", "ingest", "view", "metrics", "admin", "listen-a", "ingest-a", "view-a")


@pytest.fixture(scope="module")
def guarded(level_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LiveServer, dict[str, str]]]:
    """A server with a token of each role; those that end in -a are for stream a only."""
    file = TokenFile(tmp_path_factory.mktemp("tokens") / "tokens.json")
    tokens = {role: file.new(role, [role.split("-")[0]], ["a"] if "-" in role else None) for role in ROLES[2:]}
    with live_server([level_model], tokens=file) as server:
        yield server, tokens | {"wrong": "kws_" + "x" * 32}


def bearer(tokens: dict[str, str], role: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens[role]}"} if role in tokens else {}


def routes(server: LiveServer, headers: dict[str, str]) -> list[tuple[str, str]]:
    """(method, path) of every route, from the OpenAPI document itself."""
    document = httpx.get(f"{server.http}/openapi.json", headers=headers).json()
    return [(method, path) for path, item in document["paths"].items() for method in item]


PUBLIC = {"/healthz", "/readyz"}
NEEDED = {"/metrics": "metrics", "/v1/detections/{id}/why": "view"}


def test_s4_every_route_for_every_role(guarded):
    server, tokens = guarded
    all_routes = routes(server, bearer(tokens, "admin"))
    assert len(all_routes) >= 14
    for method, path in all_routes:
        target = path.replace("{name}", "none").replace("{id}", "999999").replace("{model}", "none")
        target = target.replace("{stream}", "a")
        for role in ROLES:
            status = httpx.request(method, f"{server.http}{target}", headers=bearer(tokens, role), json={}).status_code
            needed = NEEDED.get(path, "listen") if method == "get" else "admin"
            if path in PUBLIC:
                wanted = {200}
            elif role in ("nobody", "wrong"):
                wanted = {401}
            elif role == "admin" or role.split("-")[0] == needed:
                wanted = {200, 404, 422}
            else:
                wanted = {403}
            assert status in wanted, (method, path, role, status)
    record("S4", f"{len(all_routes)} routes and 3 sockets x {len(ROLES)} roles x 2 streams", "as documented, no other")


async def closed(ws) -> int:
    return (await closed_with(ws))[0]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("stream", ["a", "b"])
async def test_s4_the_sockets_for_every_role_and_stream(guarded, role, stream):
    server, tokens = guarded
    kind = role.split("-")[0]
    name = f"{stream}" if "-" in role else f"{role}-{stream}"
    sockets = ((f"/v1/audio?stream={name}", "ingest"), (f"/v1/detections?stream={stream}", "listen"))
    for path, scope in (*sockets, (f"/v1/live?stream={stream}", "view")):
        async with websockets.connect(f"{server.ws}{path}", additional_headers=bearer(tokens, role)) as ws:
            if role == "nobody":
                await ws.send("{}")
            if role in ("nobody", "wrong"):
                if role == "wrong":
                    await ws.send(json.dumps({"type": "auth", "token": tokens[role]}))
                assert await closed(ws) == 4401
            elif kind not in (scope, "admin") or (stream == "b" and "-" in role and "/v1/detections" not in path):
                assert await closed(ws) == 4403
            else:
                assert json.loads(await ws.recv())["type"] in ("ready", "hello", "waiting")


async def test_s4_a_listener_hears_its_streams_only(guarded):
    server, tokens = guarded
    for name in ("b", "a"):  # the other's come first
        async with websockets.connect(
            f"{server.ws}/v1/audio?stream={name}", additional_headers=bearer(tokens, "admin")
        ) as ws:
            await ws.send(words(0.9).tobytes())
            await ws.send('{"type":"end"}')
            assert json.loads([text async for text in ws][-1])["type"] == "done"
    headers = bearer(tokens, "listen-a")
    items = httpx.get(f"{server.http}/v1/detections", headers=headers).json()["items"]
    lines = httpx.get(f"{server.http}/v1/detections.jsonl", headers=headers).text.splitlines()
    rows = httpx.get(f"{server.http}/v1/detections.csv", headers=headers).text.splitlines()
    assert {d["stream"] for d in items} == {"a"}
    assert {json.loads(line)["stream"] for line in lines} == {"a"}
    assert len(rows) == len(items) + 1
    async with websockets.connect(f"{server.ws}/v1/detections?after=0", additional_headers=headers) as ws:
        messages = [json.loads(await ws.recv()) for _ in range(len(items) + 1)]
    assert {m["stream"] for m in messages if m["type"] == "detection"} == {"a"}
    async with websockets.connect(f"{server.ws}/v1/audio?stream=b", additional_headers=bearer(tokens, "ingest")) as ws:
        await ws.recv()
        for path in ("/v1/streams", "/v1/status"):
            assert '"b"' not in httpx.get(f"{server.http}{path}", headers=headers).text


async def test_a_token_works_at_once_and_a_revoked_one_is_cut_off(level_model, tmp_path):
    file = TokenFile(tmp_path / "tokens.json")
    with live_server([level_model], tokens=file) as server:
        assert httpx.get(f"{server.http}/v1/streams").status_code == 200  # none is configured yet
        async with websockets.connect(f"{server.ws}/v1/detections") as early:
            await early.recv()
            token = TokenFile(file.path).new("phone", ["listen"])
            assert httpx.get(f"{server.http}/v1/streams").status_code == 401
            assert await closed(early) == 4401  # it has none, and now needs one
        headers = {"Authorization": f"Bearer {token}"}
        async with websockets.connect(f"{server.ws}/v1/detections", additional_headers=headers) as ws:
            await ws.recv()
            TokenFile(file.path).new("other", ["ingest"])  # so that tokens stay needed
            TokenFile(file.path).revoke("phone")
            assert await closed(ws) == 4401
        assert httpx.get(f"{server.http}/v1/streams", headers=headers).status_code == 401


def test_s3_tokens_are_hashed_at_rest_and_the_file_is_the_users(tmp_path):
    file = TokenFile(tmp_path / "state" / "tokens.json")
    token = file.new("front-door", ["ingest"], ["front-door"])
    text = file.path.read_text()
    assert token not in text
    assert digest(token) in text
    assert file.path.stat().st_mode & 0o777 == 0o600
    for bad in ("front-door", "X", "", "a/b"):
        with pytest.raises(KwsError, match="found"):
            file.new(bad, ["listen"])
    for scopes, streams in ((["all"], None), ([], None), (["admin"], ["a"]), (["listen"], ["A"])):
        with pytest.raises(KwsError, match="wanted"):
            file.new("other", scopes, streams)
    with pytest.raises(KwsError, match="wanted one of: front-door"):
        file.revoke("none")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"tokens":[{}]}', '{"tokens":[{"name":1}]}', "\0" * 100])
def test_a_damaged_token_file_lets_nobody_in(level_model, tmp_path, text):
    path = tmp_path / "tokens.json"
    path.write_text(text)
    with live_server([level_model], tokens=TokenFile(path)) as server:
        assert httpx.get(f"{server.http}/v1/streams").status_code == 401
        assert httpx.get(f"{server.http}/v1/streams", headers={"Authorization": "Bearer x"}).status_code == 401


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "kws_serve", *words], capture_output=True, text=True)


def test_the_token_command(tmp_path):
    folder = ["--data-dir", str(tmp_path / "state")]
    made = run("token", "new", "phone", "--scope", "listen", "--scope", "ingest", "--stream", "hall", *folder)
    assert made.returncode == 0
    assert made.stdout.startswith("kws_")
    listed = run("token", "list", *folder)
    assert listed.stdout.split("\t")[:3] == ["phone", "listen ingest", "hall"]
    assert made.stdout.strip() not in listed.stdout
    again = run("token", "new", "phone", *folder)
    assert (again.returncode, again.stderr.startswith("error: token name: found 'phone' in use")) == (2, True)
    assert run("token", "revoke", "phone", *folder).returncode == 0
    assert run("token", "list", *folder).stdout == ""
    assert run("token", "revoke", "phone", *folder).returncode == 2
    assert run("token").returncode == 2
    assert set(SCOPES) <= set(run("token", "new", "--help").stdout.replace(",", " ").replace("}", " ").replace(
        "{", " ").split())  # fmt: skip


def formatted(formatter: logging.Formatter, message: str, *args: object, exc: bool = False) -> str:
    info = None
    if exc:
        try:
            raise ValueError(message)
        except ValueError:
            info = sys.exc_info()
    return formatter.format(logging.LogRecord("kws_serve.x", logging.WARNING, "f", 1, message, args, info))


HOSTILE = [chr(i) for i in range(32)] + [
    "\x7f", "\x85", "\u2028", "\u2029", "\u202e", "\ufeff", "\x9b31m", "\x1b[2J", "\x1b]0;x\x07", "\r\nERROR forged",
    '\n{"level":"ERROR","message":"forged"}', '"}\n', "\\", '"', "\ud800", "%s%n", "{0.__class__}", "é", "日本",
]  # fmt: skip
BEGINNINGS, ENDINGS = ("\n", "\r", "\x1b[1A", "\0", "\u2028"), ("x", "{", '"', "INFO ", "\t", "'", "/", "|", " ", "\b")
HOSTILE += [f"{a}{b}" for a in BEGINNINGS for b in ENDINGS]


def test_s12_a_hostile_name_cannot_forge_a_line():
    assert len(HOSTILE) >= 100
    for name in HOSTILE:
        for exc in (False, True):
            line = formatted(JsonLine(), "stream %s failed", name, exc=False) if not exc else formatted(
                JsonLine(), f"stream {name} failed".replace("%", ""), exc=True)  # fmt: skip
            assert line.isascii()
            assert len(line.splitlines()) == 1
            assert json.loads(line)["level"] == "WARNING"
        text = formatted(OneLine(), "stream %s failed", name)
        assert len(text.splitlines()) == 1
        assert text.isprintable()
    record("S12", f"{len(HOSTILE)} hostile names", "each one JSON object on one line of ASCII")


@pytest.mark.parametrize("text", [
    "Authorization: Bearer {t}", "authorization: bearer {t}", '{{"type":"auth","token":"{t}"}}', "?token={t}&x=1",
    "--token {t}", "{t}", "token: {t}", "KWS_TOKEN={t}",
])  # fmt: skip
def test_s12_credentials_are_masked(text):
    ours, own = "kws_" + "Ab3-_" * 7, "a secret of one's own"
    for formatter in (JsonLine((own,)), OneLine((own,))):
        for token in (ours, own):
            assert token not in formatted(formatter, text.format(t=token))


async def test_s14_audio_is_not_stored(level_model, tmp_path, free_port):
    """A known waveform, found in no file of the data folder, as samples of any usual kind, after 60 s of it."""
    rng = np.random.default_rng(0)
    audio = words(8.0).astype(np.int32) + rng.integers(-300, 300, 8 * 16000)
    pcm = np.clip(audio, -32768, 32767).astype(np.int16)
    with running(Service(level_model.parent, free_port, tmp_path / "log")) as service:
        async with KwsClient(service.http) as client, client.audio("nursery") as sender:
            await sender.send(pcm)
            await sender.end()
            found = [m async for m in sender]
        assert sum(m["type"] == "detection" for m in found) > 5
        assert service.terminate() == 0
    files = [p for p in (tmp_path).rglob("*") if p.is_file()]
    assert any(p.suffix == ".db" for p in files)
    needles = []
    for at in range(0, len(pcm) - 64, 4001):
        piece = pcm[at : at + 16]
        needles += [piece.tobytes(), piece.astype("<f4").tobytes(), (piece / np.float32(32768)).astype("<f4").tobytes()]
    for path in files:
        data = path.read_bytes()
        assert not any(needle in data for needle in needles), path
    size = sum(p.stat().st_size for p in files if p.suffix != ".reserve")
    record("S14", f"{len(needles)} pieces of a known waveform", f"in none of {len(files)} files ({size} bytes)")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_s15_tls_from_1_2_up(level_model, tmp_path, free_port, certificate):
    cert, key = certificate
    flags = ["--tls-cert", str(cert), "--tls-key", str(key)]
    with running(Service(level_model.parent, free_port, tmp_path / "log", *flags)):
        trusting = ssl.create_default_context(cafile=cert)
        url = f"https://localhost:{free_port}"
        assert httpx.get(f"{url}/healthz", verify=trusting).status_code == 200
        async with KwsClient(url, ssl=trusting) as client, client.audio("secure") as sender:
            await sender.send(words(0.5))
            await sender.end()
            assert [m async for m in sender][-1]["type"] == "done"
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            old = ssl.create_default_context(cafile=cert)
            old.minimum_version = ssl.TLSVersion.TLSv1
            old.maximum_version = version
            old.set_ciphers("ALL:@SECLEVEL=0")
            with pytest.raises((httpx.ConnectError, ssl.SSLError)):
                httpx.get(f"{url}/healthz", verify=old)
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://localhost:{free_port}/healthz", timeout=5)
        origin = {"Origin": f"http://localhost:{free_port}"}  # the page is https
        assert httpx.get(f"{url}/v1/streams", verify=trusting, headers=origin).status_code == 403
    record("S15", "TLS 1.0, 1.1, 1.2 and newer", "the first two refused")


def test_s15_the_least_version_is_ours_not_openssls(certificate):
    """Some builds of OpenSSL refuse older ones by themselves."""
    server = Server(echo_app(), ServerOptions(port=0, tls_cert=certificate[0], tls_key=certificate[1]))
    assert server._uvicorn.config.ssl.minimum_version is ssl.TLSVersion.TLSv1_2
    server.socket.close()


@pytest.mark.parametrize("flags", [["--tls-cert", "x"], ["--tls-key", "x"], ["--tls-cert", "/nope", "--tls-key", "/n"],
                                   ["--tls-cert", __file__, "--tls-key", __file__]])  # fmt: skip
def test_bad_tls_files_are_told_in_one_line(flags, tmp_path):
    found = run("--source", "none", "--port", "0", "--data-dir", str(tmp_path), *flags)
    assert found.returncode == 2
    assert found.stderr.startswith("error: --tls")
    assert len(found.stderr.splitlines()) == 1


async def test_the_client_tells_a_scope_that_is_too_small(guarded):
    server, tokens = guarded
    async with KwsClient(server.http, token=tokens["listen"]) as client:
        with pytest.raises(ServiceError, match="wanted ingest"):
            async with client.audio("x"):
                pass


def test_the_first_token_of_all_still_opens_everything(locked):
    for method, path in routes(locked, {"Authorization": f"Bearer {TOKEN}"}):
        target = path.replace("{name}", "none").replace("{id}", "1")
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert httpx.request(method, f"{locked.http}{target}", headers=headers, json={}).status_code not in (401, 403)
