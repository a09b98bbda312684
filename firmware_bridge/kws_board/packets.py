"""The wire, without I/O: type, sequence number, payload and CRC-32, COBS-encoded and ended by a zero byte.

A packet that cannot be read is a value, counted by the caller; the next zero byte begins anew.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from cobs import cobs

MAX_PAYLOAD = 8192
OVERHEAD = 6  # type, sequence number, CRC-32


@dataclass(frozen=True, slots=True)
class Packet:
    """One unit on the link."""

    type: int  # 0-255
    sequence: int  # 0-255: an answer has its request's
    payload: bytes = b""

    def __post_init__(self) -> None:
        if not (0 <= self.type <= 255 and 0 <= self.sequence <= 255 and len(self.payload) <= MAX_PAYLOAD):
            found = f"type {self.type}, sequence {self.sequence}, {len(self.payload)} bytes"
            raise ValueError(f"packet: found {found}, wanted 0-255, 0-255, at most {MAX_PAYLOAD}")


@dataclass(frozen=True, slots=True)
class BadPacket:
    """Bytes between two zeros that are no packet."""

    reason: str
    raw: bytes


def encode_packet(packet: Packet) -> bytes:
    """The packet as it goes over the wire, the zero byte included."""
    body = bytes((packet.type, packet.sequence)) + packet.payload
    return bytes(cobs.encode(body + struct.pack("<I", zlib.crc32(body)))) + b"\0"


def parse_packet(raw: bytes) -> Packet | BadPacket:
    """What lay between two zeros."""
    try:
        body = bytes(cobs.decode(raw))
    except cobs.DecodeError:
        return BadPacket("no COBS", raw)
    if not OVERHEAD <= len(body) <= MAX_PAYLOAD + OVERHEAD:
        return BadPacket("wrong size", raw)
    if zlib.crc32(body[:-4]) != struct.unpack("<I", body[-4:])[0]:
        return BadPacket("wrong CRC-32", raw)
    return Packet(body[0], body[1], body[2:-4])


class PacketReader:
    """Bytes in, packets out; holds at most one packet's bytes."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._skipping = False  # a packet too long: up to the next zero nothing is kept

    def feed(self, data: bytes) -> list[Packet | BadPacket]:
        """The packets that `data` completes; any cut of the same bytes gives the same packets."""
        *done, rest = data.split(b"\0")
        packets: list[Packet | BadPacket] = []
        for part in done:
            self._keep(part)
            if self._skipping:
                packets.append(BadPacket("too long", b""))
            elif self._rest:
                packets.append(parse_packet(bytes(self._rest)))
            self._rest.clear()
            self._skipping = False
        self._keep(rest)
        return packets

    def _keep(self, part: bytes) -> None:
        if not self._skipping and len(self._rest) + len(part) > _MAX_ENCODED:
            self._skipping = True
        if not self._skipping:
            self._rest += part


_MAX_ENCODED = MAX_PAYLOAD + OVERHEAD + (MAX_PAYLOAD + OVERHEAD) // 254 + 1
