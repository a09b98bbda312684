"""The same audio live over a WebSocket, through kws-detect and in random cuts: the same detections three times."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import websockets

from kws_serve.commands.loading import new_engine
from kws_serve.config import load_settings
from kws_serve.messages import Detection
from tests.support.scene import RATE_HZ, lay, load, noise_bed, validation_clips

SECONDS = int(os.environ.get("KWS_THREE_WAYS_SECONDS", "20"))
WORDS = {"yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"}

pytestmark = pytest.mark.recordings


def essence(detections: list[dict[str, object]]) -> list[tuple[object, ...]]:
    keys = ("model", "decided_s", "label", "phase", "start_sample", "start_s")
    return sorted(tuple(d[k] for k in keys) for d in detections)


def in_random_cuts(audio: np.ndarray) -> list[dict[str, object]]:
    """Through the engine directly, 1 to 5000 samples at a time."""
    engine = new_engine(load_settings({})[0])
    stream = engine.open_stream("cuts", RATE_HZ, live=False)
    rng, at, events = random.Random(7), 0, []
    while at < len(audio):
        size = rng.randrange(1, 5000)
        stream.push(audio[at : at + size], 0.0)
        at += size
        while engine.busy:
            events += engine.tick()
    stream.end()
    while engine.busy:
        events += engine.tick()
    found = [e for e in events if isinstance(e, Detection)]
    return [{k: getattr(e, k) for k in (*Detection.__dataclass_fields__,)} for e in found]


async def live(audio: np.ndarray, port: int) -> list[dict[str, object]]:
    """In real time over a WebSocket, 100 ms at a time."""
    async with websockets.connect(f"ws://127.0.0.1:{port}/v1/audio?stream=live&rate={RATE_HZ}&format=s16le") as ws:

        async def send() -> None:
            began = time.monotonic()
            for at in range(0, len(audio), 1600):
                await asyncio.sleep(began + at / RATE_HZ - time.monotonic())
                await ws.send(audio[at : at + 1600].tobytes())
            await ws.send('{"type":"end"}')

        sending = asyncio.create_task(send())
        found = []
        async for text in ws:
            message = json.loads(text)
            assert message["type"] not in ("gap", "error"), message
            if message["type"] == "detection":
                found.append(message)
        await sending
    assert ws.close_code == 1000
    return found


async def test_the_same_detections_three_times(recordings: Path, free_port: int, tmp_path: Path):
    clips = [(p.parent.name, load(p)) for p in validation_clips(recordings, WORDS)[:60]]
    for label in ("babycry", "gunshot", "glassbreak"):
        for path in sorted((recordings / "events" / label).iterdir())[:3]:
            clips += [(label, load(path)[: 3 * RATE_HZ])] * 2
    audio, placed = lay(clips, noise_bed(recordings), SECONDS, seed=1)
    path = tmp_path / "scene.wav"
    soundfile.write(path, audio, RATE_HZ)

    command = [sys.executable, "-m", "kws_serve", "--source", "none", "--port", str(free_port)]
    service = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                (await asyncio.open_connection("127.0.0.1", free_port))[1].close()
                break
            except OSError:
                await asyncio.sleep(0.1)
        one = await live(audio, free_port)
    finally:
        service.terminate()
        service.wait(10)
    run = subprocess.run(
        [sys.executable, "-c", "from kws_serve.cli import detect; detect()", str(path), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    two = [json.loads(line) for line in run.stdout.splitlines()]
    three = in_random_cuts(audio)

    assert len(placed) >= SECONDS // 4
    assert one, "no word was found"
    assert essence(one) == essence(two) == essence(three)
    order = lambda d: (d["model"], d["decided_s"], d["label"], d["phase"])  # noqa: E731
    scores = [[d["score"] for d in sorted(found, key=order)] for found in (one, two, three)]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-6)
    np.testing.assert_allclose(scores[0], scores[2], atol=1e-6)
