"""Requests over a transport: one in flight, repeated word for word until its own answer comes."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time
from dataclasses import dataclass
from typing import IO, Protocol, cast

from kws_board.errors import BoardError
from kws_board.guarded import Guarded
from kws_board.packets import MAX_PAYLOAD, BadPacket, Packet, PacketReader, encode_packet
from kws_board.protocol import ANSWER, Code, Refused, Request, number

BITS_A_BYTE = 10  # 8N1: a start bit, eight of data, a stop bit
_ANSWER_SHARE = 8  # MAX_PAYLOAD / this: bytes of an answer whose time on the wire is waited for; most are far shorter
_BAD_TRIES = 4  # packets that came damaged, for each try that a silent board gets: they are told at once
_READ_BYTES, _PIPE_BYTES = 4096, 1 << 16  # taken at once, at most: what serial drivers and pipes hold
_WRITE_S = 2.0  # that a port may refuse bytes before it counts as broken
_LAST_WORDS_BYTES, _LAST_WORDS_S = 2000, 1.0  # of a program's standard error, and that it may take to end
_SHOWN_CHARACTERS = 300  # of another library's error, in one line of ours


class LinkError(BoardError):
    """No answer came through, or the transport broke: reopening may help."""


class Transport(Protocol):
    """Bytes to and from a board."""

    name: str
    baud: int | None  # None: it has no rate

    def write(self, data: bytes) -> None:
        """Send. Raises LinkError."""

    def read(self, timeout_s: float) -> bytes:
        """What has come, at least a byte unless the time ran out. Raises LinkError where nothing can come any more."""

    def set_baud(self, baud: int) -> None:
        """Change the rate. Raises LinkError."""

    def close(self) -> None:
        """Safe to call twice."""


@dataclass
class LinkCounts:
    """What the link had to put up with."""

    requests: int = 0
    repeats: int = 0
    bad_packets: int = 0
    stray_packets: int = 0


class Link:
    """A request and its answer. Not thread-safe: its Board owns the lock."""

    def __init__(self, transport: Transport) -> None:
        self.transport, self.counts = transport, LinkCounts()
        self._reader = PacketReader()
        self._sequence = int.from_bytes(os.urandom(1), "little")  # another program's last may lie on the wire

    def ask(self, request: Request, payload: bytes = b"", timeout_s: float = 1.0, tries: int = 4) -> bytes:
        """The answer's payload. Raises Refused, or LinkError after `tries` times `timeout_s` without an answer."""
        self._sequence = self._sequence % 255 + 1  # 1-255: 0 is the answer to what could not be read
        packet = encode_packet(Packet(request, self._sequence, payload))
        self.counts.requests += 1
        if self.transport.baud is not None:  # and the time on the wire
            timeout_s += BITS_A_BYTE * (len(packet) + MAX_PAYLOAD // _ANSWER_SHARE) / self.transport.baud
        # what could not be read is told at once: such repeats cost no time, but they too have an end
        for attempt in range(_BAD_TRIES * tries):
            if attempt:
                self.counts.repeats += 1
            # a zero before it ends whatever half a packet the other side has
            self.transport.write((b"\0" if attempt else b"") + packet)
            answer = self._answer(request, time.monotonic() + timeout_s)
            if answer is not None:
                return answer
            tries -= self._timed_out
            if tries <= 0:
                break
        raise LinkError(f"board: {self.transport.name}: found no answer to {request.name.lower()}, wanted one")

    _timed_out = False  # of the last try: nothing came, so asking again costs the whole time

    def _answer(self, request: Request, until_s: float) -> bytes | None:
        """The payload of the answer; None: ask again, for it came damaged or the time ran out (`_timed_out` says).

        An answer with another sequence number is one to a request before: counted and passed over.
        """
        while (left := until_s - time.monotonic()) > 0:
            for packet in self._reader.feed(self.transport.read(left)):
                if isinstance(packet, BadPacket):
                    self.counts.bad_packets += 1
                    self._timed_out = False
                    return None
                if packet.type == Request.ERROR and packet.payload[:1] == bytes((Code.BAD_PACKET,)):
                    self.counts.bad_packets += 1
                    self._timed_out = False
                    return None
                if packet.sequence != self._sequence or packet.type not in (request | ANSWER, Request.ERROR):
                    self.counts.stray_packets += 1
                    continue
                if packet.type == Request.ERROR:
                    raise Refused(packet.payload[0] if packet.payload else 0, number(packet.payload.ljust(5, b"\0"), 1))
                return packet.payload
        self._timed_out = True
        return None


class SerialTransport:
    """A port by pyserial: /dev/ttyUSB1, a pty, socket://HOST:PORT."""

    def __init__(self, url: str, baud: int = 115_200) -> None:
        """Raises LinkError; BoardError where pyserial is missing."""
        try:
            import serial
        except ImportError as error:
            raise BoardError('found no pyserial, wanted: pip install "kws-serve[gap8]"') from error
        self.name, self.baud = url, None if url.startswith("socket:") else baud
        options = {} if self.baud is None else {"exclusive": True}
        try:
            self._port = serial.serial_for_url(url, baudrate=baud, timeout=0, write_timeout=_WRITE_S, **options)
        except (OSError, ValueError) as error:
            busy = "; another program has it" if "lock" in str(error) else ""
            raise LinkError(f"board: {url}: cannot be opened: {_one_line(error)}{busy}") from error
        with contextlib.suppress(Exception):
            self._port.reset_input_buffer()

    def write(self, data: bytes) -> None:
        """All of `data`, or as much as the port took. Raises LinkError."""
        try:
            self._port.write(data)
        except OSError as error:
            raise LinkError(f"board: {self.name}: {_one_line(error)}") from error

    def read(self, timeout_s: float) -> bytes:
        """A byte as soon as there is one, and what came with it. Raises LinkError, also where the port was closed."""
        try:
            self._port.timeout = timeout_s
            first = bytes(self._port.read(1))
            if not first:
                return b""
            self._port.timeout = 0
            return first + bytes(self._port.read(_READ_BYTES))
        except OSError as error:
            raise LinkError(f"board: {self.name}: {_one_line(error)}") from error
        except TypeError as error:  # pyserial, where another thread has closed the port
            raise LinkError(f"board: {self.name}: closed") from error

    def set_baud(self, baud: int) -> None:
        """After what is still to be sent. Raises LinkError; the rate is then unknown."""
        try:
            self._port.flush()
            self._port.baudrate = baud
        except Exception as error:  # termios has an error of its own
            raise LinkError(f"board: {self.name}: {baud} baud: {_one_line(error)}") from error
        self.baud = baud

    def close(self) -> None:
        """Free the port; safe to call twice."""
        with contextlib.suppress(OSError):
            self._port.close()


class ProcessTransport:
    """A program whose standard input and output are the link: an emulator, or the firmware built for this machine."""

    def __init__(self, name: str, command: list[str]) -> None:
        """Start it. Raises LinkError."""
        self.name = name
        self.baud: int | None = None
        try:
            self.process = Guarded(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except OSError as error:
            raise LinkError(f"board: {name}: cannot be started: {_one_line(error)}") from error
        self._poll = select.poll()
        self._poll.register(self._out, select.POLLIN)

    @property
    def _out(self) -> IO[bytes]:
        return cast("IO[bytes]", self.process.stdout)

    def write(self, data: bytes) -> None:
        """All of `data`. Raises LinkError where the program has ended."""
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[cast("IO[bytes]", self.process.stdin).write(rest) :]
        except (OSError, ValueError) as error:
            raise LinkError(f"board: {self.name}: it has ended{self._last_words()}") from error

    def read(self, timeout_s: float) -> bytes:
        """What the program has said, at most _PIPE_BYTES. Raises LinkError with its last words where it has ended."""
        try:
            if not self._poll.poll(max(1, round(1000 * timeout_s))):
                return b""
            data = os.read(self._out.fileno(), _PIPE_BYTES)
        except (OSError, ValueError) as error:
            raise LinkError(f"board: {self.name}: it has ended") from error
        if not data:
            raise LinkError(f"board: {self.name}: it has ended{self._last_words()}")
        return data

    def set_baud(self, baud: int) -> None:
        """Nothing: a pipe has no rate."""

    def close(self) -> None:
        """End the program; safe to call twice."""
        self.process.close()

    def _last_words(self) -> str:
        if self.process.wait(_LAST_WORDS_S) is None or self.process.stderr is None:
            return ""
        with contextlib.suppress(OSError, ValueError):
            return f" ({_one_line(self.process.stderr.read(_LAST_WORDS_BYTES).decode('utf-8', 'replace'))})"
        return ""


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:_SHOWN_CHARACTERS]
