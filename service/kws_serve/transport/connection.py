"""What the API knows of the connection below a WebSocket's ASGI, whichever transport carries it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from kws_serve.transport.splitter import Payload

CONNECTION = "kws_serve.connection"
"""Key of the `extensions` of a WebSocket's ASGI scope: its `Connection`."""

MAX_MESSAGE_BYTES = 256 * 1024
"""Of audio in one message."""

REQUEST_S = 6.0
"""From connecting, or from the last answer, to the end of the next request's headers; and of a TLS handshake."""


async def refuse_upgrade(send: Send, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
    """Answer a WebSocket's handshake with HTTP. Ends the ASGI app by the exception for a client that is gone, where
    uvicorn has it: it takes a plain return for a fault, and logs that.
    """
    kind = "websocket.http.response"
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
    with contextlib.suppress(ImportError):
        from uvicorn.protocols.utils import ClientDisconnected

        raise ClientDisconnected


class Connection(Protocol):
    """A WebSocket after its handshake: short ways past ASGI, where the transport has them."""

    def wait_for_token(self, waiting: bool) -> None:
        """Whether who this is has still to be told; until then next to nothing is taken."""

    def give_audio(self, take: Callable[[Payload], bool] | None) -> None:
        """Hand each whole binary message to `take`, which answers whether it has taken it; None: to nobody."""

    def send_now(self, text: str) -> bool:
        """Write a text message at once; False, and nothing written, where it has to wait."""

    def stop_keepalive(self) -> None:
        """Send no more pings."""


class PlainConnection:
    """No short ways: all goes through ASGI, in its order."""

    def wait_for_token(self, waiting: bool) -> None:
        """What comes before the token is not counted."""

    def give_audio(self, take: Callable[[Payload], bool] | None) -> None:
        """Audio comes as ASGI's messages."""

    def send_now(self, text: str) -> bool:
        """Everything waits for its turn."""
        return False

    def stop_keepalive(self) -> None:
        """uvicorn goes on with its pings."""


class PlainConnections:
    """ASGI middleware: every WebSocket gets a PlainConnection."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            scope["extensions"] = {**(scope.get("extensions") or {}), CONNECTION: PlainConnection()}
        await self._app(scope, receive, send)
