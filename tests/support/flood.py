"""What one who means no good can send, as fast as it goes: a process of its own, so that it disturbs the service only.

python -m tests.support.flood KIND PORT TOKEN SECONDS CONNECTIONS
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable

from tests.support.websocket_frames import CLOSE, PING, TEXT, frame, unpacked

MANY = 500
"""Frames or requests in one write."""


class Flood:
    """One flood: what came back, by HTTP status or close code; "lost" for a connection that just ended."""

    def __init__(self, port: int, token: str, seconds: float) -> None:
        self.port, self.token = port, token
        self.until_s = time.monotonic() + seconds
        self.answers: Counter[str] = Counter()
        self.sent = 0

    @property
    def going(self) -> bool:
        return time.monotonic() < self.until_s

    def connect(self) -> socket.socket:
        found = socket.create_connection(("127.0.0.1", self.port), timeout=15)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return found

    def head(self, path: str, method: str = "GET", *, token: bool = False, more: str = "") -> bytes:
        bearer = f"Authorization: Bearer {self.token}\r\n" if token else ""
        return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{bearer}{more}\r\n".encode()

    def frames(self, path: str, some: bytes, *, token: bool) -> None:
        """A WebSocket, and the same frames on it again and again until it is closed."""
        upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        upgrade += "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        with self.connect() as s:
            s.sendall(self.head(path, token=token, more=upgrade))
            got = b""
            while b"\r\n\r\n" not in got:
                part = s.recv(4096)
                if not part:
                    self.answers["lost"] += 1
                    return
                got += part
            answer, _, got = got.partition(b"\r\n\r\n")
            if b" 101 " not in answer[:20]:
                self.answers[answer[9:12].decode()] += 1
                return
            s.setblocking(False)
            left = some
            while self.going:
                with contextlib.suppress(BlockingIOError):
                    n = s.send(left)
                    self.sent += n
                    left = left[n:] or some
                with contextlib.suppress(BlockingIOError):
                    part = s.recv(65536)
                    got += part
                    while (found := unpacked(got)) is not None:
                        opcode, payload, got = found
                        if opcode == CLOSE:
                            self.answers[str(struct.unpack(">H", payload[:2])[0])] += 1
                            return
                    if not part:
                        self.answers["lost"] += 1
                        return

    def requests(self, request: bytes) -> None:
        """A request after each answer, on one connection for as long as it lasts."""
        with self.connect() as s, s.makefile("rb") as lines:
            while self.going:
                s.sendall(request)
                self.sent += len(request)
                if not self.answer(lines):
                    return

    def answer(self, lines) -> bool:
        """Read one; False where the connection is to be closed."""
        status = lines.readline()
        if not status:
            self.answers["lost"] += 1
            return False
        self.answers[status[9:12].decode()] += 1
        headers = {}
        while (line := lines.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip().lower()
        if b"content-length" in headers:
            lines.read(int(headers[b"content-length"]))
        else:
            while n := int(lines.readline() or b"0", 16):
                lines.read(n + 2)
            lines.readline()
        return headers.get(b"connection") != b"close"

    def pipeline(self, request: bytes) -> None:
        """Requests without waiting for answers, which are read all the same."""
        with self.connect() as s:
            reading = threading.Thread(target=self._drain, args=(s,))
            reading.start()
            with contextlib.suppress(TimeoutError):
                s.settimeout(1.0)
                while self.going and reading.is_alive():
                    with contextlib.suppress(TimeoutError):
                        self.sent += s.send(request * MANY)
            s.shutdown(socket.SHUT_RDWR)
            reading.join()

    def _drain(self, s: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while part := s.recv(65536):
                self.answers["200"] += part.count(b"HTTP/1.1 200")
                self.answers["429"] += part.count(b"HTTP/1.1 429")


def kinds(flood: Flood) -> dict[str, Callable[[], None]]:
    """Name -> what is done again and again."""
    patch = b'{"*":{"refractory_s":1.0}}'
    length = f"Content-Length: {len(patch)}\r\n"
    change = flood.head("/v1/models/level/detection", "PATCH", token=True, more=length) + patch
    ping, text = frame(PING) * MANY, frame(TEXT, b'{"type":"auth"}') * MANY
    return {
        "pings": lambda: flood.frames("/v1/audio?stream=x", ping, token=False),
        "pings-token": lambda: flood.frames("/v1/detections", ping, token=True),
        "texts": lambda: flood.frames("/v1/detections", text, token=True),
        "short-audio": lambda: flood.frames("/v1/audio?stream=short", frame(2, b"\0\0") * MANY, token=True),
        "unauthorised": lambda: flood.requests(flood.head("/v1/status")),
        "changes": lambda: flood.requests(change),
        "exports": lambda: flood.requests(flood.head("/v1/detections.csv", token=True)),
        "pages": lambda: flood.requests(flood.head("/v1/detections?limit=1000", token=True)),
        "replays": lambda: flood.frames("/v1/detections?after=0", b"", token=True),
        "files": lambda: flood.requests(flood.head("/kws-client.js")),
        "connections": lambda: flood.connect().close(),
        "pipelined": lambda: flood.pipeline(flood.head("/")),
    }


def main() -> None:
    """Prints what came back as JSON."""
    kind, port, token, seconds, connections = sys.argv[1:]
    flood = Flood(int(port), token, float(seconds))
    once = kinds(flood)[kind]

    def again() -> None:
        while flood.going:
            with contextlib.suppress(OSError):
                once()

    threads = [threading.Thread(target=again) for _ in range(int(connections))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"answers": flood.answers, "sent": flood.sent}))


if __name__ == "__main__":
    main()
