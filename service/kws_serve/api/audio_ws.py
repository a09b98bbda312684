"""`WS /v1/audio`: binary PCM in; ready, ack, detection, scores, gap and done out.

A connection that breaks off without a word leaves its stream waiting for RESUME_S: a client that comes back with
`resume` goes on at the next sample, as if nothing had happened. Meanwhile nobody else has its name, but who holds the
token that opened it. After a restart of the service the log knows the epoch and the token, and waits as long;
it knows the epoch where a stream has ended because its client was late, or was sent away for a while.
"""

from __future__ import annotations

import asyncio
import contextlib

from starlette.websockets import WebSocket

from kws_serve.api.audio_socket import AudioSocket
from kws_serve.api.ingest import Ingest
from kws_serve.api.query import audio_query
from kws_serve.api.security import Access
from kws_serve.api.sockets import converse, first_message
from kws_serve.api.tokens import Grant
from kws_serve.engine.resumed import Resumed
from kws_serve.wire import Resume, WireError, parse_message, parse_resume

RESUME_WAIT_S = 1.0
"""How long a client has to say `resume`, in s, where the name is in use or an earlier run had it: it does so at once,
so this is a round trip and a hiccup. What is something else, or comes later, begins the stream anew."""


async def audio(ws: WebSocket, ingest: Ingest, access: Access) -> None:
    """Serve one connection that feeds a stream, from handshake to close."""

    async def serve(ws: WebSocket, grant: Grant) -> None:
        query = audio_query(ws.query_params.multi_items())
        if not grant.may_touch(query.stream):
            raise WireError(4403, f"stream: found {query.stream!r}, wanted one that the token allows")
        first = resume = None
        if any(query.stream in known for known in (ingest.earlier, ingest.engine.streams, ingest.feeding)):
            with contextlib.suppress(TimeoutError):
                first = await first_message(ws, RESUME_WAIT_S)
            resume = _resume(first)
        resumed = await _earlier(ingest, query.stream, resume)
        await AudioSocket(ingest, ws, query, grant.name, resume, resumed).run(first if resume is None else None)

    await converse(ws, access, "ingest", serve)


def _resume(first: bytes | str | None) -> Resume | None:
    """What a `resume` asks for; None for any other message. Raises WireError 4400."""
    if not isinstance(first, str):
        return None
    message = parse_message(first)
    return parse_resume(message) if message["type"] == "resume" else None


async def _earlier(ingest: Ingest, stream: str, resume: Resume | None) -> Resumed | None:
    """What the log knows of the epoch to go on with. It stays known until the stream is open: that may be refused."""
    heard = ingest.earlier.get(stream, {})
    if resume is None or resume.epoch not in heard:
        return None
    decided = await asyncio.to_thread(ingest.log.decided, stream, resume.epoch)
    return Resumed(resume.epoch, resume.first_sample, heard[resume.epoch], decided)
