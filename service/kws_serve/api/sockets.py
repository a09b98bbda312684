"""What the WebSockets share: accepting, the token as the first message, errors that close."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from kws_serve.api.security import TOO_MANY_GUESSES, Access, TooManyGuesses
from kws_serve.api.tokens import Grant
from kws_serve.messages import StreamRefused
from kws_serve.transport.connection import CONNECTION, Connection
from kws_serve.wire import WireError, dumps, error_json, parse_message

_log = logging.getLogger(__name__)

AUTH_S = 5.0
"""How long a client has to say its token, in s: a slow handshake's time. It is named in the refusal."""

CHECK_S = 1.0
"""When a revoked token is noticed on an open socket, in s. A look is a stat of the token file and a search in it."""

CLOSE_S = 2.0
"""How long the last message and the close may take, in s: to one that does not read they cannot be said."""


async def converse(
    ws: WebSocket, access: Access, scope: str, serve: Callable[[WebSocket, Grant], Awaitable[None]]
) -> None:
    """Accept, authenticate for `scope`, `serve`; what is refused closes the socket after an error message."""
    token = access.bearer({k.lower(): v for k, v in ws.headers.items()})
    connection: Connection = ws.scope["extensions"][CONNECTION]
    grant, fault = None, None
    try:
        grant = access.admit(token, address_of(ws))
    except TooManyGuesses:
        fault = _too_many_guesses()
    connection.wait_for_token(grant is None)
    await ws.accept()
    try:
        if fault is not None:
            raise fault
        if grant is None:
            token, grant = await _authenticate(ws, access)
            connection.wait_for_token(False)
        if not grant.may(scope):
            raise WireError(4403, f"token: found one of scope {', '.join(sorted(grant.scopes))}, wanted {scope}")
        await _while_granted(access, token, grant, serve(ws, grant))
    except (WireError, StreamRefused) as e:
        _log.info("WebSocket %s: closed with %d: %s", ws.url.path, e.code, e)
        await _close(ws, e.code, str(e))
    except WebSocketDisconnect:
        pass


async def _while_granted(access: Access, token: str | None, grant: Grant, serving: Awaitable[None]) -> None:
    """Serve until done, or until the token is revoked or needed where none was. Raises WireError 4401."""
    task = asyncio.ensure_future(serving)
    try:
        while not (await asyncio.wait({task}, timeout=CHECK_S))[0]:
            now = access.grant(token)
            if now != grant:
                raise WireError(4401, "token: found it revoked or changed, wanted one that is valid")
        task.result()
    finally:
        await end(task)


async def end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks and wait until they have ended; what they raise by then is not asked for."""
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task


async def send_only(ws: WebSocket, sending: Coroutine[Any, Any, None]) -> None:
    """Send until done or the other side leaves, which has nothing to say but a (repeated) token. Raises WireError."""
    tasks = {asyncio.create_task(sending), asyncio.create_task(_listen(ws))}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await end(*tasks)


async def _listen(ws: WebSocket) -> None:
    while True:
        try:
            said = await received(ws)
        except WebSocketDisconnect:
            return
        if not isinstance(said, str) or parse_message(said)["type"] != "auth":
            raise WireError(4400, "message: found one on a socket that only sends, wanted none")


async def received(ws: WebSocket) -> bytes | str:
    """The next message of the client. Raises WebSocketDisconnect where it has left, with 1006 where it said nothing."""
    message = await ws.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code") or 1006)
    data: bytes | None = message.get("bytes")
    return message.get("text") or "" if data is None else data


async def first_message(ws: WebSocket, wait_s: float) -> bytes | str:
    """What the client says first. Raises TimeoutError; WebSocketDisconnect where it leaves."""
    async with asyncio.timeout(wait_s):  # Python 3.11's wait_for can swallow a cancellation
        return await received(ws)


async def _authenticate(ws: WebSocket, access: Access) -> tuple[str, Grant]:
    """Wait for `{"type":"auth","token":...}`. Raises WireError 4401."""
    wanted = 'wanted Authorization: Bearer or {"type":"auth","token":...} as the first message within 5 s'
    try:
        said = await first_message(ws, AUTH_S)
    except TimeoutError:
        raise WireError(4401, f"token: found none in time, {wanted}") from None
    try:
        auth = parse_message(said if isinstance(said, str) else "")
    except WireError:
        raise WireError(4401, f"token: found another message, {wanted}") from None
    token = auth.get("token")
    try:
        grant = access.admit(token, address_of(ws)) if auth["type"] == "auth" and isinstance(token, str) else None
    except TooManyGuesses:
        raise _too_many_guesses() from None
    if grant is None:
        raise WireError(4401, f"token: found none or a wrong one, {wanted}")
    return str(token), grant


def _too_many_guesses() -> WireError:
    return WireError(4429, TOO_MANY_GUESSES)


def address_of(ws: WebSocket) -> str:
    """Of the client; empty: unknown."""
    return ws.client.host if ws.client else ""


async def _close(ws: WebSocket, code: int, message: str) -> None:
    """An error message, then the close with its code; nothing where the other side is gone."""
    if ws.application_state is not WebSocketState.CONNECTED or ws.client_state is not WebSocketState.CONNECTED:
        return
    with contextlib.suppress(RuntimeError, WebSocketDisconnect, OSError, TimeoutError):
        async with asyncio.timeout(CLOSE_S):  # one that does not read is not waited for
            await ws.send_text(dumps(error_json(code, message)))
            await ws.close(code, message.encode()[:120].decode("utf-8", "ignore"))
