"""Requests that do not come in one piece, as over slow links and from people who type them."""

from __future__ import annotations

import socket
import threading

import pytest

from tests.support.live_server import LiveServer


def answer(server: LiveServer, pieces: list[bytes]) -> bytes:
    """The first line of what comes back."""
    with socket.create_connection(("127.0.0.1", server.server.port), timeout=10) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            s.sendall(piece)
            settle(server)
        return s.recv(4096).partition(b"\r\n")[0]


def settle(server: LiveServer) -> None:
    """The server has read what was sent: its loop has gone round since."""
    for _ in range(3):
        round_ = threading.Event()
        server.server._loop.call_soon_threadsafe(round_.set)
        assert round_.wait(10)


@pytest.mark.parametrize("n", [1, 7, 20])
def test_a_request_is_answered_in_however_many_pieces_it_comes(server, n):
    whole = f"GET /healthz HTTP/1.1\r\nHost: {server.host}\r\n\r\n".encode()
    assert answer(server, [whole[at : at + n] for at in range(0, len(whole), n)]) == b"HTTP/1.1 200 OK"


def test_a_body_in_pieces_is_taken(server):
    body = b'{"*":{"threshold":0.5}}'
    head = f"PATCH /v1/models/level/detection HTTP/1.1\r\nHost: {server.host}\r\nContent-Length: {len(body)}\r\n\r\n"
    assert answer(server, [bytes([b]) for b in head.encode() + body]) == b"HTTP/1.1 200 OK"
