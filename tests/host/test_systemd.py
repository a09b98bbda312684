"""The unit, and the watchdog that only real progress feeds."""

from __future__ import annotations

import configparser
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from kws_serve.app import ServerOptions
from kws_serve.backends.contract import LoadedModel
from kws_serve.commands.running import Running
from kws_serve.engine.engine import Engine
from kws_serve.host.systemd import Notifier
from kws_serve.manifest.folder import load_model
from kws_serve.manifest.spec import FileSpec
from kws_serve.sinks.event_log import EventLog
from tests.support.service import Service, running
from tests.support.tiny_model import write_level_model

UNIT = Path(__file__).resolve().parents[2] / "service" / "kws-serve.service"


WANTED = {
    "LimitCORE": ["0"],
    "MemoryMax": ["1536M"],
    "DevicePolicy": ["closed"],
    "DeviceAllow": ["char-alsa rw", "char-ttyACM rw", "char-ttyUSB rw"],
    "ProtectProc": ["invisible"],
    "SystemCallFilter": ["@system-service", "~@privileged"],
    "NoNewPrivileges": ["yes"],
    "ProtectSystem": ["strict"],
    "CapabilityBoundingSet": [""],
}
"""What keeps a service that was taken over from doing more than it should."""


def test_s15_the_unit_allows_what_the_service_needs_and_no_more():
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    assert {key: found.get(key) for key in WANTED} == WANTED
    if tool := shutil.which("systemd-analyze"):
        said = subprocess.run(
            [tool, "security", "--offline=true", "--threshold=20", UNIT], capture_output=True, text=True
        )
        assert said.returncode == 0, said.stdout[-2000:]


def test_s15_the_container_is_limited():
    """No core dumps, bounded memory and processes; the image it is made of is the builder's to name."""
    compose = (UNIT.parents[1] / "docker" / "compose.yaml").read_text()
    for wanted in (
        "core: 0",
        "mem_limit: 1536m",
        "memswap_limit: 1536m",
        "pids_limit: 512",
        "read_only: true",
        "- ALL",
    ):
        assert f" {wanted}" in compose
    dockerfile = (UNIT.parents[1] / "docker" / "Dockerfile").read_text()
    assert "\nARG BASE=debian:12-slim\n" in dockerfile
    assert [line.split()[1] for line in dockerfile.splitlines() if line.startswith("FROM ")] == ["${BASE}"] * 2


@pytest.fixture
def level_model(tmp_path: Path) -> Path:
    return write_level_model(tmp_path / "models")


@pytest.fixture
def notify_socket(tmp_path):
    path = tmp_path / "notify"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(path))
    sock.settimeout(20)
    yield path, sock
    sock.close()


def test_the_service_tells_ready_progress_and_stopping(tmp_path, level_model, free_port, notify_socket):
    path, sock = notify_socket
    with running(Service(level_model.parent, free_port, tmp_path / "log", NOTIFY_SOCKET=str(path))) as service:
        told = [sock.recv(100).decode() for _ in range(3)]
        assert told == ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]
        assert service.terminate() == 0
        rest = []
        while not rest or rest[-1] != "STOPPING=1":
            rest.append(sock.recv(100).decode())


def test_a_systemd_that_does_not_read_delays_nobody_and_is_told_later(monkeypatch, notify_socket):
    path, sock = notify_socket
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    notifier = Notifier()

    def tell_all() -> None:
        notifier.tell("READY=1")
        for _ in range(1000):  # more than net.unix.max_dgram_qlen
            notifier.tell("WATCHDOG=1")
        notifier.tell("STOPPING=1")

    telling = threading.Thread(target=tell_all, daemon=True)
    telling.start()
    telling.join(20)
    assert not telling.is_alive()
    told = [sock.recv(100)]
    while told[-1] != b"STOPPING=1":
        told.append(sock.recv(100))
        notifier.tell("WATCHDOG=1")
    assert told[0] == b"READY=1"


class Stuck:
    """A backend that hangs, like a driver that never answers."""

    name = "stuck"
    file = FileSpec(Path("none"), "0" * 64, "NTF", "softmax")

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.hang = False

    def infer(self, patches: np.ndarray) -> np.ndarray:
        if self.hang:
            self.go_on.wait(60)
        return np.zeros((len(patches), 2), np.float32)

    def close(self) -> None:
        pass


def test_a_hung_engine_starves_the_watchdog(tmp_path, level_model):
    backend = Stuck()
    engine = Engine([LoadedModel(load_model(level_model), backend, "stuck")])
    log = EventLog(tmp_path / "events.db")
    service = Running(engine, log, [], ServerOptions(port=0), loop=False, notice="")
    service.runner.start()
    serving = threading.Thread(target=service.server.run, daemon=True)
    serving.start()
    while not service.server.started:
        time.sleep(0.01)
    try:
        assert service.progress
        backend.hang = True
        engine.open_stream("a", 16000).push(np.zeros(16000, np.int16), time.monotonic())
        deadline = time.monotonic() + 20
        while service.progress and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not service.progress
    finally:
        backend.go_on.set()
        service.server.stop()
        serving.join(10)
        service.runner.stop()
        log.close()


def test_the_unit_is_hardened_and_watched(tmp_path):
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read(UNIT)
    service = unit["Service"]
    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"]) >= 10
    assert service["DynamicUser"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["NoNewPrivileges"] == "yes"
    assert service["StateDirectory"] == "kws-serve"
    if shutil.which("systemd-analyze"):
        text = UNIT.read_text().replace("/opt/kws-serve/.venv/bin/kws-serve", "/bin/true")
        copy = tmp_path / "kws-serve.service"
        copy.write_text(text)
        found = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True)
        assert "Unknown" not in found.stderr


def test_a_stopped_process_does_not_feed_the_watchdog(tmp_path, level_model, free_port, notify_socket):
    path, sock = notify_socket
    with running(Service(level_model.parent, free_port, tmp_path / "log", NOTIFY_SOCKET=str(path))) as service:
        assert sock.recv(100) == b"READY=1"
        os.kill(service.process.pid, signal.SIGSTOP)
        sock.settimeout(2.5)
        with pytest.raises(TimeoutError):
            while True:
                sock.recv(100)
        os.kill(service.process.pid, signal.SIGCONT)
        assert sock.recv(100) == b"WATCHDOG=1"
