"""A client's WebSocket frames (RFC 6455, section 5.2), found in its bytes before the library sees them.

A whole binary message in one frame, which is what audio comes in, can be taken as it is; all else goes to the library
byte for byte, so that what it says of a stream of frames holds here too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Payload: TypeAlias = npt.NDArray[np.uint8]

_WHOLE_BINARY = 0x82  # the last frame of a message, no extension, opcode 2
_LAST, _CONTROL, _MASKED, _LENGTH = 0x80, 0x08, 0x80, 0x7F

SHORT_BYTES = 64
"""A message below it is hardly audio: 2 ms of 16 kHz s16le, less than any sound card gives at once."""


class FrameSplitter:
    """Bytes in, as they come; each whole binary message to `take`, and in order with it the rest to `other`."""

    def __init__(
        self,
        take: Callable[[Payload], bool],
        other: Callable[[bytes], None],
        most: int,
        allow: Callable[[int], bool] = lambda _: True,
    ) -> None:
        """`take` answers whether it has taken the message; if not, or with more than `most` bytes, `other` gets it.
        After a close, or what no client may send, it has to answer no.

        `allow` is asked for each frame that is no audio message (its first byte), before anything is done with it; once
        it answers no, nothing more is read.
        """
        self._take = take
        self._other = other
        self._most = most
        self._allow = allow
        self._stopped = False
        self._held = bytearray()  # the beginning of a header, or of a message that `take` may get
        self._wanted = 0  # bytes to hold before it is worth a look
        self._passing = 0  # bytes of a frame that still go to `other`
        self._in_fragments = False  # between the first and the last frame of a message

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        if self._stopped:
            return
        if self._passing == 0 and not self._held and not self._in_fragments and _is_one_message(data, self._most):
            n = _payload_size(data, 0)  # as nearly always
            if not self._take(_unmasked(data, len(data) - n, n)):
                self._other(data)
            return
        if self._held:
            self._held += data
            if len(self._held) < self._wanted:
                return
            data = bytes(self._held)
            self._held.clear()
        at = passed = 0  # where the next frame begins; up to where `data` was handed on
        while at < len(data):
            if self._passing:
                n = min(self._passing, len(data) - at)
                self._passing -= n
                at += n
                continue
            head = _head_size(data, at)
            if len(data) - at < head:
                self._wanted = head
                break
            n = _payload_size(data, at)
            if data[at] != _WHOLE_BINARY or not data[at + 1] & _MASKED or self._in_fragments or n > self._most:
                if not self._allow(data[at]):
                    self._stopped = True
                    return
                self._passing = head + n
                if not data[at] & _CONTROL:
                    self._in_fragments = not data[at] & _LAST
                continue
            end = at + head + n
            if end > len(data):
                self._wanted = head + n
                break
            if n < SHORT_BYTES and not self._allow(data[at]):
                self._stopped = True
                return
            if at > passed:
                self._other(data[passed:at])
            if not self._take(_unmasked(data, at + head, n)):
                self._other(data[at:end])
            at = passed = end
        if at > passed:
            self._other(data[passed:at])
        self._held += data[at:]


def _is_one_message(data: bytes, most: int) -> bool:
    """Whether this is just one whole binary message of a size that takes a 16-bit length."""
    if len(data) < 134 or data[0] != _WHOLE_BINARY or data[1] != _MASKED | 126:
        return False
    n = data[2] << 8 | data[3]
    return len(data) == 8 + n and n <= most


def _head_size(data: bytes, at: int) -> int:
    """Bytes of a frame's header, mask included; 2 where those are not there yet."""
    if len(data) - at < 2:
        return 2
    second = data[at + 1]
    length = second & _LENGTH
    return 2 + (8 if length == 127 else 2 if length == 126 else 0) + (4 if second & _MASKED else 0)


def _payload_size(data: bytes, at: int) -> int:
    length = data[at + 1] & _LENGTH
    if length < 126:
        return length
    return int.from_bytes(data[at + 2 : at + (4 if length == 126 else 10)], "big")


def _unmasked(data: bytes, at: int, n: int) -> Payload:
    """The `n` bytes from `at` on, whose mask stands before them."""
    words = -(-n // 4)
    mask = np.frombuffer(data, np.uint32, 1, at - 4)
    if at + 4 * words > len(data):
        data, at = data[at:] + b"\0\0\0", 0
    return (np.frombuffer(data, np.uint32, words, at) ^ mask).view(np.uint8)[:n]
