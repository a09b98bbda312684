"""What a client has still to be told: at once where nothing waits, else in order behind what does."""

from __future__ import annotations

import asyncio
from collections import deque

from starlette.websockets import WebSocket

from kws_serve.transport.connection import Connection


class Outbox:
    """Texts to one connection; while it is `shut` (broken off, replaced) they are kept. For one event loop."""

    def __init__(self, ws: WebSocket, connection: Connection) -> None:
        self.texts: deque[str] = deque()
        self.shut = False
        self._ws = ws
        self._connection = connection
        self._some = asyncio.Event()
        self._sending = False  # a text lies with ASGI: a later one must not overtake it

    def send(self, text: str) -> None:
        """Say it, or keep it until `write` gets to it."""
        if not self.say_now(text):
            self.texts.append(text)
            self._some.set()

    def say_now(self, text: str) -> bool:
        """Say it where nothing waits; False, and it is not kept, where something does."""
        free = not (self.texts or self._sending or self.shut)
        return free and self._connection.send_now(text)

    def take_over(self, other: Outbox) -> None:
        """What the connection before this one could not say; it says nothing more."""
        other.shut = True
        self.texts += other.texts
        other.texts.clear()
        self.wake()

    def wake(self) -> None:
        """Have `write` look, though nothing is to be sent."""
        self._some.set()

    async def write(self) -> None:
        """Wait until something is kept, or for `wake`, and send all of it. Raises WebSocketDisconnect."""
        await self._some.wait()
        self._some.clear()
        self._sending = True
        while self.texts and not self.shut:
            await self._ws.send_text(self.texts.popleft())
        self._sending = False
