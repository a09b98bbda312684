"""WebSocket frames as bytes, whatever they are good for (RFC 6455, section 5.2)."""

from __future__ import annotations

import os
import struct

TEXT, BINARY, CONT, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10


def frame(opcode: int, payload: bytes = b"", *, fin: int = 1, rsv: int = 0, masked: bool = True) -> bytes:
    """A client's frame; not `masked`: a server's. The payload has any length."""
    head = bytes([fin << 7 | rsv << 4 | opcode])
    n, bit = len(payload), 0x80 if masked else 0
    size = bytes([bit | 127]) + struct.pack(">Q", n)
    if n < 65536:
        size = bytes([bit | n]) if n < 126 else bytes([bit | 126]) + struct.pack(">H", n)
    if not masked:
        return head + size + payload
    mask = os.urandom(4)
    return head + size + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))


def unpacked(got: bytes) -> tuple[int, bytes, bytes] | None:
    """The first frame of a server's bytes: opcode, payload, rest; None where it is not complete."""
    if len(got) < 2:
        return None
    assert got[0] & 0x70 == 0, "reserved bits from the server"
    assert not got[1] & 0x80, "a server does not mask"
    n, at = got[1], 2
    if n >= 126:
        at = 4 if n == 126 else 10
        if len(got) < at:
            return None
        n = int.from_bytes(got[2:at], "big")
    return (got[0] & 15, got[at : at + n], got[at + n :]) if len(got) >= at + n else None
