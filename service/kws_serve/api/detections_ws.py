"""`WS /v1/detections`: what the log keeps after an id, then live, each detection once."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import dataclass, replace

from starlette.websockets import WebSocket

from kws_serve import __version__
from kws_serve.api.places import Places
from kws_serve.api.query import detections_query, whole
from kws_serve.api.security import Access
from kws_serve.api.slices import ROWS, Slices
from kws_serve.api.sockets import address_of, converse, send_only
from kws_serve.api.tokens import Grant
from kws_serve.sinks.event_log import EventLog
from kws_serve.sinks.filter import Filter
from kws_serve.sinks.reader import REPLAY_ROWS
from kws_serve.sinks.telling import Telling
from kws_serve.wire import WireError, dumps, hello_json


async def detections(ws: WebSocket, log: EventLog, access: Access, slices: Slices, places: Places) -> None:
    """Serve one subscriber until it leaves or is too slow."""

    async def serve(ws: WebSocket, grant: Grant) -> None:
        found, wanted = detections_query(ws.query_params.multi_items())
        wanted = replace(wanted, streams=grant.streams)
        after = whole("after", found["after"], 0, 2**63 - 1) if "after" in found else None
        asked = _Asked(wanted, after, found.get("log_id"))
        with places.one(grant.name, address_of(ws)):
            try:
                await send_only(ws, _send(ws, log, asked, slices))
            except sqlite3.Error as e:
                raise WireError(4429, f"log: cannot be read now ({e}); try again later") from None

    await converse(ws, access, "listen", serve)


@dataclass(frozen=True)
class _Asked:
    """What a subscriber asks for."""

    wanted: Filter
    after: int | None  # None: what comes from now on
    log_id: str | None  # of the log that `after` is of, where it says so


async def _send(ws: WebSocket, log: EventLog, asked: _Asked, slices: Slices) -> None:
    """What the log has, in parts, until little is left; then live, and what came meanwhile: no hole, nothing twice.

        ids   after ........... reach ....... upto | upto + 1 .......
              replayed, slowly        replayed     | queued since `subscribe`, taken once all before is sent

    Raises WireError 4408 to one too slow: it has had all ids up to the one that is named, and none beyond.
    """
    wanted, reach, reset = asked.wanted, log.delivered_id, False
    if asked.after is not None:
        reach, reset = await asyncio.to_thread(log.start_after, wanted.streams, asked.after, asked.log_id)
    last_id = log.newest_id(wanted.streams)
    telling = Telling(wanted, last_id if asked.after is None else reach)
    await ws.send_text(dumps(hello_json(log_id=log.log_id, last_id=last_id, reset=reset, version=__version__)))
    while log.delivered_id - reach > REPLAY_ROWS:
        reach = await _replay(ws, log, wanted, reach, log.delivered_id, slices, telling)
    subscriber = log.subscribe(wanted, telling)
    try:
        while reach < subscriber.last_id:
            reach = await _replay(ws, log, wanted, reach, subscriber.last_id, slices, telling)
        while (texts := await subscriber.take()) is not None:
            for text in texts:
                await ws.send_text(text)
    finally:
        log.unsubscribe(subscriber)
    raise WireError(4408, f"subscriber: found too slow; the last id sent was {telling.told_id}, go on after it")


async def _replay(
    ws: WebSocket, log: EventLog, wanted: Filter, after: int, upto: int, slices: Slices, telling: Telling
) -> int:
    """Send the next part of what is kept; the id that it reaches."""
    texts, reach = await slices.make(lambda: log.replay(wanted, after, upto, ROWS, telling))
    for i, text in enumerate(texts):
        if i % 32 == 0:
            await asyncio.sleep(0)  # sending alone lets nobody else have a turn, nor sees that the client has left
        await ws.send_text(text)
    return reach
