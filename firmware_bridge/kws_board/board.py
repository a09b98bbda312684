"""A board that answers: models sent once, patches in, scores out; the port is reopened where the link breaks."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from kws_board import protocol
from kws_board.board_counts import BoardCounts
from kws_board.errors import BoardError
from kws_board.image import BoardImage
from kws_board.integer_model import Int8Array
from kws_board.link import Link, LinkError, Transport
from kws_board.link_rate import BAUDS, needed_baud
from kws_board.protocol import Code, Hello, Refused, Request, Result
from kws_board.slots import Slots

HEARTBEAT_S = 1.0  # of silence after which the board is asked whether it is there
MISSES = 3  # heartbeats in a row without an answer, after which the port is reopened: one may be lost on a bad link
_REOPENINGS = 3  # for one request; then the caller is told, who may compute elsewhere
_REOPENED_S = 0.1  # waited before the second try, twice as long before the third: an adapter that was pulled comes back
_BAUD_SETTLES_S = 0.02  # for a UART to take its new rate, on both sides
_BAUD_ANSWER_S, _BEAT_ANSWER_S = 0.3, 0.5  # that a ping may take, times slow_factor
_RESETS_KEPT = 16  # times, the last ones: the service looks for three in a minute

OpenTransport = Callable[[], Transport]
T = TypeVar("T")


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
        self._slots = Slots(self._asked, self._opened, self.counts)
        self._baud: int | None = None
        self._closed = threading.Event()
        self._used_s = 0.0  # monotonic time of the last answer or beat
        self._misses = 0  # heartbeats in a row
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
                self.counts.add_link(self._link.counts)
                self._link.transport.close()
                self._link = None

    def infer(self, image: BoardImage, patch: Int8Array, layers: bool = False) -> Result:
        """Scores of one int8 patch (any shape of the input's size). Sends the image first where the board lacks it.

        Raises BoardError: refused, or no answer after reopening the port several times.
        """
        patch = np.ascontiguousarray(patch, np.int8).reshape(-1)
        if patch.size != image.model.input.size:
            raise BoardError(f"board: patch: found {patch.size} values, wanted {image.model.input.size}")
        return self._surviving(lambda: self._slots.infer(image, patch, layers))

    def timed(self, image: BoardImage, patch: Int8Array) -> float:
        """Seconds that the patch takes, link included, once the board is free. Raises BoardError."""
        with self._lock:
            began = time.monotonic()
            self.infer(image, patch)
            return time.monotonic() - began

    def load(self, image: BoardImage) -> int:
        """Send the image where the board lacks it; its slot. Raises BoardError."""
        return self._surviving(lambda: self._slots.load(image))

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
            self.hello = Hello.parse(self._asked(Request.HELLO))
            self._slots.greeted(self.hello)

    def carry(self, image: BoardImage, patch_hop_ms: float, new_frames: int) -> int | None:
        """Choose the lowest rate at which a patch with `new_frames` new frames fits every `patch_hop_ms`.

        Returns it; None: the link has no rate. Raises BoardError, saying what is needed, where no rate will do.
        """
        with self._lock:
            link = self._opened()
            if link.transport.baud is None:
                return None
            needed = needed_baud(image, new_frames, patch_hop_ms)
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
            self.counts.add_link(self._link.counts)
            self._link.transport.close()
            self._link = None
            self.counts.reopenings += 1
            self.resets_at.append(time.monotonic())

    def all_counts(self) -> BoardCounts:
        """The counts, with those of the link that is open."""
        link, counts = self._link, replace(self.counts)
        if link is not None:
            counts.add_link(link.counts)
        return counts

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
        self._slots.greeted(hello)
        return hello

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
