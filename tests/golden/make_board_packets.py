"""Writes board_packets.json: packets and their bytes on the wire, by the cobs package and zlib alone.

Run: python tests/golden/make_board_packets.py > tests/golden/board_packets.json
"""

import hashlib
import json
import struct
import zlib
from importlib.metadata import version
from pathlib import Path

from cobs import cobs


def wire(kind: int, sequence: int, payload: bytes) -> str:
    """COBS(type, sequence, payload, CRC-32) and a zero."""
    body = bytes((kind, sequence)) + payload
    return (cobs.encode(body + struct.pack("<I", zlib.crc32(body))) + b"\0").hex()


PING, ANSWER = 8, 0x80
CASES = {
    "empty": b"",
    "one zero": b"\0",
    "zeros": bytes(40),
    "no zero": bytes(range(1, 256)),
    "run of 248": b"\x11" * 248,
    "run of 252": b"\x11" * 252,
    "run of 253": b"\x11" * 253,
    "run of 254": b"\x11" * 254,
    "run of 506": b"\x11" * 506,
    "run then zero": b"\x11" * 252 + b"\0",
    "counting": bytes(i * 7 % 256 for i in range(1000)),
    "patch": bytes(490),
}
packets = []
for i, (name, payload) in enumerate(CASES.items(), start=1):
    packets.append(
        {
            "name": name,
            "type": PING,
            "sequence": i,
            "payload": payload.hex(),
            "wire": wire(PING, i, payload),
            "ping": wire(PING, i, payload),
            "pong": wire(PING | ANSWER, i, payload),
        }
    )
digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
made_by = {"generator": Path(__file__).name, "generator_sha256": digest, "cobs": version("cobs")}
print(json.dumps({"made_by": made_by, "packets": packets}, indent=1))
