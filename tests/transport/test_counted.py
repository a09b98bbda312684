"""The connections of an address are counted from accept to close, however they end."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections import Counter
from typing import Any

import pytest

from kws_serve.transport import http_protocol, peer
from kws_serve.transport.budget import Budgets, Rate
from kws_serve.transport.websocket_protocol import WebSocket
from tests.campaigns.proof import count, record
from tests.support.live_server import LiveServer

HERE = "127.0.0.1"
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: closing sends a reset."""


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "_connecting", Budgets(Rate(1e6, 1e6)))


def handshake(server: LiveServer) -> bytes:
    lines = ("GET /v1/detections HTTP/1.1", f"Host: {server.host}", "Upgrade: websocket", "Connection: Upgrade",
             "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "", "")  # fmt: skip
    return "\r\n".join(lines).encode()


def reset_after(server: LiveServer, said: bytes, ready: threading.Event | None = None) -> None:
    """Connect, say this, and reset the connection: when `ready`, or at once."""
    with socket.create_connection((HERE, server.server.port)) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        s.sendall(said)
        if ready is not None:
            assert ready.wait(10)


def answered(server: LiveServer) -> None:
    """A request has been answered, and so whoever came before it was let in."""
    with socket.create_connection((HERE, server.server.port)) as s:
        s.sendall(f"GET /healthz HTTP/1.1\r\nHost: {server.host}\r\n\r\n".encode())
        assert s.recv(100).startswith(b"HTTP/1.1 200")


def left_over(server: LiveServer, before: Counter[str]) -> Counter[str]:
    """What is counted beyond `before` once nothing is open any more."""
    answered(server)
    deadline_s = time.monotonic() + 10
    while peer.open_connections != before and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return peer.open_connections - before


def test_a_reset_within_the_handshake_leaves_nothing_counted(server, monkeypatch):
    """The reset comes between the request and the answer: from then on the kernel knows no peer of the socket."""
    before = Counter(peer.open_connections)
    begun, gone = threading.Event(), threading.Event()
    made = WebSocket.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        begun.set()
        assert gone.wait(10)

    monkeypatch.setattr(WebSocket, "__init__", init)
    tries = 20
    for _ in range(tries):
        begun.clear(), gone.clear()
        reset_after(server, handshake(server), begun)
        gone.set()
    assert left_over(server, before) == Counter()
    record("counted", f"{tries} resets within the handshake", "none left counted")


def test_a_reset_at_any_moment_leaves_nothing_counted(server):
    before = Counter(peer.open_connections)
    said = handshake(server)
    tries = count(1500, 75)
    for i in range(tries):
        with contextlib.suppress(ConnectionError):
            reset_after(server, said[: len(said) - i % 2])  # whole, or cut before the end
    assert left_over(server, before) == Counter()


def test_one_that_has_reset_before_it_is_looked_at_counts_as_its_address(server, monkeypatch):
    """The kernel no longer knows whose it was, accept() does: it is not somebody unknown, who shares a budget."""
    seen: list[str] = []
    spent = Budgets(Rate(1e6, 1e6))
    of = spent.of

    def noted(whose: Any, now_s: float) -> Any:
        seen.append(whose)
        return of(whose, now_s)

    monkeypatch.setattr(spent, "of", noted)
    monkeypatch.setattr(http_protocol, "_connecting", spent)
    held, reached = threading.Event(), threading.Event()
    loop = server.server._loop

    def hold() -> None:
        reached.set()
        assert held.wait(10)

    loop.call_soon_threadsafe(hold)
    assert reached.wait(10)
    reset_after(server, b"")
    held.set()
    answered(server)
    assert seen == [HERE, HERE]
