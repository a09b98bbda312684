"""Transports that damage what passes, and a board behind a real pty."""

from __future__ import annotations

import contextlib
import os
import pty
import random
import subprocess
import threading
import time
import tty
from collections.abc import Iterator

from kws_board.link import LinkError, ProcessTransport


class Faulty:
    """A transport that loses, changes or adds bytes at random, in both directions."""

    def __init__(self, inner: ProcessTransport, rate: float, rng: random.Random) -> None:
        self.inner, self.rate, self.rng = inner, rate, rng
        self.name, self.baud = "faulty", inner.baud
        self.faults = 0

    def damage(self, data: bytes) -> bytes:
        out = bytearray()
        for byte in data:
            if self.rng.random() >= self.rate:
                out.append(byte)
                continue
            self.faults += 1
            match self.rng.randrange(3):
                case 0:
                    out.append(byte ^ (1 << self.rng.randrange(8)))
                case 1:
                    out += bytes((byte, self.rng.randrange(256)))
        return bytes(out)

    def write(self, data: bytes) -> None:
        self.inner.write(self.damage(data))

    def read(self, timeout_s: float) -> bytes:
        return self.damage(self.inner.read(timeout_s))

    def set_baud(self, baud: int) -> None:
        self.inner.set_baud(baud)

    def close(self) -> None:
        self.inner.close()


class Resetting(Faulty):
    """A board that forgets everything now and then: the process is ended and begun anew."""

    def __init__(self, command: list[str], every: int) -> None:
        super().__init__(ProcessTransport("resetting", command), 0.0, random.Random(0))
        self.command, self.every, self.writes, self.resets = command, every, 0, 0

    def write(self, data: bytes) -> None:
        self.writes += 1
        if self.writes % self.every == 0:
            self.inner.close()
            self.inner = ProcessTransport("resetting", self.command)
            self.resets += 1
        super().write(data)


@contextlib.contextmanager
def on_a_pty(command: list[str], bytes_a_second: float | None = None) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The firmware behind a pty, its bytes paced as a UART's would be; the pty's name and the program."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    tty.setraw(master)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert process.stdin is not None and process.stdout is not None

    def carry(source: int, target: int) -> None:
        """Bytes leave no faster than the wire lets them."""
        free_at = time.monotonic()
        with contextlib.suppress(OSError):
            while data := os.read(source, 64):
                if bytes_a_second:
                    free_at = max(free_at, time.monotonic()) + len(data) / bytes_a_second
                    time.sleep(max(0.0, free_at - time.monotonic()))
                os.write(target, data)

    ends = [(master, process.stdin.fileno()), (process.stdout.fileno(), master)]
    threads = [threading.Thread(target=carry, args=pair, daemon=True) for pair in ends]
    for thread in threads:
        thread.start()
    try:
        yield os.ttyname(slave), process
    finally:
        process.kill()
        process.wait()
        os.close(slave)
        os.close(master)


class Silent:
    """A port on which nobody answers, or only noise."""

    name = "silent"
    baud = None

    def __init__(self, noise: random.Random | None = None) -> None:
        self.noise = noise
        self.closed = False

    def write(self, data: bytes) -> None:
        if self.closed:
            raise LinkError("closed")

    def read(self, timeout_s: float) -> bytes:
        time.sleep(min(timeout_s, 0.01))
        return self.noise.randbytes(200) if self.noise else b""

    def set_baud(self, baud: int) -> None:
        pass

    def close(self) -> None:
        self.closed = True
