"""A service that sends a client away for now, as where it sheds load."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kws_serve.api.audio_socket import AudioSocket
from kws_serve.wire import WireError
from tests.support.live_server import LiveServer
from tests.support.streams import RATE


async def sent_away(server: LiveServer, stream: str, code: int, times: int) -> None:
    """Have the service send a stream's client away, each time once it has heard half a second more."""
    ingest = server.app.state.service.ingest
    for heard in range(RATE // 2, (times + 1) * RATE // 2, RATE // 2):
        await until(lambda heard=heard: stream in ingest.feeding and heard <= received(ingest.feeding[stream]))
        socket = ingest.feeding[stream]
        loop = socket._told.get_loop()
        loop.call_soon_threadsafe(socket.refuse, WireError(code, "have to go; try again later"))
        await until(lambda socket=socket: ingest.feeding.get(stream) is not socket)


def received(socket: AudioSocket) -> int:
    return socket.stream.received_samples


async def until(holds: Callable[[], object]) -> None:
    for _ in range(2000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come")
