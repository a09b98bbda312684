"""What both WebSockets share: accepting, the token as the first message, errors that close."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from kws_serve.api.security import Access
from kws_serve.api.wire import WireError, dumps, parse_message
from kws_serve.messages import StreamRefused

AUTH_S = 5.0
CLOSE_S = 2.0


async def converse(ws: WebSocket, access: Access, serve: Callable[[WebSocket], Awaitable[None]]) -> None:
    """Accept, authenticate, `serve`; what is refused on the way closes the socket after an error message."""
    await ws.accept()
    try:
        if not access.bearer_good({k.lower(): v for k, v in ws.headers.items()}):
            await _authenticate(ws, access)
        await serve(ws)
    except (WireError, StreamRefused) as e:
        await _close(ws, e.code, str(e))
    except WebSocketDisconnect:
        pass


async def _authenticate(ws: WebSocket, access: Access) -> None:
    """Wait for `{"type":"auth","token":...}`. Raises WireError 4401."""
    wanted = 'wanted Authorization: Bearer or {"type":"auth","token":...} as the first message within 5 s'
    try:
        message = await asyncio.wait_for(ws.receive(), AUTH_S)
    except TimeoutError:
        raise WireError(4401, f"token: found none in time, {wanted}") from None
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code") or 1006)
    try:
        auth = parse_message(message.get("text") or "")
    except WireError:
        raise WireError(4401, f"token: found another message, {wanted}") from None
    token = auth.get("token")
    if auth["type"] != "auth" or not isinstance(token, str) or not access.token_good(token):
        raise WireError(4401, f"token: found none or a wrong one, {wanted}")


async def _close(ws: WebSocket, code: int, message: str) -> None:
    """An error message, then the close with its code; nothing where the other side is gone."""
    if ws.application_state is not WebSocketState.CONNECTED or ws.client_state is not WebSocketState.CONNECTED:
        return
    with contextlib.suppress(RuntimeError, WebSocketDisconnect, OSError, TimeoutError):
        async with asyncio.timeout(CLOSE_S):  # one that does not read is not waited for
            await ws.send_text(dumps({"type": "error", "code": code, "message": message}))
            await ws.close(code, message.encode()[:120].decode("utf-8", "ignore"))
