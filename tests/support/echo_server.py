"""An echo under the very server settings that the service ships with: what WebSocket conformance is tried on.

python -m tests.support.echo_server PORT
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from kws_serve.app import Server, ServerOptions


async def echo(ws: WebSocket) -> None:
    """Send back what comes, as it comes."""
    await ws.accept()
    try:
        while True:
            message = await ws.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") is not None:
                await ws.send_text(message["text"])
            else:
                await ws.send_bytes(message["bytes"])
    except WebSocketDisconnect:
        pass


def echo_app() -> Any:
    """The echo as an app that `Server` takes."""
    app = Starlette(routes=[WebSocketRoute("/", echo)])
    app.state.service = SimpleNamespace(address="")
    return app


def echo_server(port: int = 0) -> Server:
    """Bound, not yet started."""
    return Server(echo_app(), ServerOptions(port=port))


if __name__ == "__main__":
    echo_server(int(sys.argv[1])).run()
