"""`WS /v1/live`: what a stream sounds like to a model, for those who look: features, scores, level. Nothing is kept."""

from __future__ import annotations

import asyncio
from collections import deque

from starlette.websockets import WebSocket

from kws_serve.api.places import Places
from kws_serve.api.query import LIVE, once_each, stream_name
from kws_serve.api.security import Access
from kws_serve.api.sockets import address_of, converse, send_only
from kws_serve.api.tokens import Grant
from kws_serve.engine.engine import Engine
from kws_serve.engine.viewers import Viewer
from kws_serve.messages import Gap, JsonObject, StreamState, View
from kws_serve.wire import WireError, dumps, skipped_json, view_json

QUEUE_MESSAGES = 512
"""Of one viewer: some 3 s of features, scores and levels at a patch hop of 20 ms. It is told how many it has missed."""


async def live(ws: WebSocket, engine: Engine, access: Access, places: Places) -> None:
    """Serve one viewer until it leaves."""

    async def serve(ws: WebSocket, grant: Grant) -> None:
        stream, model = _query(ws, engine)
        if not grant.may_touch(stream):
            raise WireError(4403, f"stream: found {stream!r}, wanted one that the token allows")
        with places.one(grant.name, address_of(ws)):
            await send_only(ws, _send(ws, engine, stream, model))

    await converse(ws, access, "view", serve)


def _query(ws: WebSocket, engine: Engine) -> tuple[str, str]:
    """`stream=NAME&model=NAME`. Raises WireError 4400."""
    found = once_each(ws.query_params.multi_items(), LIVE)
    if "stream" not in found:
        raise WireError(4400, "stream: found none, wanted stream=NAME")
    model = found.get("model", next(iter(engine.models)))
    if model not in engine.models:
        raise WireError(4400, f"model: found {model[:80]!r}, wanted one of {', '.join(engine.models)}")
    return stream_name(found["stream"]), model


async def _send(ws: WebSocket, engine: Engine, stream: str, model: str) -> None:
    queue = _Queue(asyncio.get_running_loop())
    viewer = Viewer(stream, model, queue.put)
    engine.viewers.join(viewer)
    try:
        while True:
            for message in await queue.take():
                await ws.send_text(dumps(message))
    finally:
        engine.viewers.leave(viewer)


class _Queue:
    """Messages from the engine's thread to this loop; what comes while it is full is left out, which is said."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._events: deque[View] = deque()
        self._skipped = 0
        self._some = asyncio.Event()

    def put(self, event: View) -> None:
        """From the engine's thread."""
        if len(self._events) >= QUEUE_MESSAGES and not isinstance(event, Gap | StreamState):
            self._skipped += 1
            return
        self._events.append(event)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._some.set)

    async def take(self) -> list[JsonObject]:
        """All that has come since, at least one."""
        await self._some.wait()
        self._some.clear()
        found = []
        while self._events:
            found.append(view_json(self._events.popleft()))
        skipped, self._skipped = self._skipped, 0
        return [*found, skipped_json(skipped)] if skipped else found
