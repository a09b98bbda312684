"""The service as a process of its own, to be killed, filled up, frozen and started again on the same log."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx


class Service:
    """`python -m kws_serve` on a port, with a log of its own."""

    def __init__(
        self, models: Path, port: int, data: Path, *flags: str, names: tuple[str, ...] = (), **environ: str
    ) -> None:
        """`models`: a folder of model folders; those of `names` are loaded, by default all."""
        self.port, self.data = port, data
        self.stderr = data.with_name(data.name + ".stderr")
        self.http, self.ws = f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}"
        loaded = names or [folder.name for folder in sorted(models.iterdir())]
        words = [word for name in loaded for word in ("--model", name)]
        self._command = [sys.executable, "-m", "kws_serve", "--port", str(port)]
        self._command += [] if "--source" in flags else ["--source", "none"]
        self._command += ["--model-dir", str(models), *words, "--data-dir", str(data), *flags]
        self._environ = {**os.environ, **environ}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def db(self) -> Path:
        return self.data / f"events-{self.port}.db"

    def start(self, wait: bool = True, *, stdout: int = subprocess.DEVNULL, stderr: int | None = None) -> float:
        """Seconds until it was ready. `stderr`: into a file of its own, unless given."""
        began = time.monotonic()
        with self.stderr.open("ab") as errors:
            self.process = subprocess.Popen(
                self._command,
                stdout=stdout,
                stderr=errors if stderr is None else stderr,
                env=self._environ,
                start_new_session=True,
            )
        while wait:
            assert self.process.poll() is None, self.stderr.read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.1):
                break
            time.sleep(0.005)
        return time.monotonic() - began

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def terminate(self, timeout_s: float = 10) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def status(self) -> dict:
        return httpx.get(f"{self.http}/v1/status", timeout=10).json()

    def rows(self) -> list[dict]:
        """The log's detections, read from the file itself."""
        with contextlib.closing(sqlite3.connect(f"file:{self.db}?mode=ro", uri=True)) as db:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute("SELECT * FROM detections ORDER BY id")]

    def integrity(self) -> str:
        with contextlib.closing(sqlite3.connect(self.db)) as db:
            return db.execute("PRAGMA integrity_check").fetchone()[0]

    def errors(self) -> list[dict]:
        """What it logged."""
        return [json.loads(line) for line in self.stderr.read_text().splitlines() if line.startswith("{")]


@contextlib.contextmanager
def running(service: Service) -> Iterator[Service]:
    service.start()
    try:
        yield service
    finally:
        if service.process is not None and service.process.poll() is None:
            service.kill()
