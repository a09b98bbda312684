"""What the packets say: requests and answers as values. The firmware's side: firmware/core/kws_board.h."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np

from kws_board.errors import BoardError
from kws_board.integer_model import Int8Array

PROTOCOL, FIRMWARE = 1, 1
ANSWER = 0x80
DIGEST_BYTES = 16
NO_SLOT = 255
WITH_LAYERS = 1
_HELLO = struct.Struct("<BBBBIIII16s")
_RESULT = struct.Struct("<BBHHQ")


class Request(IntEnum):
    """Packet types; an answer has the type with its top bit set, or is ERROR."""

    HELLO = 1
    SET_BAUD = 2
    BEGIN = 3
    CHUNK = 4
    COMMIT = 5
    INFER = 6
    FRAMES = 7
    PING = 8
    RESET = 9
    ERROR = 0xFF


class Code(IntEnum):
    """Why a board refuses."""

    BAD_PACKET = 1
    BAD_TYPE = 2
    BAD_SIZE = 3
    BAD_SLOT = 4
    NO_ROOM = 5
    BAD_OFFSET = 6
    BAD_IMAGE = 7
    OTHER_PATCH = 8
    BAD_BAUD = 9


_IMAGE_FAULTS = {
    1: "no image of this version",
    2: "an image of another size",
    3: "a wrong checksum",
    4: "a damaged layer",
    5: "maps too large for the board",
}

CycleSource = Literal["none", "counter", "instructions"]
_SOURCES: tuple[CycleSource, ...] = ("none", "counter", "instructions")


class Refused(BoardError):
    """A board's answer to a request that it cannot do."""

    def __init__(self, code: int, detail: int) -> None:
        self.code, self.detail = code, detail
        name = Code(code).name.lower().replace("_", " ") if code in set(Code) else f"code {code}"
        more = _IMAGE_FAULTS.get(detail, str(detail)) if code == Code.BAD_IMAGE else str(detail)
        super().__init__(f"board: refused: {name} ({more})")


@dataclass(frozen=True)
class Hello:
    """Who answers."""

    protocol: int
    firmware: int
    cycle_source: CycleSource
    boot_id: int  # another after each start or reset
    largest_payload: int  # bytes
    free_bytes: int  # for images
    arena_bytes: int  # for a model's maps
    chip: str
    digests: tuple[bytes, ...]  # of the resident models, by slot

    @classmethod
    def parse(cls, payload: bytes) -> Hello:
        """Raises BoardError for an answer of another protocol, or none."""
        if len(payload) >= 1 and payload[0] != PROTOCOL:
            raise BoardError(f"board: protocol: found {payload[0]}, wanted {PROTOCOL}; flash this version's firmware")
        if len(payload) < _HELLO.size:
            raise BoardError(f"board: hello: found {len(payload)} bytes, wanted at least {_HELLO.size}")
        protocol, firmware, source, n, boot, largest, free, arena, chip = _HELLO.unpack_from(payload)
        rest = payload[_HELLO.size :]
        if len(rest) != n * DIGEST_BYTES or source >= len(_SOURCES):
            raise BoardError(f"board: hello: found {len(rest)} bytes for {n} models, wanted {n * DIGEST_BYTES}")
        digests = tuple(rest[i : i + DIGEST_BYTES] for i in range(0, len(rest), DIGEST_BYTES))
        name = chip.rstrip(b"\0").decode("ascii", "replace")
        return cls(protocol, firmware, _SOURCES[source], boot, largest, free, arena, name, digests)


@dataclass(frozen=True)
class LayerCount:
    """What one layer took."""

    cycles: int
    operations: int


@dataclass(frozen=True)
class Result:
    """An inference's answer."""

    slot: int
    scores: Int8Array  # (n_classes,)
    cycles: int  # of the whole inference, as cycle_source counts them
    cycle_source: CycleSource
    layers: tuple[LayerCount, ...]  # empty where they were not asked for

    @classmethod
    def parse(cls, payload: bytes) -> Result:
        """Raises BoardError for an answer that is none."""
        if len(payload) < _RESULT.size:
            raise BoardError(f"board: result: found {len(payload)} bytes, wanted at least {_RESULT.size}")
        slot, source, n_classes, n_layers, cycles = _RESULT.unpack_from(payload)
        wanted = _RESULT.size + n_classes + 8 * n_layers
        if len(payload) != wanted or source >= len(_SOURCES):
            raise BoardError(f"board: result: found {len(payload)} bytes, wanted {wanted}")
        scores = np.frombuffer(payload, np.int8, n_classes, _RESULT.size).copy()
        counts = np.frombuffer(payload, "<u4", 2 * n_layers, _RESULT.size + n_classes).reshape(-1, 2)
        layers = tuple(LayerCount(int(c), int(o)) for c, o in counts)
        return cls(slot, scores, cycles, _SOURCES[source], layers)


def begin(image: bytes, crc: int, digest: bytes) -> bytes:
    """Payload of BEGIN."""
    return struct.pack("<II", len(image), crc) + digest


def chunk(offset: int, part: bytes) -> bytes:
    """Payload of CHUNK."""
    return struct.pack("<I", offset) + part


def infer(slot: int, patch: Int8Array, layers: bool) -> bytes:
    """Payload of INFER: a whole patch."""
    return bytes((slot, WITH_LAYERS if layers else 0)) + patch.tobytes()


def frames(slot: int, crc: int, new: Int8Array, layers: bool) -> bytes:
    """Payload of FRAMES: what is new at the end of the patch, and the CRC-32 of the patch that it gives."""
    return bytes((slot, WITH_LAYERS if layers else 0)) + struct.pack("<I", crc) + new.tobytes()


def number(payload: bytes, offset: int = 0) -> int:
    """A u32 of an answer. Raises BoardError where there is none."""
    if len(payload) < offset + 4:
        raise BoardError(f"board: found {len(payload)} bytes, wanted at least {offset + 4}")
    return int.from_bytes(payload[offset : offset + 4], "little")
