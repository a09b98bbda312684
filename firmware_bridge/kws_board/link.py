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

BITS_A_BYTE = 10  # 8N1


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
            timeout_s += BITS_A_BYTE * (len(packet) + MAX_PAYLOAD // 8) / self.transport.baud
        # what could not be read is told at once: such repeats cost no time, but they too have an end
        for attempt in range(4 * tries):
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

    _timed_out = False

    def _answer(self, request: Request, until: float) -> bytes | None:
        """None: ask again."""
        while (left := until - time.monotonic()) > 0:
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
            self._port = serial.serial_for_url(url, baudrate=baud, timeout=0, write_timeout=2, **options)
        except (OSError, ValueError) as error:
            busy = "; another program has it" if "lock" in str(error) else ""
            raise LinkError(f"board: {url}: cannot be opened: {_one_line(error)}{busy}") from error
        with contextlib.suppress(Exception):
            self._port.reset_input_buffer()

    def write(self, data: bytes) -> None:
        """See Transport."""
        try:
            self._port.write(data)
        except OSError as error:
            raise LinkError(f"board: {self.name}: {_one_line(error)}") from error

    def read(self, timeout_s: float) -> bytes:
        """See Transport."""
        try:
            self._port.timeout = timeout_s
            first = bytes(self._port.read(1))
            if not first:
                return b""
            self._port.timeout = 0
            return first + bytes(self._port.read(4096))
        except OSError as error:
            raise LinkError(f"board: {self.name}: {_one_line(error)}") from error
        except TypeError as error:  # pyserial, where another thread has closed the port
            raise LinkError(f"board: {self.name}: closed") from error

    def set_baud(self, baud: int) -> None:
        """See Transport."""
        try:
            self._port.flush()
            self._port.baudrate = baud
        except Exception as error:  # termios has an error of its own
            raise LinkError(f"board: {self.name}: {baud} baud: {_one_line(error)}") from error
        self.baud = baud

    def close(self) -> None:
        """See Transport."""
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
        """See Transport."""
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[cast("IO[bytes]", self.process.stdin).write(rest) :]
        except (OSError, ValueError) as error:
            raise LinkError(f"board: {self.name}: it has ended{self._last_words()}") from error

    def read(self, timeout_s: float) -> bytes:
        """See Transport."""
        try:
            if not self._poll.poll(max(1, round(1000 * timeout_s))):
                return b""
            data = os.read(self._out.fileno(), 1 << 16)
        except (OSError, ValueError) as error:
            raise LinkError(f"board: {self.name}: it has ended") from error
        if not data:
            raise LinkError(f"board: {self.name}: it has ended{self._last_words()}")
        return data

    def set_baud(self, baud: int) -> None:
        """See Transport."""

    def close(self) -> None:
        """See Transport."""
        self.process.close()

    def _last_words(self) -> str:
        if self.process.wait(1.0) is None or self.process.stderr is None:
            return ""
        with contextlib.suppress(OSError, ValueError):
            return f" ({_one_line(self.process.stderr.read(2000).decode('utf-8', 'replace'))})"
        return ""


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:300]
