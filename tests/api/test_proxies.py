"""Behind real proxies under the recipes of docs/proxies.md, and what each sends, by plain sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import websockets
from websockets.exceptions import InvalidStatus

from kws_serve.api.hosts import Hosts, origin_of
from kws_serve.api.security import Access, check_exposure
from kws_serve.commands.status import status
from kws_serve.config import load_settings
from kws_serve.host.watch import Watched
from kws_serve.messages import KwsError
from tests.api.conftest import TOKEN
from tests.support.certificate import self_signed
from tests.support.live_server import LiveServer, live_server
from tests.support.reverse_proxy import NAME, PROXIES, SUB_PATH, reverse_proxy
from tests.support.streams import expected, words

BEARER = {"Authorization": f"Bearer {TOKEN}"}


@dataclass
class Seen:
    """A service as clients see it through a proxy."""

    server: LiveServer
    port: int
    path: str
    tls: tuple[Path, Path] | None

    @property
    def context(self) -> ssl.SSLContext | None:
        return ssl.create_default_context(cafile=self.tls[0]) if self.tls else None

    @property
    def origin(self) -> str:
        return f"http{'s' if self.tls else ''}://{NAME}:{self.port}"

    def ask(self, method: str, path: str, origin: str | None = None, **more: object) -> httpx.Response:
        """A request by name, with TLS for that name, to the proxy's address."""
        scheme = "https" if self.tls else "http"
        headers = {"Host": f"{NAME}:{self.port}", **BEARER, "Origin": self.origin if origin is None else origin}
        url = f"{scheme}://127.0.0.1:{self.port}{self.path.rstrip('/')}{path}"
        with httpx.Client(verify=self.context or False) as client:
            return client.request(method, url, headers=headers, extensions={"sni_hostname": NAME}, **more)

    def socket(self, path: str, origin: str | None = None) -> websockets.connect:
        url = f"ws{'s' if self.tls else ''}://{NAME}:{self.port}{self.path.rstrip('/')}{path}"
        return websockets.connect(
            url,
            host="127.0.0.1",
            port=self.port,
            ssl=self.context,
            origin=origin or self.origin,
            additional_headers=BEARER,
            proxy=None,
        )


@contextlib.contextmanager
def seen_through(kind: str, level_model: Path, folder: Path, port: int, path: str, tls: bool) -> Iterator[Seen]:
    """A service behind a real proxy."""
    certificate = self_signed(folder, f"DNS:{NAME}") if tls else None
    public = f"http{'s' if tls else ''}://{NAME}:{port}{path}"
    with (
        live_server([level_model], token=TOKEN, public_urls=(public,)) as server,
        reverse_proxy(kind, folder, port, server.server.port, path, certificate),
    ):
        yield Seen(server, port, path, certificate)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("path", ["/", SUB_PATH])
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.optional] if kind != "nginx" else []) for kind in PROXIES]
)
async def test_page_changes_and_sockets_through_the_recipe(kind, path, tls, level_model, tmp_path, free_port):
    audio = words(1.5)
    with seen_through(kind, level_model, tmp_path, free_port, path, tls) as seen:
        assert "main.js" in seen.ask("GET", "/").text
        assert seen.ask("GET", "/main.js").status_code == 200
        assert seen.ask("HEAD", "/main.js").status_code == 200
        changed = seen.ask("PATCH", "/v1/models/level/detection", json={"loud": {"threshold": 0.5}})
        assert changed.status_code == 200, changed.text
        assert seen.ask("GET", "/v1/detections.csv").text.startswith("id,")
        moved = seen.ask("GET", "") if path != "/" else None  # /ears
        assert moved is None or (moved.status_code, moved.headers["location"][-6:]) in (
            (301, "/ears/"),
            (302, "/ears/"),
        )
        async with seen.socket("/v1/detections") as listening:
            assert json.loads(await listening.recv())["type"] == "hello"
            async with seen.socket("/v1/audio?stream=through") as ws:
                await ws.send(audio.tobytes()[:32000])
                await ws.send(audio.tobytes()[32000:])
                await ws.send('{"type":"end"}')
                heard = [json.loads(text) async for text in ws]
            assert heard[-1] == {"type": "done", "samples": len(audio)}
            told = [json.loads(await listening.recv()) for _ in expected(level_model, audio)]
        assert [(d["label"], d["start_sample"]) for d in told] == expected(level_model, audio)


def test_status_and_watch_ask_through_a_path(level_model, tmp_path, free_port, monkeypatch, capsys):
    url = f"http://127.0.0.1:{free_port}{SUB_PATH}"
    monkeypatch.setenv("KWS_TOKEN", TOKEN)
    with seen_through("nginx", level_model, tmp_path, free_port, SUB_PATH, False):
        for one in (url, url.rstrip("/")):
            assert status([one]) == 0
            assert capsys.readouterr().out.splitlines()[1].split()[0] == socket.gethostname()
            watched = Watched(load_settings({"watch": [one]})[0].watch[0], TOKEN)
            assert watched.poll()
            assert (watched.row["state"], watched.row["url"]) == ("ON", url)
        with pytest.raises(KwsError, match="HTTP 404"):
            status([f"{url}elsewhere"])


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_foreign_page_stays_out_behind_a_proxy(tls, level_model, tmp_path, free_port, caplog):
    with seen_through("nginx", level_model, tmp_path, free_port, "/", tls) as seen:
        for origin in ("https://evil.example", f"{seen.origin}0", "null"):
            assert seen.ask("PATCH", "/v1/models/level/detection", origin, json={}).status_code == 403
            with pytest.raises(InvalidStatus) as e:
                await seen.socket("/v1/detections", origin)
            assert e.value.response.status_code == 403
            assert json.loads(e.value.response.body)["message"].startswith(f"Origin: found '{origin}', wanted")


# What a proxy of each kind, as it comes or as its usual recipe has it, makes of https://ears.example.org.
FORWARDED = {
    "nginx, as it comes": "Host: 127.0.0.1:{port}\r\n",
    "nginx, Host $host": f"Host: {NAME}\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 192.0.2.7\r\n",
    "nginx, Host $http_host": f"Host: {NAME}:443\r\nX-Real-IP: 192.0.2.7\r\n",
    "Caddy": f"Host: {NAME}\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Host: {NAME}\r\nX-Forwarded-Proto: https\r\n",
    "Traefik": f"Host: {NAME}\r\nX-Forwarded-Host: {NAME}\r\nX-Forwarded-Port: 443\r\nX-Forwarded-Proto: https\r\n"
    "X-Forwarded-Server: traefik\r\nX-Real-Ip: 192.0.2.7\r\n",
    "HAProxy": f"host: {NAME}\r\nx-forwarded-for: 192.0.2.7\r\n",
    "a public URL's own port": f"Host: {NAME.upper()}:443\r\n",
}  # fmt: skip
UPGRADE = (
    "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


def answer_of(port: int, request: str) -> tuple[int, str]:
    """Status, and what came with it, of a request written as it stands."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
        s.sendall(request.encode())
        answer = http.client.HTTPResponse(s, method=request.partition(" ")[0])
        answer.begin()
        return answer.status, "" if answer.status == 101 else answer.read().decode()


@pytest.fixture(scope="module")
def public(level_model: Path) -> Iterator[LiveServer]:
    with live_server([level_model], token=TOKEN, public_urls=(f"https://{NAME}/",), allow_hosts=("ears.lan",)) as it:
        yield it


@pytest.mark.parametrize("sent", FORWARDED)
@pytest.mark.parametrize("way", ["GET /main.js", "PATCH /v1/models/level/detection", "GET /v1/detections"])
def test_what_each_proxy_sends_is_let_in(public, sent, way):
    head = (
        FORWARDED[sent].format(port=public.server.port) + f"Origin: https://{NAME}\r\nAuthorization: Bearer {TOKEN}\r\n"
    )
    extra = UPGRADE if way.endswith("detections") else "Content-Length: 2\r\n" if way.startswith("PATCH") else ""
    body = "{}" if way.startswith("PATCH") else ""
    status, text = answer_of(public.server.port, f"{way} HTTP/1.1\r\n{head}{extra}\r\n{body}")
    assert status == (101 if extra is UPGRADE else 200), text


@pytest.mark.parametrize("host", ["ears.lan", "ears.lan:8000", "EARS.LAN", NAME])
def test_a_name_that_it_goes_by_is_let_in(public, host):
    request = f"GET /v1/status HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    assert answer_of(public.server.port, request)[0] == 200
    assert answer_of(public.server.port, request.replace(host, f"x{host}"))[0] == 403
    assert answer_of(public.server.port, request.replace(host, f"{host}.evil.example"))[0] == 403


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
@pytest.mark.parametrize("line", ["HTTP/1.0\r\n", "HTTP/1.1\r\nHost: 10.1.2.3:8000\r\n", "HTTP/1.1\r\nHost: kws\r\n"])
def test_a_health_check_needs_no_host_of_ours(public, path, line):
    assert answer_of(public.server.port, f"GET {path} {line}\r\n")[0] == 200
    assert answer_of(public.server.port, f"GET /v1/status {line}\r\n")[0] == 403


@pytest.mark.parametrize("upgrade", ["", UPGRADE], ids=["http", "websocket"])
@pytest.mark.parametrize("head, remedy", [
    ("Host: ears.tailnet\r\n", "--allow-host ears.tailnet"),
    ("Host: ears.tailnet:80\r\n", "--allow-host ears.tailnet,"),
    ("Host: ears.tailnet\r\n", "--public-url"),
    (f"Host: {NAME}\r\nOrigin: https://ears.example.com:8443\r\n", "--public-url https://ears.example.com:8443"),
])  # fmt: skip
def test_the_answer_and_the_log_name_the_remedy(public, head, remedy, upgrade, caplog):
    request = f"GET /v1/detections HTTP/1.1\r\n{head}{upgrade}Authorization: Bearer {TOKEN}\r\n\r\n"
    status, text = answer_of(public.server.port, request)
    assert status == 403
    assert remedy in text
    assert any(remedy in r.getMessage() and "403" in r.getMessage() for r in caplog.records)


@pytest.mark.parametrize("host", ["evil.example;rm -rf /", "a b", "x" * 300, "-", "é"])
def test_no_remedy_is_made_of_what_is_no_name(public, host):
    status, text = answer_of(public.server.port, f"GET / HTTP/1.1\r\nHost: {host}\r\nOrigin: {host}\r\n\r\n")
    assert status in (400, 403)
    assert "--allow-host" not in text and "--public-url" not in text


def test_who_is_reached_through_a_proxy_needs_a_token():
    for hosts in (Hosts(public_urls=("https://ears.example.org/",)), Hosts(allow_hosts=("ears.lan",))):
        with pytest.raises(KwsError, match="public-url, allow-host: found 'ears"):
            check_exposure(hosts, None, False)
        with pytest.raises(KwsError, match="16"):
            check_exposure(hosts, "short", False)
        check_exposure(hosts, None, True)
        assert not Access(hosts).open
    check_exposure(Hosts(public_urls=("http://localhost:8080/x/",), allow_hosts=("127.0.0.1",)), None, False)


@pytest.mark.parametrize("url, origin", [
    ("https://Ears.Example.org/", "https://ears.example.org"), ("https://e.org:443/x/", "https://e.org"),
    ("http://e.org:80/", "http://e.org"), ("http://e.org:443/", "http://e.org:443"),
    ("https://[2001:DB8::1]:8443/", "https://[2001:db8::1]:8443"),
])  # fmt: skip
def test_an_origin_is_written_as_browsers_do(url, origin):
    assert origin_of(url) == origin
    assert Hosts(public_urls=(url,)).origin_allowed(origin, "127.0.0.1:8000")
    assert not Hosts(public_urls=(url,)).origin_allowed(f"{origin}0", "127.0.0.1:8000")


@pytest.mark.parametrize("behind", [False, True])
def test_what_clients_say_of_their_address_counts_behind_a_proxy_only(level_model, behind, monkeypatch):
    """Else anybody on this machine guesses tokens under as many addresses as there are."""
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    urls = (f"https://{NAME}/",) if behind else ()
    with live_server([level_model], token=TOKEN, public_urls=urls) as server, httpx.Client() as client:
        statuses = set()
        for i in range(130):
            headers = {"Authorization": f"Bearer wrong-{i}", "X-Forwarded-For": f"198.51.100.{i}"}
            statuses.add(client.get(f"{server.http}/v1/status", headers=headers).status_code)
    assert statuses == ({401} if behind else {401, 429})
