"""FIELD 7: kill -9 and SIGTERM at random points under load, watched from outside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import websockets
from websockets.exceptions import ConnectionClosed

from kws_serve.client import KwsClient
from tests.campaigns.proof import FULL, count, record
from tests.support.service import Service, running
from tests.support.streams import RATE, expected, feed, words

STREAMS = 4


class Watcher:
    """A subscriber that comes back after its last id; what it has seen."""

    def __init__(self, service: Service) -> None:
        self.url = f"{service.ws}/v1/detections"
        self.seen: list[dict] = []
        self.gaps: list[dict] = []

    async def run(self) -> None:
        while True:
            last = self.seen[-1]["id"] if self.seen else 0
            with contextlib.suppress(OSError, ConnectionClosed, websockets.InvalidHandshake, EOFError):
                async with websockets.connect(f"{self.url}?after={last}", open_timeout=5) as ws:
                    async for text in ws:
                        message = json.loads(text)
                        if message["type"] == "detection":
                            self.seen.append(message)
                        elif message["type"] == "log_gap":
                            self.gaps.append(message)
            await asyncio.sleep(0.02)


async def under_load(model: Path, service: Service, cycles: Iterable, stop, seed: int) -> tuple[Watcher, list[float]]:
    """Streams that are fed in real time while `stop` does its worst to the service, which is started again; checks
    everything.
    """
    rng = random.Random(seed)
    starts: list[float] = []
    watcher = Watcher(service)
    watching = asyncio.create_task(watcher.run())
    running_still = True

    async def stream(i: int) -> list[tuple[str, int]]:
        audio = words(5 + i, seed=seed + i)
        fed = 0
        async with KwsClient(service.http) as client, client.audio(f"voice-{i}") as sender:
            while running_still or fed == 0:
                await feed(sender, audio, end=False)
                fed += 1
            await sender.end()
            messages = [m async for m in sender]
        assert messages[-1] == {"type": "done", "samples": fed * len(audio)}
        assert not [m for m in messages if m["type"] in ("gap", "error")]
        return await asyncio.to_thread(expected, model, np.tile(audio, fed))

    streams = [asyncio.create_task(stream(i)) for i in range(STREAMS)]
    for _ in cycles:
        await asyncio.sleep(rng.uniform(0.1, 2.0))
        await asyncio.to_thread(stop, service)
        if service.process.poll() is not None:
            starts.append(await asyncio.to_thread(service.start))
    running_still = False
    wanted = await asyncio.gather(*streams)
    rows = service.rows()
    for _ in range(500):
        if watcher.seen and watcher.seen[-1]["id"] == rows[-1]["id"]:
            break
        await asyncio.sleep(0.02)
    watching.cancel()
    assert [row["id"] for row in rows] == list(range(1, len(rows) + 1))
    assert len({row["uid"] for row in rows}) == len(rows)
    assert [(d["id"], d["uid"]) for d in watcher.seen] == [(row["id"], row["uid"]) for row in rows]
    assert not watcher.gaps
    for i in range(STREAMS):
        mine = [(row["label"], row["start_sample"]) for row in rows if row["stream"] == f"voice-{i}"]
        assert mine == wanted[i], f"voice-{i}"
    return watcher, starts


def kill(service: Service) -> None:
    service.kill()


def terminate(service: Service) -> None:
    assert service.terminate(5) == 0


@pytest.mark.parametrize("row, stop", [("kill -9", kill), ("SIGTERM", terminate)])
async def test_nothing_is_lost_or_told_twice(level_model, tmp_path, free_port, row, stop):
    """Every detection that the audio has, once, in the log and at the subscriber; every sample accounted for."""
    n = count(200) if FULL else 5
    with running(Service(level_model.parent, free_port, tmp_path / "log")) as service:
        watcher, starts = await under_load(level_model, service, range(n), stop, seed=7)
        assert service.integrity() == "ok"
    starts.sort()
    record(
        row,
        f"{n} under {STREAMS} live streams",
        f"{len(watcher.seen)} detections, 0 lost, 0 twice; ready again after {starts[len(starts) // 2]:.2f} s "
        f"(median), {starts[-1]:.2f} s at most",
    )


async def test_sigterm_says_1012_and_flushes_first(level_model, tmp_path, free_port):
    """What was heard before the signal is pushed before the door shuts."""
    with running(Service(level_model.parent, free_port, tmp_path / "log")) as service:
        async with (
            websockets.connect(f"{service.ws}/v1/detections") as listener,
            websockets.connect(f"{service.ws}/v1/audio?stream=last") as ws,
        ):
            await listener.recv()
            await ws.send(words(1.0)[: RATE // 2].tobytes())
            assert await asyncio.to_thread(service.terminate) == 0
            messages = []
            with contextlib.suppress(ConnectionClosed):
                while True:
                    messages.append(json.loads(await listener.recv()))
        assert [m["label"] for m in messages] == ["loud"]
        assert listener.close_code == 1012
        assert [row["uid"] for row in service.rows()] == [messages[0]["uid"]]
    assert not service.errors()
