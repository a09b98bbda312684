"""The service's own log: who sends garbage does not fill the disk with lines about it."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

from kws_serve.host.log_format import SAME_LINES, Sparing
from tests.support.service import Service, running
from tests.support.tiny_model import write_level_model


def test_s12_garbage_makes_few_lines(tmp_path: Path, free_port: int) -> None:
    """400 requests that are none, over the real service's door; then one line of another kind still comes."""
    with running(Service(write_level_model(tmp_path / "models").parent, free_port, tmp_path / "log")) as service:
        for _ in range(400):
            with socket.create_connection(("127.0.0.1", free_port)) as s:
                s.sendall(b"\0\1garbage\r\n\r\n")
                s.settimeout(20)
                while s.recv(4096):
                    pass
        assert service.terminate() == 0
    lines = [line for line in service.stderr.read_text().splitlines() if "Invalid HTTP" in line]
    assert 0 < len(lines) <= 2 * SAME_LINES.burst


def test_what_was_left_out_is_counted() -> None:
    now_s = 0.0
    spare = Sparing(lambda: now_s)

    def said(message: str, *values: object) -> str | None:
        record = logging.LogRecord("x", logging.WARNING, "f", 1, message, values, None)
        return record.getMessage() if spare.filter(record) else None

    most = int(SAME_LINES.burst)
    found = [said("bad %s", i) for i in range(most + 30)]
    assert found == [f"bad {i}" for i in range(most)] + [None] * 30
    assert said("another") == "another"
    now_s = 1 / SAME_LINES.per_s
    assert said("bad %s", "100%") == "bad 100% (30 more like it were left out)"
    assert said("bad %s", 1) is None
