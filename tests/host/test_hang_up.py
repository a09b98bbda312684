"""SIGHUP: the end where a terminal was there, else the settings are read again."""

from __future__ import annotations

import os
import pty
import queue
import signal
import socket
import ssl
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.certificate import self_signed
from tests.support.service import Service, running
from tests.support.tiny_model import write_level_model

TOKENS = ["a-token-of-sixteen-1", "a-token-of-sixteen-2"]


@pytest.fixture
def level_model(tmp_path: Path) -> Path:
    return write_level_model(tmp_path / "models")


class Told(Service):
    """A service whose printed lines can be waited for."""

    lines: queue.Queue[str]

    def start(self, wait: bool = True, **_: object) -> float:
        took_s = super().start(wait, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        return took_s

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.put(line.decode())

    def until(self, *wanted: str) -> str:
        """What it prints and logs next, until each of `wanted` has come; the two come in no order."""
        said = ""
        while not all(text in said for text in wanted):
            said += self.lines.get(timeout=30)
        return said

    def reload(self, *logged: str) -> str:
        self.process.send_signal(signal.SIGHUP)
        return self.until("  reload  ", *logged)


@pytest.fixture
def reloaded(tmp_path: Path, level_model: Path, free_port: int) -> Iterator[Told]:
    """A service with a config file, TLS and a token, and no terminal."""
    self_signed(tmp_path)
    (tmp_path / "kws.toml").write_text(config(tmp_path))
    service = Told(level_model.parent, free_port, tmp_path / "log", "--config", f"{tmp_path / 'kws.toml'}")
    service.http = f"https://127.0.0.1:{free_port}"
    with running(service):
        service.until("Ctrl-C")
        yield service


def config(folder: Path, token: str = TOKENS[0], threshold: str = "", more: str = "") -> str:
    """A config file's text."""
    files = f'tls_cert = "{folder}/cert.pem"\ntls_key = "{folder}/key.pem"\n'
    return f'token = "{token}"\n{files}threshold = [{threshold}]\n{more}\n'


def ask(service: Service, token: str, path: str = "/v1/models", **more: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.request(more.pop("method", "GET"), service.http + path, headers=headers, verify=False, **more)


def threshold_of(service: Service, token: str) -> float:
    return ask(service, token).json()["items"][0]["detection"]["loud"]["threshold"]


def shown_certificate(service: Service) -> str:
    return ssl.get_server_certificate(("127.0.0.1", service.port))


def test_tokens_certificate_and_thresholds_are_read_again(reloaded, tmp_path):
    own, certificate = threshold_of(reloaded, TOKENS[0]), shown_certificate(reloaded)
    (tmp_path / "kws.toml").write_text(config(tmp_path, TOKENS[1], '"loud=0.75"'))
    self_signed(tmp_path)
    said = reloaded.reload()
    assert "tokens, 1 changed thresholds, certificate" in said
    assert ask(reloaded, TOKENS[0]).status_code == 401
    assert threshold_of(reloaded, TOKENS[1]) == 0.75
    assert shown_certificate(reloaded) not in (certificate, "")
    (tmp_path / "kws.toml").write_text(config(tmp_path, TOKENS[1]))
    assert "1 changed" in reloaded.reload()
    assert threshold_of(reloaded, TOKENS[1]) == own
    assert reloaded.terminate() == 0


def test_what_was_changed_over_http_stays_where_the_settings_say_the_same(reloaded):
    changed = ask(
        reloaded, TOKENS[0], "/v1/models/level/detection", method="PATCH", json={"loud": {"threshold": 0.625}}
    )
    assert changed.status_code == 200
    assert "0 changed" in reloaded.reload()
    assert threshold_of(reloaded, TOKENS[0]) == 0.625


def test_thresholds_of_one_stream_are_read_again_and_lie_over_those_for_all(reloaded, tmp_path):
    def thresholds() -> tuple[float, ...]:
        paths = [f"/v1/streams/{name}/models/level/detection" for name in ("desk", "door")]
        return tuple(ask(reloaded, TOKENS[0], path).json()["loud"]["threshold"] for path in paths)

    assert thresholds() == (0.5, 0.5)
    (tmp_path / "kws.toml").write_text(config(tmp_path, threshold='"desk:loud=0.75", "level/loud=0.25"'))
    assert "2 changed" in reloaded.reload()
    assert thresholds() == (0.75, 0.25)
    path = "/v1/streams/desk/models/level/detection"
    ask(reloaded, TOKENS[0], path, method="PATCH", json={"loud": {"threshold": 0.125}}).raise_for_status()
    assert "0 changed" in reloaded.reload()
    assert thresholds() == (0.125, 0.25)  # the last one wins: PATCH now, and what the settings say at the next start
    reloaded.terminate()
    reloaded.start()
    reloaded.until("Ctrl-C")
    assert thresholds() == (0.75, 0.25)
    (tmp_path / "kws.toml").write_text(config(tmp_path))
    assert "2 changed" in reloaded.reload()
    assert thresholds() == (0.5, 0.5)


def test_what_needs_a_restart_is_listed(reloaded, tmp_path):
    more = 'port = 1\nkeep_days = 5\nwatch_token = ["hush-hush-hush"]\nwatch = ["http://127.0.0.1:1"]'
    (tmp_path / "kws.toml").write_text(config(tmp_path, more=more))
    said = reloaded.reload("need a restart: keep_days, watch, watch_token")
    assert "a restart is needed for keep_days, watch, watch_token" in said  # --port wins over the file's
    assert "hush" not in said
    (tmp_path / "kws.toml").write_text(f'token = "{TOKENS[0]}"')
    assert "; a restart is needed for tls_cert, tls_key\n" in reloaded.reload()


@pytest.mark.parametrize("fault", ["colour = 1", "port =", 'threshold_ = ["loud=0.1"]', "cert", "key", "label"])
def test_where_something_is_wrong_nothing_changes(reloaded, tmp_path, fault):
    own, certificate = threshold_of(reloaded, TOKENS[0]), shown_certificate(reloaded)
    text = config(tmp_path, TOKENS[1], '"loud=0.75", "nope=0.5"' if fault == "label" else '"loud=0.75"')
    (tmp_path / "kws.toml").write_text(text + (fault if "=" in fault else ""))
    if fault in ("cert", "key"):
        (tmp_path / f"{fault}.pem").write_text("garbage")
    assert "failed: " in reloaded.reload("nothing was changed")
    assert threshold_of(reloaded, TOKENS[0]) == own
    assert shown_certificate(reloaded) == certificate
    assert ask(reloaded, TOKENS[1]).status_code == 401


def test_an_open_service_closes_with_a_token_and_never_opens_again(tmp_path, level_model, free_port):
    (tmp_path / "kws.toml").write_text("")
    service = Told(level_model.parent, free_port, tmp_path / "log", "--config", f"{tmp_path / 'kws.toml'}")
    with running(service):
        service.until("Ctrl-C")
        assert httpx.get(f"{service.http}/v1/status").status_code == 200
        for text in (f'token = "{TOKENS[0]}"', ""):
            (tmp_path / "kws.toml").write_text(text)
            service.reload()
            assert httpx.get(f"{service.http}/v1/status").status_code == 401


def test_systemd_is_told_of_a_reload(tmp_path, level_model, free_port):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"{tmp_path / 'notify'}")
        sock.settimeout(20)
        flags = {"NOTIFY_SOCKET": f"{tmp_path / 'notify'}"}
        with running(Told(level_model.parent, free_port, tmp_path / "log", **flags)) as service:
            while sock.recv(100) != b"READY=1":
                pass
            service.reload()
            told = [""]
            while told[-1] != "READY=1":
                told.append(sock.recv(100).decode())
    assert told[-2].startswith("RELOADING=1\nMONOTONIC_USEC=")


# A process that takes the pty it is given as its controlling terminal, and then becomes the service.
WITH_TERMINAL = """
import fcntl, os, runpy, signal, sys, termios
os.setsid()
fcntl.ioctl(int(sys.argv[1]), termios.TIOCSCTTY, 0)
signal.signal(signal.SIGHUP, getattr(signal, sys.argv[2]))
sys.argv = ["kws-serve", *sys.argv[3:]]
runpy.run_module("kws_serve", run_name="__main__")
"""


@pytest.mark.parametrize("nohup", [False, True])
def test_with_a_terminal_it_winds_down_unless_nohup_says_otherwise(tmp_path, level_model, free_port, nohup):
    ours, theirs = pty.openpty()
    attributes = termios.tcgetattr(theirs)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(theirs, termios.TCSANOW, attributes)
    flags = ["--source", "none", "--model-dir", f"{level_model.parent}", "--model", "level", "--port", f"{free_port}"]
    service = subprocess.Popen(
        [sys.executable, "-c", WITH_TERMINAL, f"{theirs}", "SIG_IGN" if nohup else "SIG_DFL", *flags],
        stdout=subprocess.PIPE, pass_fds=[theirs], text=True,
    )  # fmt: skip
    try:
        for line in service.stdout:
            if "Ctrl-C" in line:
                break
        os.close(theirs)
        os.close(ours)  # the terminal is gone: the kernel sends SIGHUP
        if nohup:
            assert httpx.get(f"http://127.0.0.1:{free_port}/healthz").status_code == 200
            service.send_signal(signal.SIGHUP)
            assert httpx.get(f"http://127.0.0.1:{free_port}/healthz").status_code == 200
            service.send_signal(signal.SIGTERM)
        assert service.wait(20) == 0
    finally:
        service.kill()
        service.communicate()
