"""A terminal, a pager or a pipe that takes no output delays nobody: not the clients, not SIGTERM."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL

import numpy as np
import pytest
import soundfile
import websockets

from kws_serve.commands.terminal import Terminal
from kws_serve.engine.engine import Engine
from kws_serve.host.printer import Printer
from tests.campaigns.proof import FULL
from tests.sinks.test_event_log import detection
from tests.support.blocked_output import BlockedOutput
from tests.support.service import Service
from tests.support.tiny_model import write_level_model

CASES = [("ctrl-s", "both"), ("pty", "both"), ("pipe", "stdout"), ("pipe", "stderr")]
CASE = pytest.mark.parametrize(("kind", "which"), CASES, ids=[f"{kind} on {which}" for kind, which in CASES])
LINES_ENOUGH = pytest.mark.parametrize(("kind", "which"), CASES[:3] if FULL else [CASES[0], CASES[2]], ids=str)
"""Each takes half a minute to fill what a printer keeps."""

SECONDS, LOUD_S = 2.0, 0.4
"""What a client sends at once, and how often it is loud."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_level_model(tmp_path / "models")


def audio() -> np.ndarray:
    """SECONDS of int16 at 16 kHz: loud for 0.1 s every LOUD_S."""
    rows = np.zeros((int(SECONDS / LOUD_S), int(16000 * LOUD_S)), np.int16)
    rows[:, 3200:4800] = 20000
    return rows.reshape(-1)


@contextmanager
def blocked_service(model: Path, port: int, kind: str, which: str) -> Iterator[tuple[Service, BlockedOutput]]:
    """A service with a source of its own that plays in a loop; what it prints on is full from the start."""
    out = BlockedOutput(kind)
    words = model.parent.parent / "words.wav"
    soundfile.write(words, audio(), 16000)
    flags = ("--source", f"door={words}", "--loop")
    service = Service(model.parent, port, model.parent.parent / "log", *flags)
    out.block()
    try:
        service.start(
            stdout=DEVNULL if which == "stderr" else out.theirs, stderr=None if which == "stdout" else out.theirs
        )
        yield service, out
    finally:
        if service.process is not None and service.process.poll() is None:
            service.kill()
        out.close()


async def client(service: Service, name: str) -> int:
    """Send `audio`; how many detections came back."""
    async with websockets.connect(f"{service.ws}/v1/audio?stream={name}", max_queue=None) as ws:
        for part in np.split(audio(), 4):
            await ws.send(part.tobytes())
        await ws.send('{"type":"end"}')
        messages = [json.loads(text) async for text in ws]
    assert messages[-1] == {"type": "done", "samples": len(audio())}
    return sum(m["type"] == "detection" for m in messages)


def say_nonsense(service: Service) -> None:
    """What no HTTP is: the server's thread writes a line to its log."""
    with socket.create_connection(("127.0.0.1", service.port), 10) as sock:
        sock.sendall(b"nonsense\r\n\r\n")
        while sock.recv(4096):
            pass


async def work(service: Service, clients: int, *, nonsense: int) -> int:
    """Let clients send and a subscriber listen, which has to hear all of it, and of the service's own source too;
    the number of the clients' detections.
    """
    heard: dict[str, int] = {}
    found = 0
    async with asyncio.timeout(120), websockets.connect(f"{service.ws}/v1/detections", max_queue=None) as listener:
        for at in range(0, clients, 8):
            for _ in range(nonsense * 8 // clients):
                await asyncio.to_thread(say_nonsense, service)
            found += sum(await asyncio.gather(*(client(service, f"c{at + i}") for i in range(8))))
        while sum(n for name, n in heard.items() if name != "door") < found or heard.get("door", 0) < 3:
            message = json.loads(await listener.recv())
            if message["type"] == "detection":
                heard[message["stream"]] = heard.get(message["stream"], 0) + 1
    return found


@CASE
async def test_detections_go_on_and_sigterm_ends_it(model, free_port, kind, which):
    with blocked_service(model, free_port, kind, which) as (service, _):
        assert await work(service, 16, nonsense=16) == 16 * SECONDS / LOUD_S
        assert await asyncio.to_thread(service.terminate) == 0


@LINES_ENOUGH
async def test_read_again_it_says_how_many_lines_were_dropped(model, free_port, kind, which):
    """On stdout: of the log's lines few are of one kind, and so many as are kept do not come."""
    with blocked_service(model, free_port, kind, which) as (service, out):
        await work(service, 240, nonsense=0)
        await asyncio.to_thread(out.read_until, "lines were dropped")
        assert int(re.search(r"(\d+) lines were dropped", out.text)[1]) > 100
        await asyncio.to_thread(say_nonsense, service)
        await asyncio.to_thread(out.read_until, "door  loud")
        out.block()
        service.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(service.process.wait, 10) == 0


def test_a_detections_line_is_made_in_the_printers_thread(tmp_path):
    """Who tells the terminal of a detection, the log's thread, formats nothing: it only queues."""
    called: list[str] = []
    with (tmp_path / "out").open("w") as out:
        printer = Printer(out)
        terminal = Terminal(Engine([]), "", printer)
        found = [detection(i, label="yes\x1b[2J", at=1e9 + i) for i in range(3)]
        sys.setprofile(lambda _, event, what: called.append(what.__name__) if event == "c_call" else None)
        for d in found:
            terminal.detection(d)
        sys.setprofile(None)
        printer.close(30)
    clocks = [time.strftime("%H:%M:%S", time.localtime(d.at)) for d in found]
    assert (tmp_path / "out").read_text() == "".join(f"{clock}  s  yes?[2J  0.90\n" for clock in clocks)
    assert set(called) & {"strftime", "localtime", "isprintable", "encode", "join", "write"} == set()
    assert "append" in called
