"""FIELD 6: whoever sends much that is no audio is slowed or sent away; live audio goes on.

By default it is asserted what each guard does; at the full counts also that the 99th percentile of the live latency
stays below 1.5 times what it was without the flood.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from kws_serve.api.guard import RATES
from kws_serve.sinks.store import Store
from kws_serve.transport.budget import Rate
from kws_serve.transport.http_protocol import CONNECTIONS
from tests.campaigns.proof import FULL, count, record
from tests.sinks.test_event_log import detection
from tests.support.service import Service, running
from tests.support.witness import latencies_ms

pytestmark = pytest.mark.alone

TOKEN = "secret"
SECONDS = 30.0 if FULL else 1.5
ROWS = count(30_000, 3000)
SETTLE_S = 3.0 if FULL else 1.0  # until the budgets are full again, or nearly
WORSE = 1.5
CONNECTIONS_OF_ONE = [1, 10] if FULL else [10]


@pytest.fixture(scope="module")
def service(level_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """With a full log, and on one core."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    found = Service(level_model.parent, port, tmp_path_factory.mktemp("floods") / "log", KWS_TOKEN=TOKEN)
    store = Store(found.db)
    store.append([replace(detection(i, stream="old", at=time.time()), id=i + 1) for i in range(ROWS)])
    store.close()
    with running(found):
        assert found.process is not None
        os.sched_setaffinity(found.process.pid, {sorted(os.sched_getaffinity(0))[0]})
        yield found


async def flooded(service: Service, kind: str, connections: int) -> tuple[Counter[str], float]:
    """What came back of a flood, how long it lasted in s; live audio without a fault and a ready service meanwhile."""
    before, _ = await latencies_ms(service.ws, SECONDS, TOKEN) if FULL else ([], [])
    began_s = time.monotonic()
    words = [kind, str(service.port), TOKEN, str(SECONDS), str(connections)]
    flood = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.flood", *words, stdout=asyncio.subprocess.PIPE
    )
    witness = asyncio.create_task(latencies_ms(service.ws, SECONDS, TOKEN))
    async with httpx.AsyncClient(timeout=30) as client:
        while not witness.done():
            assert (await client.get(f"{service.http}/readyz")).status_code == 200
            await asyncio.wait({witness}, timeout=0.5)
    during, faults = await witness
    out, _ = await flood.communicate()
    lasted_s = time.monotonic() - began_s
    assert not faults
    answers = Counter(json.loads(out)["answers"])
    if FULL:
        p50, p99 = ([float(np.percentile(x, q)) for x in (before, during)] for q in (50, 99))
        told = f"p50 {p50[0]:.0f} ms before, {p50[1]:.0f} during; p99 {p99[0]:.0f} before, {p99[1]:.0f} during"
        record(f"flood {kind}", f"{connections} connections, {SECONDS:.0f} s", f"live latency {told}")
        assert p99[1] < WORSE * p99[0]
    for _ in range(30):  # a connection of its own each: those before it have their turn first
        await asyncio.sleep(SETTLE_S)
        if httpx.get(f"{service.http}/readyz", timeout=30).status_code == 200:
            return answers, lasted_s
    raise AssertionError("readyz: found no 200 after the flood")


def most(rate: Rate, lasted_s: float) -> float:
    """What a budget allows in that time."""
    return rate.burst + rate.per_s * lasted_s


@pytest.mark.parametrize("connections", CONNECTIONS_OF_ONE)
@pytest.mark.parametrize("kind", ["pings", "pings-token", "texts", "short-audio"])
async def test_frames_that_are_no_audio_close_the_connection(service, kind, connections):
    answers, lasted_s = await flooded(service, kind, connections)
    assert answers["1008"] > 0
    assert set(answers) <= {"1008", "lost", "4409"}  # 4409: the same stream's name on another connection
    assert answers.total() <= most(CONNECTIONS, lasted_s)


@pytest.mark.parametrize("connections", CONNECTIONS_OF_ONE)
@pytest.mark.parametrize(
    "kind, budget, status", [("unauthorised", "read", "401"), ("changes", "change", "200"), ("files", "page", "200")]
)
async def test_requests_wait_for_their_turn(service, kind, budget, status, connections):
    answers, lasted_s = await flooded(service, kind, connections)
    assert 0 < answers[status] <= most(RATES[budget], lasted_s)
    assert set(answers) <= {status, "lost"}


async def test_a_line_that_is_too_long_is_told(service):
    """More connections than have their turn within 4 s."""
    answers, lasted_s = await flooded(service, "changes", 150)
    assert 0 < answers["200"] <= most(RATES["change"], lasted_s)
    assert answers["429"] > 0


@pytest.mark.parametrize("kind", ["exports", "pages", "replays"])
async def test_long_answers_leave_live_audio_its_time(service, kind):
    answers, _ = await flooded(service, kind, 8)
    assert set(answers) <= {"200", "lost"}


async def test_connections_that_come_and_go_wait_at_the_door(service):
    await flooded(service, "connections", 4)


async def test_pipelined_requests_wait_in_the_kernel(service):
    """What a peer sends behind the request in hand is its own to keep."""
    assert service.process is not None
    process = psutil.Process(service.process.pid)
    before = process.memory_info().rss
    answers, lasted_s = await flooded(service, "pipelined", 1)
    grown = process.memory_info().rss - before
    assert 0 < answers["200"] <= most(RATES["page"], lasted_s)
    assert grown < 20e6
    record("pipelined", f"`GET /` without end for {SECONDS:.0f} s", f"memory grew {grown / 1e6:.1f} MB")
