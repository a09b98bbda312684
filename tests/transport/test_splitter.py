"""The short way of audio: what is taken and what the library gets are together what it alone would have got."""

from __future__ import annotations

import socket
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from kws_serve.transport.splitter import FrameSplitter
from tests.support.live_server import live_server
from tests.support.tiny_model import write_level_model

MOST = 500
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.fixture(scope="module")
def level_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_level_model(tmp_path_factory.mktemp("models"))


Seen = list[tuple[int, bool, bytes]]


class Library:
    """A connection as websockets sees it."""

    def __init__(self) -> None:
        self.protocol = ServerProtocol(max_size=4 * MOST)
        self.protocol.receive_data(HANDSHAKE)
        (request,) = self.protocol.events_received()
        self.protocol.send_response(self.protocol.accept(request))
        self.protocol.data_to_send()
        self.seen: Seen = []

    def feed(self, data: bytes) -> None:
        self.protocol.receive_data(data)
        self.seen += [(e.opcode, e.fin, bytes(e.data)) for e in self.protocol.events_received() if isinstance(e, Frame)]

    @property
    def answer(self) -> bytes:
        """What it sends back: pongs, a close."""
        return b"".join(self.protocol.data_to_send())


FRAMES = st.one_of(
    st.tuples(st.just(Opcode.BINARY), st.just(True), st.binary(max_size=700)),
    st.tuples(st.just(Opcode.BINARY), st.just(True), st.integers(0, 700).map(bytes)),
    st.tuples(st.sampled_from([Opcode.BINARY, Opcode.TEXT, Opcode.CONT]), st.booleans(), st.binary(max_size=300)),
    st.tuples(st.sampled_from([Opcode.PING, Opcode.PONG]), st.just(True), st.binary(max_size=125)),
    st.tuples(st.just(Opcode.CLOSE), st.just(True), st.just(b"\x03\xe8")),
)


def both(data: bytes, cuts: list[int], takes: list[bool]) -> tuple[Library, Library, int]:
    """The library alone, and behind a splitter; how many messages went the short way."""
    alone, behind = Library(), Library()
    alone.feed(data)
    taken = []

    def take(payload: np.ndarray) -> bool:
        if behind.protocol.state is not State.OPEN:
            return False
        if takes and not takes[(len(taken) + len(behind.seen)) % len(takes)]:
            return False
        taken.append(1)
        behind.seen.append((Opcode.BINARY, True, payload.tobytes()))
        return True

    splitter = FrameSplitter(take, behind.feed, MOST)
    edges = sorted({0, len(data), *(c % (len(data) + 1) for c in cuts)})
    for first, last in pairwise(edges):
        splitter.feed(data[first:last])
    return alone, behind, len(taken)


@given(
    st.lists(FRAMES, max_size=12), st.lists(st.integers(0, 10_000), max_size=40), st.lists(st.booleans(), max_size=5)
)
@settings(max_examples=300, deadline=None)
def test_frames_in_any_cuts(frames, cuts, takes):
    data = b"".join(Frame(opcode, body, fin).serialize(mask=True) for opcode, fin, body in frames)
    alone, behind, _ = both(data, cuts, takes)
    assert behind.seen == alone.seen
    assert behind.answer == alone.answer


@given(
    st.lists(FRAMES, max_size=3),
    st.binary(max_size=60),
    st.lists(FRAMES, max_size=3),
    st.lists(st.integers(0, 10_000), max_size=20),
)
@settings(max_examples=300, deadline=None)
def test_what_no_client_may_send_is_the_librarys(before, junk, after, cuts):
    data = b"".join(Frame(opcode, body, fin).serialize(mask=True) for opcode, fin, body in before) + junk
    data += b"".join(Frame(opcode, body, fin).serialize(mask=len(junk) % 2 == 0) for opcode, fin, body in after)
    alone, behind, _ = both(data + bytes(14), cuts, [])  # no header is left incomplete
    assert behind.seen == alone.seen
    assert behind.answer == alone.answer


def test_audio_goes_the_short_way():
    data = Frame(Opcode.BINARY, bytes(400)).serialize(mask=True) * 5
    assert both(data, list(range(0, len(data), 97)), [])[2] == 5
    _, behind, taken = both(Frame(Opcode.BINARY, bytes(MOST + 1)).serialize(mask=True), [3, 100], [])
    assert taken == 0
    assert behind.seen == [(Opcode.BINARY, True, bytes(MOST + 1))]


def test_nothing_overtakes_what_went_the_long_way(level_model):
    """A message in parts goes through the library and a queue; one in one frame that came with it has to wait."""
    pushed: list[int] = []
    with live_server([level_model]) as server, socket.create_connection(("127.0.0.1", server.server.port)) as client:
        client.sendall(HANDSHAKE.replace(b"GET /", b"GET /v1/audio?stream=parts").replace(b": x", b": localhost"))
        client.recv(10_000)  # the handshake's answer, or more
        while "parts" not in server.engine.streams:
            time.sleep(0.01)
        stream = server.engine.streams["parts"]
        push = stream.push
        stream.push = lambda samples, *rest: (pushed.append(int(samples[0])), push(samples, *rest))[1]
        frames = []
        for value in range(1, 7):
            pcm = np.full(800, value, "<i2").tobytes()
            if value % 2:
                frames += [Frame(Opcode.BINARY, pcm[:600], False), Frame(Opcode.CONT, pcm[600:], True)]
            else:
                frames.append(Frame(Opcode.BINARY, pcm, True))
        client.sendall(b"".join(frame.serialize(mask=True) for frame in frames))
        until_s = time.monotonic() + 10
        while len(pushed) < 6 and time.monotonic() < until_s:
            time.sleep(0.01)
    assert pushed == [1, 2, 3, 4, 5, 6]
