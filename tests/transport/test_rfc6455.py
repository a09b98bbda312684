"""RFC 6455 under the server settings we ship, frame by frame, numbered as in Autobahn's sections 1 to 7 and 10.

`make autobahn` runs Autobahn's own suite where its `wstest` is installed.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from tests.support.echo_server import echo_server
from tests.support.websocket_frames import BINARY, CLOSE, CONT, PING, PONG, TEXT, frame, unpacked

CLOSED = "closed"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = echo_server()
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    yield server.port
    server.stop()
    thread.join(10)


def talk(
    port: int, data: bytes, *, answers: int = 0, chop: int = 0, closes: bool = True
) -> tuple[list[tuple[int, bytes]], int | None]:
    """Send `data` (in pieces of `chop` bytes), wait for so many answers, close; what came back and the close code.

    Without `closes` the server has to.
    """
    messages: list[tuple[int, bytes]] = []
    code = None
    with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
        s.sendall(
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        got = b""
        while b"\r\n\r\n" not in got:
            got += s.recv(4096)
        got = got.partition(b"\r\n\r\n")[2]
        with contextlib.suppress(ConnectionError):
            for at in range(0, len(data), chop or len(data)):
                s.sendall(data[at : at + (chop or len(data))])
            if not answers and closes:
                s.sendall(frame(CLOSE, struct.pack(">H", 1000)))
            while part := s.recv(65536):
                got += part
                while (found := unpacked(got)) is not None:
                    opcode, payload, got = found
                    if opcode == CLOSE:
                        code = struct.unpack(">H", payload[:2])[0] if payload else 1005
                    elif opcode != PING:
                        messages.append((opcode, payload))
                        if len(messages) == answers:
                            s.sendall(frame(CLOSE, struct.pack(">H", 1000)))
    assert got == b""
    return messages, code


SIZES = (0, 1, 125, 126, 127, 128, 65535, 65536)


@pytest.mark.parametrize("chop", [0, 997, 1], ids=["whole", "chopped", "by bytes"])
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_1_messages_of_every_size_come_back(port, opcode, n, chop):
    if chop == 1 and n > 1000:
        chop = 4000
    payload = b"*" * n if opcode == TEXT else os.urandom(n)
    assert talk(port, frame(opcode, payload), answers=1, chop=chop) == ([(opcode, payload)], 1000)


@pytest.mark.parametrize("payload", [b"", b"Hello", b"\0\xff\xfe", b"\xfe" * 125])
@pytest.mark.parametrize("chop", [0, 1])
def test_2_pings_are_answered_with_their_payload(port, payload, chop):
    assert talk(port, frame(PING, payload) * 3, answers=3, chop=chop) == ([(PONG, payload)] * 3, 1000)


def test_2_pongs_nobody_asked_for_are_ignored(port):
    assert talk(port, frame(PONG, b"x") + frame(PING, b"y"), answers=1) == ([(PONG, b"y")], 1000)


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
def test_2_control_frames_are_short(port, opcode):
    assert talk(port, frame(opcode, b"\x03\xe8" + b"x" * 124))[1] == 1002


@pytest.mark.parametrize("rsv", range(1, 8))
@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, CLOSE])
def test_3_reserved_bits_fail_the_connection(port, rsv, opcode):
    payload = struct.pack(">H", 1000) if opcode == CLOSE else b"x"
    messages, code = talk(port, frame(TEXT, b"before") + frame(opcode, payload, rsv=rsv) + frame(TEXT, b"after"))
    assert code == 1002
    assert (TEXT, b"after") not in messages


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("payload", [b"", b"x"])
def test_4_reserved_opcodes_fail_the_connection(port, opcode, payload):
    messages, code = talk(port, frame(opcode, payload) + frame(TEXT, b"after"))
    assert (messages, code) == ([], 1002)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("chop", [0, 1])
@pytest.mark.parametrize("parts", [2, 3, 9])
def test_5_fragments_make_one_message_with_pings_between(port, opcode, parts, chop):
    data, whole = b"", b""
    for i in range(parts):
        piece = f"fragment {i} ".encode()
        whole += piece
        data += frame(CONT if i else opcode, piece, fin=int(i == parts - 1)) + (
            frame(PING, b"p") if i < parts - 1 else b""
        )
    messages, code = talk(port, data, answers=parts, chop=chop)
    assert messages == [(PONG, b"p")] * (parts - 1) + [(opcode, whole)]
    assert code == 1000


@pytest.mark.parametrize("data", [
    frame(CONT, b"x"), frame(CONT, b"x", fin=0) + frame(CONT, b"y"), frame(PING, b"x", fin=0),
    frame(PONG, b"x", fin=0), frame(TEXT, b"a", fin=0) + frame(TEXT, b"b"),
    frame(TEXT, b"a", fin=0) + frame(BINARY, b"b"), frame(TEXT, b"a") + frame(CONT, b"b"),
], ids=["lone", "lone twice", "ping", "pong", "text in text", "binary in text", "after the end"])  # fmt: skip
def test_5_fragments_out_of_order_fail_the_connection(port, data):
    assert talk(port, data)[1] == 1002


VALID = [
    "Hello-µ@ßöäüàá-UTF-8!!",
    "κόσμε",
    "\0",
    "\x7f",
    "\x80",
    "߿",
    "ࠀ",
    "\uffff",
    "\U00010000",
    "\U0010ffff",
    "퟿",
    "�",
]
INVALID = [
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited", b"\x80", b"\xbf", b"\xc0\xaf", b"\xe0\x80\xaf",
    b"\xf0\x80\x80\xaf", b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80", b"\xfe", b"\xff", b"\xed\xa0\x80",
    b"\xed\xbf\xbf", b"\xf4\x90\x80\x80", b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xc3", b"\xe2\x82", b"\xf0\x9d\x84",
]  # fmt: skip


@pytest.mark.parametrize("text", VALID, ids=ascii)
@pytest.mark.parametrize("split", [False, True], ids=["whole", "split in characters"])
def test_6_text_is_utf_8(port, text, split):
    payload = text.encode()
    data = frame(TEXT, payload)
    if split:
        pieces = [payload[i : i + 1] for i in range(len(payload))]
        data = b"".join(frame(CONT if i else TEXT, p, fin=int(i == len(pieces) - 1)) for i, p in enumerate(pieces))
    assert talk(port, data, answers=1) == ([(TEXT, payload)], 1000)


@pytest.mark.parametrize("payload", INVALID, ids=repr)
@pytest.mark.parametrize("split", [False, True], ids=["whole", "split"])
def test_6_what_is_no_utf_8_fails_the_connection(port, payload, split):
    data = frame(TEXT, payload)
    if split:
        data = frame(TEXT, payload[:1], fin=0) + frame(CONT, payload[1:])
    # a close in the same read as the text would be answered first: websockets reads both before uvicorn sees either
    assert talk(port, data, closes=False) == ([], 1007)


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999])
def test_7_good_close_codes_are_echoed(port, code):
    assert talk(port, frame(CLOSE, struct.pack(">H", code) + b"bye"))[1] == code


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535])
def test_7_bad_close_codes_are_a_protocol_error(port, code):
    assert talk(port, frame(CLOSE, struct.pack(">H", code)))[1] == 1002


@pytest.mark.parametrize("payload, wanted", [
    (b"", (1005, 1000)), (b"\x03", (1002,)), (struct.pack(">H", 1000) + b"x" * 123, (1000,)),
    (struct.pack(">H", 1000) + b"\xce\xba\xe1", (1002, 1007)),
], ids=["empty", "one byte", "the longest reason", "a reason that is no UTF-8"])  # fmt: skip
def test_7_close_payloads(port, payload, wanted):
    assert talk(port, frame(CLOSE, payload))[1] in wanted


def test_7_nothing_is_answered_after_a_close(port):
    data = frame(CLOSE, struct.pack(">H", 1000)) + frame(TEXT, b"after") + frame(PING, b"after")
    assert talk(port, data) == ([], 1000)


def test_10_many_small_fragments(port):
    payload = os.urandom(65536)
    pieces = [payload[i : i + 1300] for i in range(0, len(payload), 1300)]
    data = b"".join(frame(CONT if i else BINARY, p, fin=int(i == len(pieces) - 1)) for i, p in enumerate(pieces))
    assert talk(port, data, answers=1) == ([(BINARY, payload)], 1000)


def test_a_client_must_mask(port):
    assert talk(port, frame(TEXT, b"x", masked=False))[1] == 1002


def test_a_message_beyond_the_limit_is_1009(port):
    assert talk(port, frame(BINARY, bytes((1 << 20) + 1))[:100])[1] == 1009  # known from its header
