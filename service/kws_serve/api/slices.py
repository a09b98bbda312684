"""Long answers made a little at a time: while there is live audio, most of the time is its own.

A thread that computes keeps every other thread waiting for the interpreter, up to 5 ms each time they want it. So all
long answers together make one short slice after another, and rest between them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

ROWS = 50
"""Rows of the log in a slice: about 1 ms of work."""

REST = 3.0
"""Rest after a slice, in times of what it took, while there is live audio: a quarter of a core for all that ask."""

_Part = TypeVar("_Part")


class Slices:
    """The long answers of a service. For one event loop."""

    def __init__(self, busy: Callable[[], bool]) -> None:
        """`busy`: whether there is live audio."""
        self._busy = busy
        self._turn = asyncio.Lock()  # whoever waits longest is next

    async def make(self, part: Callable[[], _Part]) -> _Part:
        """One slice, made by `part` in another thread when it is its turn."""
        async with self._turn:
            began_s = time.monotonic()
            made = await asyncio.to_thread(part)
            if self._busy():
                await asyncio.sleep(REST * (time.monotonic() - began_s))
        return made

    async def each(self, parts: Iterator[str]) -> AsyncIterator[str]:
        """All of `parts`, each a slice."""
        while (part := await self.make(lambda: next(parts, None))) is not None:
            yield part
