"""Audio with known detections, and the streams that carry it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import websockets

from kws_serve.backends import open_backend
from kws_serve.backends.contract import LoadedModel
from kws_serve.engine.engine import Engine
from kws_serve.manifest.folder import load_model
from kws_serve.messages import Detection

RATE = 16000


def words(seconds: float, seed: int = 0) -> np.ndarray:
    """A loud tenth of a second about twice a second, at random: int16."""
    rng = np.random.default_rng(seed)
    audio = np.zeros(int(seconds * RATE), np.int16)
    at = 3200
    while at + 1600 < len(audio):
        audio[at : at + 1600] = 20000
        at += int(rng.integers(6000, 10000))
    return audio


def expected(folder: Path, audio: np.ndarray) -> list[tuple[str, int]]:
    """(label, start sample) of each detection, by the same engine on the whole audio, undisturbed."""
    spec = load_model(folder)
    engine = Engine([LoadedModel(spec, open_backend("onnx", spec), "onnx")])
    stream = engine.open_stream("whole", RATE, live=False)
    stream.push(audio, 0.0)
    stream.end()
    found: list[tuple[str, int]] = []
    while engine.busy:
        found += [(e.label, e.start_sample) for e in engine.tick() if isinstance(e, Detection)]
    return found


async def raw_stream(
    url: str, audio: np.ndarray, *, chunk: int = 1600, headers: dict[str, str] | None = None
) -> list[dict]:
    """A stream in real time on a plain WebSocket, without the client's help; what the service said of it."""
    async with websockets.connect(url, additional_headers=headers, max_queue=None) as ws:
        feeding = asyncio.create_task(feed(RawSender(ws), audio, chunk=chunk))
        messages = [json.loads(text) async for text in ws]
        await feeding
    return messages


class RawSender:
    """What `feed` needs of a plain WebSocket."""

    def __init__(self, ws) -> None:
        self.ws = ws

    async def send(self, part: np.ndarray) -> None:
        await self.ws.send(part.tobytes())

    async def end(self) -> None:
        await self.ws.send('{"type":"end"}')


async def feed(sender, audio: np.ndarray, *, chunk: int = 1600, end: bool = True) -> None:
    """Send at the real time of each chunk's last sample."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for at in range(0, len(audio), chunk):
        part = audio[at : at + chunk]
        await asyncio.sleep(max(0.0, began + (at + len(part)) / RATE - loop.time()))
        await sender.send(part)
    if end:
        await sender.end()
