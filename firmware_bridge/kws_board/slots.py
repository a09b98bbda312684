"""What lies on a board that answers: images in slots, and in each slot's ring the frames of the last patch."""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kws_board import protocol
from kws_board.board_counts import BoardCounts
from kws_board.errors import BoardError
from kws_board.image import BoardImage
from kws_board.integer_model import Int8Array
from kws_board.link import Link, LinkError
from kws_board.protocol import Code, Hello, Refused, Request, Result

_CHUNK_BYTES, _LEAST_CHUNK_BYTES = 2048, 64  # of an image in one packet; halved while the link damages them
_MOST_REPEATS = 1  # of one chunk, before its size is halved
_FIRST_INFERENCE_S = 10.0  # nothing is known of its time yet; of a simulator it is times slow_factor, as all
_LOST_AFTER, _LEAST_WAIT_S = 5.0, 0.5  # times the slowest inference so far, and at least as long: then it is lost
_TRIES = 2  # of an inference: a repeated patch costs its whole time on the link


class Ask(Protocol):
    """Who asks the board."""

    def __call__(self, request: Request, payload: bytes = b"", timeout_s: float = 1.0, tries: int = 4) -> bytes:
        """The answer's payload. Raises BoardError."""


@dataclass
class _Resident:
    """An image on the board, and what its slot's ring holds."""

    slot: int
    patch: Int8Array | None = None
    slowest_s: float | None = None  # of its inferences


class Slots:
    """Sends images where the board lacks them, and patches. Not for several threads at once."""

    def __init__(self, ask: Ask, link: Callable[[], Link], counts: BoardCounts) -> None:
        """`link`: the open one. Raises BoardError where none can be."""
        self._ask, self._link, self._counts = ask, link, counts
        self._resident: dict[bytes, _Resident] = {}
        self._arena_bytes = 0
        self._chunk_bytes = _CHUNK_BYTES

    def greeted(self, hello: Hello) -> None:
        """The board says what it has: nobody knows what the rings hold."""
        self._arena_bytes = hello.arena_bytes
        self._resident = {digest: _Resident(slot) for slot, digest in enumerate(hello.digests)}

    def load(self, image: BoardImage) -> int:
        """Its slot; sent first where it is not there. Raises BoardError."""
        return self._load(image).slot

    def infer(self, image: BoardImage, patch: Int8Array, layers: bool) -> Result:
        """Only the frames that are new go over the link where the slot's ring has the others.

        Raises BoardError; then nobody knows what the ring holds, and the next patch is sent whole.
        """
        resident = self._load(image)
        new = new_values(resident.patch, patch, image.model.frame_size)
        resident.patch = None  # until the board has answered
        # the first inference may take what it takes
        timeout_s = (
            _FIRST_INFERENCE_S if resident.slowest_s is None else max(_LEAST_WAIT_S, _LOST_AFTER * resident.slowest_s)
        )
        began = time.monotonic()
        if new < patch.size:
            payload = protocol.frames(resident.slot, zlib.crc32(patch.tobytes()), patch[patch.size - new :], layers)
            try:
                result = Result.parse(self._ask(Request.FRAMES, payload, timeout_s, _TRIES))
                self._counts.frames_sent += 1
            except Refused as refusal:
                if refusal.code != Code.OTHER_PATCH:
                    raise
                new = patch.size
        if new == patch.size:
            payload = protocol.infer(resident.slot, patch, layers)
            result = Result.parse(self._ask(Request.INFER, payload, timeout_s, _TRIES))
        if result.slot != resident.slot or result.scores.size != image.model.output.size:
            raise LinkError(f"board: result: found {result.scores.size} scores of slot {result.slot}")
        resident.patch = patch
        resident.slowest_s = max(resident.slowest_s or 0.0, time.monotonic() - began)
        self._counts.inferences += 1
        return result

    def _load(self, image: BoardImage) -> _Resident:
        """Where the image lies on the board, sent first where it is not there.

        Raises BoardError; what was sent stays on the board, and BEGIN says from which offset to go on.
        """
        digest = hashlib.sha256(image.content).digest()[: protocol.DIGEST_BYTES]
        self._link()
        if digest in self._resident:
            return self._resident[digest]
        if image.plan.arena_bytes > self._arena_bytes:
            found, has = image.plan.arena_bytes, self._arena_bytes
            raise BoardError(f"board: {image.model.name}: maps: found {found} bytes, wanted at most {has}")
        answer = self._ask(Request.BEGIN, protocol.begin(image.content, zlib.crc32(image.content), digest))
        slot, offset = answer[0], protocol.number(answer, 1)
        # The board's answer says how much it has: an image half sent is gone on with, a repeated chunk counts once.
        #     image   |======== on the board ========|-- part --|                |
        #                                            ^ offset                    ^ len(content): COMMIT gives the slot
        while slot == protocol.NO_SLOT and offset < len(image.content):
            part, repeats = image.content[offset : offset + self._chunk_bytes], self._link().counts.repeats
            try:
                offset = protocol.number(self._ask(Request.CHUNK, protocol.chunk(offset, part)))
            finally:
                if self._link().counts.repeats > repeats + _MOST_REPEATS:
                    self._chunk_bytes = max(_LEAST_CHUNK_BYTES, self._chunk_bytes // 2)
        if slot == protocol.NO_SLOT:
            slot = self._ask(Request.COMMIT)[0]
        self._resident[digest] = _Resident(slot)
        return self._resident[digest]


def new_values(old: Int8Array | None, patch: Int8Array, frame_bytes: int) -> int:
    """How many values at the patch's end are new against the one before: whole frames; all where nothing fits."""
    if old is None or old.size != patch.size:
        return int(patch.size)
    # A stream's patch is the one before it moved on by `shift` frames. Only where the old one has the new one's first
    # frame can that be so; the smallest shift that fits is taken, so that a patch that stands still sends nothing.
    #
    #     known      | 0 | 1 | 2 | 3 | 4 |
    #     rows               | 2 | 3 | 4 | 5 | 6 |        shift 2: rows[: n - 2] == known[2:], two frames are new
    n_frames = patch.size // frame_bytes
    rows, known = patch.reshape(n_frames, frame_bytes), old.reshape(n_frames, frame_bytes)
    starts = np.flatnonzero((known == rows[0]).all(1))
    for shift in starts:
        if np.array_equal(known[shift:], rows[: n_frames - shift]):
            return int(shift) * frame_bytes
    return int(patch.size)
