"""Other servers, watched: real ones that come and go, and things that are none."""

from __future__ import annotations

import csv
import http.server
import io
import json
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from kws_serve.api.schemas.state import ServerList
from kws_serve.commands.status import table
from kws_serve.config import SettingsError, load_settings
from kws_serve.host import watch
from kws_serve.host.watch import MISSED, StatusError, Watch, Watched, get_json
from tests.support.live_server import live_server
from tests.support.service import Service, running
from tests.support.tiny_model import write_level_model

COLUMNS = ["name", "address", "device", "user", "note", "load", "streams", "state", "last_seen"]


def until(condition: Callable[[], object], wait_s: float = 20) -> None:
    deadline_s = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < deadline_s, "it never came to be"
        time.sleep(0.02)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_level_model(tmp_path / "models")


def test_a_server_is_off_after_three_missed_polls_keeps_its_row_and_comes_back(model, free_port):
    server = Watched(f"http://127.0.0.1:{free_port}/", None)
    assert not server.poll()
    assert (server.row["state"], server.row["last_seen"]) == ("OFF", None)
    with live_server([model], port=free_port) as live:
        live.engine.open_stream("a", 16000)
        assert server.poll()
        seen = server.row
        assert (seen["state"], seen["streams"], seen["detail"]) == ("ON", 1, "")
        assert seen["name"] == socket.gethostname()
        assert (seen["address"], seen["url"]) == (f"127.0.0.1:{free_port}", f"http://127.0.0.1:{free_port}/")
    for _ in range(MISSED - 1):
        assert not server.poll()
        assert server.row["state"] == "ON"
        assert "refused" in server.row["detail"]
    assert server.poll()
    assert server.row == {**seen, "state": "OFF", "detail": "Connection refused"}
    with live_server([model], port=free_port):
        assert server.poll()
        assert server.row["state"] == "ON"


def test_one_server_watches_another_live(model, free_port, tmp_path, monkeypatch):
    """On the page's route, in the CSV, in the terminal command."""
    monkeypatch.setattr(watch, "POLL_S", 0.1)
    changes: list[str] = []
    watching = Watch([f"http://127.0.0.1:{free_port}"], [], lambda row: changes.append(row["state"]))
    with live_server([model], watched=watching.rows) as here:
        watching.start()
        assert here.rows()[1]["state"] == "OFF"
        with live_server([model], port=free_port):
            until(lambda: here.rows()[1]["state"] == "ON")
        until(lambda: here.rows()[1]["state"] == "OFF")
        assert changes == ["ON", "OFF"]
        ServerList.model_validate({"items": here.rows()})
        rows = list(csv.DictReader(io.StringIO(httpx.get(f"{here.http}/v1/status.csv").text)))
        assert list(rows[0]) == COLUMNS
        assert [row["state"] for row in rows] == ["ON", "OFF"]
        run = subprocess.run([sys.executable, "-m", "kws_serve", "status", here.http], capture_output=True, text=True)
        assert run.returncode == 1
        assert "OFF (Connection refused)" in run.stdout
    watching.stop()


def test_a_real_service_watches_one_that_is_killed(model, free_port, tmp_path):
    ports = [free_port, free_port_beside(free_port)]
    note = ("--note", "until Friday")
    watched = Service(model.parent, ports[1], tmp_path / "two", *note)
    here = Service(model.parent, ports[0], tmp_path / "one", *note, "--watch", watched.http)

    def rows() -> list[dict]:
        return httpx.get(f"{here.http}/v1/servers").json()["items"]

    with running(here), running(watched):
        until(lambda: rows()[1]["state"] == "ON")
        assert [row["note"] for row in rows()] == ["until Friday"] * 2
        watched.kill()
        until(lambda: rows()[1]["state"] == "OFF")
        assert rows()[1]["last_seen"]


def free_port_beside(port: int) -> int:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        found: int = other.getsockname()[1]
    return found if found != port else free_port_beside(port)


def test_a_token_for_all_or_one_for_each(model):
    with live_server([model], token="right") as server:
        fine = Watched(server.http, "right")
        assert fine.poll()
        for token in ("wrong", None):
            refused = Watched(server.http, token)
            assert not refused.poll()
            assert refused.row["detail"] == "HTTP 401: it wants a token"
    one_for_all = Watch(["http://a:1", "http://b:1"], ["x"], lambda _: None)
    one_each = Watch(["http://a:1", "http://b:1"], ["x", "y"], lambda _: None)
    assert [s._token for s in one_for_all._servers] == ["x", "x"]
    assert [s._token for s in one_each._servers] == ["x", "y"]


class Odd(http.server.BaseHTTPRequestHandler):
    """Answers as no kws-serve does."""

    def do_GET(self) -> None:
        body = {"/a": b"{", "/b": b"[]", "/c": b'{"name":1}'}.get(self.path, b"")
        self.send_response(302 if self.path == "/moved" else 200)
        if self.path == "/moved":
            self.send_header("Location", "/a")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def odd() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Odd)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize(("path", "wanted"), [("/a", "no JSON"), ("/moved", "HTTP 302"), ("/", "no JSON")])
def test_what_is_no_kws_serve_is_said_and_redirects_are_not_followed(odd, path, wanted):
    with pytest.raises(StatusError, match=wanted):
        get_json(odd, path, None)


@pytest.mark.parametrize("answer", [[], {}, {"items": 1}, {"items": []}, {"items": [{"name": 1}]}, None, "x"])
def test_a_status_of_another_kind_is_no_answer(monkeypatch, answer):
    monkeypatch.setattr(watch, "get_json", lambda *_: answer)
    server = Watched("http://x:1", None)
    assert not server.poll()
    assert server.row["detail"] == "found no status, wanted that of kws-serve"


ROW = {"name": "two", "device": "", "user": "u", "note": "", "load": 0.5, "streams": 3, "detail": ""}
ROW |= {"last_seen": "2026-11-20T09:00:00.000Z"}


def answer(row: str = "", *, head: str = "") -> bytes:
    """A server's list with one row, given as JSON; the good one by default."""
    body = f'{{"items":[{row or json.dumps(ROW)}]}}'
    return f"HTTP/1.1 200 OK\r\n{head or f'Content-Length: {len(body)}'}\r\n\r\n{body}".encode()


def with_(**changed: str) -> bytes:
    """The good row with some values, given as JSON."""
    return answer(
        "{" + ",".join(f'"{k}":{v}' for k, v in {**{k: json.dumps(v) for k, v in ROW.items()}, **changed}.items()) + "}"
    )


def parts(data: bytes) -> list[bytes]:
    """Byte by byte."""
    return [data[i : i + 1] for i in range(len(data))]


class Scripted(socketserver.ThreadingTCPServer):
    """Says `parts` to whatever it is asked, a part each `pause_s`."""

    allow_reuse_address = daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ScriptedAnswer)
        self.parts = [answer()]
        self.pause_s = 0.0


class ScriptedAnswer(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.request.recv(65536)
        assert isinstance(self.server, Scripted)
        try:
            for part in self.server.parts:
                self.wfile.write(part)
                time.sleep(self.server.pause_s)
        except OSError:
            pass  # it was hung up on


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    with Scripted() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


FAULTS = {
    "drips its headers": parts(answer()),
    "drips its body": [answer()[:-80], *parts(answer()[-80:])],
    "drips what goes before": parts(b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + answer()),
    "deep": [answer("[" * 30_000)],
    "NaN": [with_(load="NaN")],
    "infinite": [with_(load="Infinity")],
    "infinite for a float": [with_(load="1e999")],
    "no float": [with_(load="1" + "0" * 400)],
    "NaN in a text": [with_(load='"nan"')],
    "a count below 0": [with_(streams="-1")],
    "a count that no page can tell": [with_(streams="1e300")],
    "a text that is no Unicode": [with_(name='"\\ud800"')],
    "a text that is none": [with_(note="[[1]]")],
    "long": [with_(note=json.dumps("x" * (64 << 10)))],
    "long headers": [answer(head="\r\n".join(f"X-{i}: {'x' * 1000}" for i in range(70)))],
    "a broken chunk": [answer(head="Transfer-Encoding: chunked")],
    "cut off": [answer()[:-9]],
    "nothing": [],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_a_miss(scripted, monkeypatch, fault):
    """It was ON, and its answers go bad: OFF after three of them, and its row can be told on."""
    server = Watched(f"http://127.0.0.1:{scripted.server_address[1]}", None)
    assert server.poll()
    assert (server.row["state"], server.row["streams"]) == ("ON", 3)
    scripted.parts = FAULTS[fault]
    if len(scripted.parts) > 1:
        monkeypatch.setattr(watch, "TIMEOUT_S", 0.4)
        scripted.pause_s = 2.0 / 80  # the whole answer takes 2 s and more, of which no byte is late
    changed = [server.poll() for _ in range(MISSED)]
    assert changed == [False] * (MISSED - 1) + [True]
    assert server.row["state"] == "OFF"
    assert server.row["detail"]
    ServerList.model_validate({"items": [server.row]})
    json.dumps(server.row, ensure_ascii=False, allow_nan=False).encode()


def test_what_nobody_has_thought_of_is_a_miss_too():
    server = Watched("http://a..b:1", None)  # no name: Python raises a UnicodeError
    server.row["state"], server._missed = "ON", 0
    assert [server.poll() for _ in range(MISSED)] == [False] * (MISSED - 1) + [True]


def test_one_with_many_streams_is_within_the_bound(model, monkeypatch):
    monkeypatch.setattr(watch, "MOST_BYTES", 4096, raising=False)
    with live_server([model]) as live:
        for i in range(60):
            live.engine.open_stream(f"stream-{i}", 16000)
        server = Watched(live.http, None)
        assert server.poll()
        assert (server.row["state"], server.row["streams"]) == ("ON", 60)


@pytest.mark.parametrize(
    "url", ["x", "ftp://a", "http://", "http://a:x", "http://a/b?x", "http://u:p@a", "http://a?x", "http://a:0"]
)
def test_wrong_urls_are_refused(url):
    with pytest.raises(SettingsError, match=r"--watch: found .* wanted http://HOST:PORT"):
        load_settings({"watch": [url]})
    run = subprocess.run([sys.executable, "-m", "kws_serve", "status", url], capture_output=True, text=True)
    assert run.returncode == 2
    assert "wanted http://HOST:PORT" in run.stderr


def test_as_many_tokens_as_servers_and_none_is_shown():
    with pytest.raises(SettingsError, match="one for all or one each") as e:
        load_settings({"watch": ["http://a"], "watch_token": ["secret-1", "secret-2"]})
    assert "secret" not in str(e.value)
    settings, _ = load_settings({"watch": ["http://a:1/"], "watch_token": ["secret"]})
    assert settings.watch == ("http://a:1",)
    assert "secret" not in repr(settings)


def test_status_of_a_server_that_is_not_there(free_port):
    run = subprocess.run(
        [sys.executable, "-m", "kws_serve", "status", f"http://127.0.0.1:{free_port}"], capture_output=True, text=True
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == f"error: http://127.0.0.1:{free_port}: Connection refused\n"


def test_status_wants_the_token(model):
    with live_server([model], token="right") as server:
        command = [sys.executable, "-m", "kws_serve", "status", server.http]
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == 2
        assert "KWS_TOKEN" in run.stderr
        assert subprocess.run(command, capture_output=True, env={"KWS_TOKEN": "right", "PATH": ""}).returncode == 0


def test_a_hostile_row_cannot_write_on_the_terminal_or_into_a_spreadsheet(model):
    row = dict.fromkeys(COLUMNS, "\x1b[2J=1+1") | {
        "url": "",
        "detail": "\n",
        "state": "OFF",
        "load": None,
        "streams": 0,
    }
    assert all(c.isprintable() for line in table([row]) for c in line)
    hostile = {**row, "name": "=HYPERLINK(1)", "detail": ""}
    with live_server([model], watched=lambda: [hostile]) as server:
        assert "'=HYPERLINK" in httpx.get(f"{server.http}/v1/status.csv").text
