"""A board that answers: models sent once, patches in, scores out; the port is reopened where the link breaks."""

from __future__ import annotations

import hashlib
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from kws_board import protocol
from kws_board.errors import BoardError
from kws_board.image import BoardImage
from kws_board.integer_model import Int8Array
from kws_board.link import BITS_A_BYTE, Link, LinkError, Transport
from kws_board.packets import OVERHEAD
from kws_board.protocol import Code, Hello, Refused, Request, Result

BAUDS = (115_200, 230_400, 460_800, 921_600)  # bits a second that usual USB bridges can do; a board starts at the first
HEARTBEAT_S = 1.0  # of silence after which the board is asked whether it is there
MISSES = 3  # heartbeats in a row without an answer, after which the port is reopened: one may be lost on a bad link
_REOPENINGS = 3  # for one request; then the caller is told, who may compute elsewhere
_REOPENED_S = 0.1  # waited before the second try, twice as long before the third: an adapter that was pulled comes back
_CHUNK_BYTES, _LEAST_CHUNK_BYTES = 2048, 64  # of an image in one packet; halved while the link damages them
_MOST_REPEATS = 1  # of one chunk, before its size is halved
_FIRST_INFERENCE_S = 10.0  # nothing is known of its time yet; of a simulator it is times slow_factor, as all
_LOST_AFTER, _LEAST_WAIT_S = 5.0, 0.5  # times the slowest inference so far, and at least as long: then it is lost
_TRIES = 2  # of an inference: a repeated patch costs its whole time on the link
_LINK_SHARE = 0.8  # of the time that the link may be busy: the rest is for repeats and heartbeats
_BAUD_SETTLES_S = 0.02  # for a UART to take its new rate, on both sides
_BAUD_ANSWER_S, _BEAT_ANSWER_S = 0.3, 0.5  # that a ping may take, times slow_factor
_RESETS_KEPT = 16  # times, the last ones: the service looks for three in a minute
_FRAMES_BYTES, _RESULT_BYTES = 6, 14  # of a payload before its values: protocol.frames, Result
_WIRE_BYTES = OVERHEAD + 3  # of a packet beside its payload: COBS adds one in each 254 bytes, and the zero

OpenTransport = Callable[[], Transport]
T = TypeVar("T")


@dataclass
class _Resident:
    """An image on the board, and what its slot's ring holds."""

    slot: int
    patch: Int8Array | None = None
    slowest_s: float | None = None  # of its inferences


@dataclass
class BoardCounts:
    """What happened since the board was opened."""

    inferences: int = 0
    frames_sent: int = 0  # inferences for which only new frames went over the link
    reopenings: int = 0
    resets: int = 0  # the board had lost its models
    requests: int = 0
    repeats: int = 0
    bad_packets: int = 0
    stray_packets: int = 0


def _with_link(counts: BoardCounts, link: Link) -> BoardCounts:
    names = ("requests", "repeats", "bad_packets", "stray_packets")
    return replace(counts, **{name: getattr(counts, name) + getattr(link.counts, name) for name in names})


@dataclass
class Board:
    """One board, for any number of models and threads. `open` before use."""

    open_transport: OpenTransport
    slow_factor: float = 1.0  # timeouts of a simulator
    heartbeat_s: float = HEARTBEAT_S
    counts: BoardCounts = field(default_factory=BoardCounts)
    hello: Hello | None = None
    resets_at: deque[float] = field(default_factory=lambda: deque(maxlen=_RESETS_KEPT))
    """Monotonic times at which the link was opened anew."""

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._link: Link | None = None
        self._resident: dict[bytes, _Resident] = {}
        self._baud: int | None = None
        self._closed = threading.Event()
        self._used_s = 0.0  # monotonic time of the last answer or beat
        self._misses = 0  # heartbeats in a row
        self._chunk_bytes = _CHUNK_BYTES
        self._heart: threading.Thread | None = None

    @property
    def name(self) -> str:
        """The port, and the chip that answers."""
        port = self._link.transport.name if self._link else "closed"
        return f"{port} ({self.hello.chip})" if self.hello else port

    def open(self) -> Hello:
        """Open the port and greet the board. Raises BoardError: no port, no answer, another protocol."""
        with self._lock:
            hello = self._open_link()
            if self._heart is None and self.heartbeat_s > 0:
                self._heart = threading.Thread(target=self._beat, name="kws-board-heartbeat", daemon=True)
                self._heart.start()
            return hello

    def close(self) -> None:
        """Free the port. Safe to call twice."""
        self._closed.set()
        with self._lock:
            if self._link is not None:
                self._count(self._link)
                self._link.transport.close()
                self._link = None

    def infer(self, image: BoardImage, patch: Int8Array, layers: bool = False) -> Result:
        """Scores of one int8 patch (any shape of the input's size). Sends the image first where the board lacks it.

        Raises BoardError: refused, or no answer after reopening the port several times.
        """
        patch = np.ascontiguousarray(patch, np.int8).reshape(-1)
        if patch.size != image.model.input.size:
            raise BoardError(f"board: patch: found {patch.size} values, wanted {image.model.input.size}")
        return self._surviving(lambda: self._infer(image, patch, layers))

    def timed(self, image: BoardImage, patch: Int8Array) -> float:
        """Seconds that the patch takes, link included, once the board is free. Raises BoardError."""
        with self._lock:
            began = time.monotonic()
            self.infer(image, patch)
            return time.monotonic() - began

    def load(self, image: BoardImage) -> int:
        """Send the image where the board lacks it; its slot. Raises BoardError."""
        return self._surviving(lambda: self._load(image).slot)

    def ping(self, payload: bytes = b"") -> float:
        """Seconds until the same bytes came back. Raises BoardError."""

        def once() -> float:
            began = time.monotonic()
            if self._asked(Request.PING, payload) != payload:
                raise LinkError("board: ping: found other bytes, wanted the same")
            return time.monotonic() - began

        return self._surviving(once)

    def reset(self) -> None:
        """Make the board forget its models. Raises BoardError."""
        with self._lock:
            self._asked(Request.RESET)
            self._resident.clear()
            self.hello = Hello.parse(self._asked(Request.HELLO))

    def carry(self, image: BoardImage, patch_hop_ms: float, new_frames: int) -> int | None:
        """Choose the lowest rate at which a patch with `new_frames` new frames fits every `patch_hop_ms`.

        Returns it; None: the link has no rate. Raises BoardError, saying what is needed, where no rate will do.
        """
        with self._lock:
            link = self._opened()
            if link.transport.baud is None:
                return None
            # bits of one inference / patch hop = bits a second that must go through in _LINK_SHARE of the time
            needed = link_bits(image, new_frames) / (patch_hop_ms / 1000.0) / _LINK_SHARE
            fitting = [baud for baud in BAUDS if baud >= needed]
            if not fitting:
                found = f"a patch hop of {patch_hop_ms:g} ms, which needs {needed:.0f} baud"
                raise BoardError(f"board: {link.transport.name}: found {found}, wanted at most {BAUDS[-1]} baud")
            if fitting[0] > link.transport.baud:
                self._set_baud(link, fitting[0])
            return link.transport.baud

    def _set_baud(self, link: Link, baud: int) -> None:
        """Ask for the rate at the old one, then a ping at the new one. Raises LinkError; the rates may then differ."""
        link.ask(Request.SET_BAUD, baud.to_bytes(4, "little"))
        link.transport.set_baud(baud)
        time.sleep(_BAUD_SETTLES_S)
        link.ask(Request.PING, b"baud", _BAUD_ANSWER_S * self.slow_factor)
        self._baud = baud

    def _opened(self) -> Link:
        if self._closed.is_set():
            raise BoardError("board: found it closed, wanted open")
        if self._link is None:
            self._open_link()
        assert self._link is not None
        return self._link

    def _asked(self, request: Request, payload: bytes = b"", timeout_s: float = 1.0, tries: int = 4) -> bytes:
        with self._lock:
            answer = self._opened().ask(request, payload, timeout_s * self.slow_factor, tries)
            self._used_s, self._misses = time.monotonic(), 0
            return answer

    def _surviving(self, action: Callable[[], T]) -> T:
        """The action's value, the port reopened and the action begun again where the link breaks.

        Raises what the action raises where reopening does not help; a link that broke is then closed.
        """
        for attempt in range(_REOPENINGS + 1):
            with self._lock:
                try:
                    return action()
                except LinkError:
                    self._drop_link()
                    if attempt == _REOPENINGS:
                        raise
                except Refused as refusal:
                    if refusal.code not in (Code.BAD_SLOT, Code.BAD_OFFSET) or attempt == _REOPENINGS:
                        raise
                    self._greet(self._opened())  # it was reset between two requests
            if attempt:
                self._closed.wait(_REOPENED_S * attempt)
        raise AssertionError

    def _drop_link(self) -> None:
        if self._link is not None:
            self._count(self._link)
            self._link.transport.close()
            self._link = None
            self.counts.reopenings += 1
            self.resets_at.append(time.monotonic())

    def all_counts(self) -> BoardCounts:
        """The counts, with those of the link that is open."""
        link = self._link
        return _with_link(self.counts, link) if link is not None else replace(self.counts)

    def _count(self, link: Link) -> None:
        self.counts = _with_link(self.counts, link)

    def _open_link(self) -> Hello:
        link = Link(self.open_transport())
        try:
            hello = self._greet(link)
            if self._baud is not None and link.transport.baud is not None and self._baud > link.transport.baud:
                self._set_baud(link, self._baud)
        except BoardError:
            link.transport.close()
            raise
        self._link, self._misses, self._used_s = link, 0, time.monotonic()
        return hello

    def _greet(self, link: Link) -> Hello:
        link.transport.write(b"\0")  # ends what another program left half sent
        # what a board gets while it starts is lost: ask often rather than wait long
        hello = Hello.parse(
            link.ask(Request.HELLO, b"", min(1.0, self.slow_factor), max(4, round(4 * self.slow_factor)))
        )
        if hello.firmware != protocol.FIRMWARE:
            raise BoardError(
                f"board: firmware: found {hello.firmware}, wanted {protocol.FIRMWARE}; flash this version's firmware"
            )
        if self.hello is not None and hello.boot_id != self.hello.boot_id:
            self.counts.resets += 1
        self.hello = hello
        self._resident = {digest: _Resident(slot) for slot, digest in enumerate(hello.digests)}
        return hello

    def _load(self, image: BoardImage) -> _Resident:
        """Where the image lies on the board, sent first where it is not there.

        Raises BoardError; what was sent stays on the board, and BEGIN says from which offset to go on.
        """
        digest = hashlib.sha256(image.content).digest()[: protocol.DIGEST_BYTES]
        self._opened()
        if digest in self._resident:
            return self._resident[digest]
        assert self.hello is not None
        if image.plan.arena_bytes > self.hello.arena_bytes:
            found, has = image.plan.arena_bytes, self.hello.arena_bytes
            raise BoardError(f"board: {image.model.name}: maps: found {found} bytes, wanted at most {has}")
        answer = self._asked(Request.BEGIN, protocol.begin(image.content, zlib.crc32(image.content), digest))
        slot, offset = answer[0], protocol.number(answer, 1)
        # The board's answer says how much it has: an image half sent is gone on with, a repeated chunk counts once.
        #     image   |======== on the board ========|-- part --|                |
        #                                            ^ offset                    ^ len(content): COMMIT gives the slot
        while slot == protocol.NO_SLOT and offset < len(image.content):
            part, repeats = image.content[offset : offset + self._chunk_bytes], self._opened().counts.repeats
            try:
                offset = protocol.number(self._asked(Request.CHUNK, protocol.chunk(offset, part)))
            finally:
                if self._opened().counts.repeats > repeats + _MOST_REPEATS:
                    self._chunk_bytes = max(_LEAST_CHUNK_BYTES, self._chunk_bytes // 2)
        if slot == protocol.NO_SLOT:
            slot = self._asked(Request.COMMIT)[0]
        self._resident[digest] = _Resident(slot)
        return self._resident[digest]

    def _infer(self, image: BoardImage, patch: Int8Array, layers: bool) -> Result:
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
                result = Result.parse(self._asked(Request.FRAMES, payload, timeout_s, _TRIES))
                self.counts.frames_sent += 1
            except Refused as refusal:
                if refusal.code != Code.OTHER_PATCH:
                    raise
                new = patch.size
        if new == patch.size:
            payload = protocol.infer(resident.slot, patch, layers)
            result = Result.parse(self._asked(Request.INFER, payload, timeout_s, _TRIES))
        if result.slot != resident.slot or result.scores.size != image.model.output.size:
            raise LinkError(f"board: result: found {result.scores.size} scores of slot {result.slot}")
        resident.patch = patch
        resident.slowest_s = max(resident.slowest_s or 0.0, time.monotonic() - began)
        self.counts.inferences += 1
        return result

    def _beat(self) -> None:
        """Ask an idle board whether it is there; after MISSES times without an answer the port is reopened."""
        while not self._closed.wait(self.heartbeat_s / 4):
            if time.monotonic() - self._used_s < self.heartbeat_s or not self._lock.acquire(blocking=False):
                continue
            try:
                if self._link is None:
                    self._used_s = time.monotonic()
                    self._open_link()
                    continue
                self._used_s = time.monotonic()
                self._link.ask(Request.PING, b"beat", _BEAT_ANSWER_S * self.slow_factor, tries=1)
                self._misses = 0
            except BoardError:
                self._misses += 1
                if self._misses >= MISSES:
                    self._drop_link()
                    self._misses = 0
            finally:
                self._lock.release()


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


def link_bits(image: BoardImage, new_frames: int) -> int:
    """Bits of one inference on the wire, both ways, where `new_frames` of the patch are new."""
    sent = _FRAMES_BYTES + min(image.model.input.size, new_frames * image.model.frame_size)
    received = _RESULT_BYTES + image.model.output.size
    return BITS_A_BYTE * (sent + received + 2 * _WIRE_BYTES)
