"""A stream in real time that looks at how long the service takes to tell the scores of what it has sent."""

from __future__ import annotations

import asyncio
import json
import time

import numpy as np
import websockets

from tests.support.streams import RATE, words

CHUNK = 800  # samples: 50 ms


async def latencies_ms(ws_url: str, seconds: float, token: str) -> tuple[np.ndarray, list[dict]]:
    """From sending the chunk that completes a patch to its scores, of all patches (n,); and gaps and errors told."""
    audio = words(seconds)
    sent_s: list[float] = []
    found_ms: list[float] = []
    faults: list[dict] = []
    url = f"{ws_url}/v1/audio?stream=witness-{time.monotonic_ns()}&scores=1"
    headers = {"Authorization": f"Bearer {token}"}
    async with websockets.connect(url, additional_headers=headers, max_queue=None, compression=None) as ws:
        await ws.recv()

        async def send() -> None:
            began_s = time.monotonic()
            for at in range(0, len(audio), CHUNK):
                part = audio[at : at + CHUNK]
                await asyncio.sleep(max(0.0, began_s + (at + len(part)) / RATE - time.monotonic()))
                sent_s.append(time.monotonic())
                await ws.send(part.tobytes())
            await ws.send('{"type":"end"}')

        sending = asyncio.create_task(send())
        async for text in ws:
            message = json.loads(text)
            chunk = (message.get("end_sample", 1) - 1) // CHUNK
            if message["type"] == "scores" and chunk < len(sent_s):
                found_ms.append(1000 * (time.monotonic() - sent_s[chunk]))
            elif message["type"] in ("gap", "error"):
                faults.append(message)
        await sending
    return np.array(found_ms), faults
