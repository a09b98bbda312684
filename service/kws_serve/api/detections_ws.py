"""`WS /v1/detections`: what the log keeps after an id, then live, each detection once."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.websockets import WebSocket

from kws_serve import __version__
from kws_serve.api.query import detections_query, whole
from kws_serve.api.security import Access
from kws_serve.api.sockets import converse
from kws_serve.api.wire import WireError, detection_json, dumps, parse_message
from kws_serve.messages import JsonObject
from kws_serve.sinks.history import Filter, History, Subscriber

MAX_SUBSCRIBERS = 1000


async def detections(ws: WebSocket, history: History, access: Access) -> None:
    """Serve one subscriber until it leaves or is too slow."""

    async def serve(ws: WebSocket) -> None:
        found, wanted = detections_query(ws.query_params.multi_items())
        after = whole("after", found["after"], 0, 2**63 - 1) if "after" in found else None
        await _feed(ws, history, wanted, after)

    await converse(ws, access, serve)


async def _feed(ws: WebSocket, history: History, wanted: Filter, after: int | None) -> None:
    if history.subscribers >= MAX_SUBSCRIBERS:
        raise WireError(4429, f"subscribers: {history.subscribers} listen, the limit is {MAX_SUBSCRIBERS}")
    subscriber, kept, lost = history.subscribe(wanted, after)
    first: list[JsonObject] = [
        {"type": "hello", "log_id": history.log_id, "last_id": subscriber.last_id, "version": __version__}
    ]
    if lost is not None:
        first.append({"type": "log_gap", "from": lost[0], "to": lost[1], "reason": "retention"})
    first += [detection_json(d, replayed=True) for d in kept]
    listening = asyncio.create_task(_listen(ws))
    sending = asyncio.create_task(_send(ws, subscriber, first))
    try:
        done, _ = await asyncio.wait({listening, sending}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        history.unsubscribe(subscriber)
        for task in (listening, sending):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task


async def _send(ws: WebSocket, subscriber: Subscriber, first: list[JsonObject]) -> None:
    for message in first:
        await ws.send_text(dumps(message))
    while (text := await subscriber.take()) is not None:
        await ws.send_text(text)
    raise WireError(4408, f"subscriber: found too slow; the last id sent was {subscriber.last_id}, go on after it")


async def _listen(ws: WebSocket) -> None:
    """A subscriber has nothing to say but a (repeated) token; notices when it leaves."""
    while True:
        message = await ws.receive()
        if message["type"] == "websocket.disconnect":
            return
        if message.get("text") is None or parse_message(message["text"])["type"] != "auth":
            raise WireError(4400, "message: found one on a socket that only sends, wanted none")
