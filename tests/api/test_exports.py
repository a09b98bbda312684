"""FIELD 6, S4: a long answer is for who may read it, as long as they may, and ends where it began."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from kws_serve.api.tokens import TokenFile
from tests.sinks.test_event_log import detection
from tests.support.live_server import LiveServer, live_server

ROWS = 20_000
"""About 8 MB as text: more than lies in the buffers of a connection."""


@pytest.fixture
def full(level_model: Path, tmp_path: Path) -> Iterator[tuple[LiveServer, TokenFile]]:
    file = TokenFile(tmp_path / "tokens.json")
    file.new("other", ["admin"])
    with live_server([level_model], tokens=file) as server:
        server.log.publish([detection(i) for i in range(ROWS)])
        assert server.log.flush(60)
        yield server, file


@pytest.mark.parametrize("kind", ["detections.csv", "detections.jsonl"])
def test_s4_a_revoked_token_stops_an_answer_under_way(full, kind):
    server, file = full
    headers = {"Authorization": f"Bearer {file.new('phone', ['listen'])}"}
    size = len(httpx.get(f"{server.http}/v1/{kind}", headers=headers, timeout=60).content)
    read = 0
    with httpx.stream("GET", f"{server.http}/v1/{kind}", headers=headers, timeout=60) as answer:
        parts = answer.iter_raw(4096)
        read += len(next(parts))
        file.revoke("phone")
        with pytest.raises(httpx.RemoteProtocolError):  # broken off: not to be taken for whole
            for part in parts:
                read += len(part)
    assert read < size


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_s4_an_export_ends_at_the_id_where_it_began(full, kind):
    server, file = full
    headers = {"Authorization": f"Bearer {file.new('phone', ['listen'])}"}
    with httpx.stream("GET", f"{server.http}/v1/detections.{kind}", headers=headers, timeout=60) as answer:
        lines = answer.iter_lines()
        first = next(lines)
        server.log.publish([detection(ROWS + i) for i in range(100)])
        assert server.log.flush(60)
        last = [line for line in (first, *lines) if line][-1]
    assert int(last.split(",")[0] if kind == "csv" else json.loads(last)["id"]) == ROWS
