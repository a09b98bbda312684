"""Reading many streams at once: a selector that looks at some sockets only every so often.

Each message alone wakes the loop's thread, which finds its caches cold and the engine's thread in its way. With many
streams their sockets are read together, just before the engine's next tick, for which they would have waited anyway;
all other sockets, and what other threads want of the loop, are seen at once as ever. The door, where new connections
come in, rests after each look, so that a crowd in front of it does not keep those inside waiting.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from typing import Any

MANY = 16
"""From so many streams on their sockets are read together."""

TOGETHER_S = 0.020

DOOR_S = 0.020
"""How long the door rests; each look lets as many in as the server's backlog says."""


class BatchingSelector(selectors.BaseSelector):
    """See the module. Its owner is the loop's thread."""

    def __init__(self) -> None:
        self.on_read: Callable[[], None] = lambda: None  # called when all that was found has been seen to
        self._at_once = selectors.DefaultSelector()
        self._together = selectors.DefaultSelector()
        self._streams: set[int] = set()  # descriptors of live audio
        self._many = False
        self._next_s = 0.0
        self._resting = selectors.DefaultSelector()  # never looked at
        self._doors: set[int] = set()  # listening descriptors
        self._open_s = 0.0  # when they are looked at again

    def door(self, fd: int) -> None:
        """New connections come in by this descriptor."""
        self._doors.add(fd)

    def add(self, fd: int) -> None:
        """This descriptor carries live audio."""
        self._streams.add(fd)
        if self._many:
            self._move([fd], self._at_once, self._together)
        elif len(self._streams) >= MANY:
            self._many = True
            self._move(self._streams, self._at_once, self._together)

    def discard(self, fd: int) -> None:
        """It does no longer."""
        self._streams.discard(fd)
        self._move([fd], self._together, self._at_once)
        if self._many and len(self._streams) < MANY // 2:
            self._many = False
            self._move(self._streams, self._together, self._at_once)

    @staticmethod
    def _move(fds: Iterable[int], source: selectors.BaseSelector, to: selectors.BaseSelector) -> None:
        for fd in fds:
            if fd in source.get_map():
                key = source.unregister(fd)
                to.register(key.fileobj, key.events, key.data)

    def _of(self, fileobj: Any) -> selectors.BaseSelector:
        """Where it is, or would be, registered."""
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        if fd in self._doors and fd in self._resting.get_map():
            return self._resting
        return self._together if self._many and fd in self._streams else self._at_once

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Watch a socket, with those of its kind."""
        return self._of(fileobj).register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Watch a socket no more."""
        key = self._of(fileobj).unregister(fileobj)
        self._doors.discard(key.fd)  # another socket may get its number
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Watch the socket for other events, where it is watched now."""
        return self._of(fileobj).modify(fileobj, events, data)

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """The key of a socket that is watched. Raises KeyError."""
        return self._of(fileobj).get_key(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """All keys, whichever way their sockets are read."""
        maps: list[Any] = [self._at_once.get_map(), self._together.get_map(), self._resting.get_map()]
        return ChainMap(*maps)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready within `timeout` s; sockets of many streams are looked at together."""
        self.on_read()
        if self._resting.get_map():
            timeout = self._door_opens(timeout)
        if self._many:
            wait_s = max(0.0, self._next_s - time.monotonic())
            timeout = wait_s if timeout is None else min(wait_s, timeout)
        found = self._at_once.select(timeout)
        came = [key.fd for key, _ in found if key.fd in self._doors]
        if came:
            self._move(came, self._at_once, self._resting)
            self._open_s = time.monotonic() + DOOR_S
        if self._many and time.monotonic() >= self._next_s:
            found += self._together.select(0)
            self._next_s = time.monotonic() + TOGETHER_S
        return found

    def _door_opens(self, timeout: float | None) -> float | None:
        """Look at the door again where it is time; how long to wait at most, so that it will be."""
        wait_s = self._open_s - time.monotonic()
        if wait_s > 0:
            return wait_s if timeout is None else min(wait_s, timeout)
        self._move(self._doors, self._resting, self._at_once)
        return timeout

    def close(self) -> None:
        """Close the selectors beneath."""
        self._at_once.close()
        self._together.close()
        self._resting.close()


class StreamLoop(asyncio.SelectorEventLoop):
    """An event loop whose `streams` reads many streams together."""

    def __init__(self) -> None:
        self.streams = BatchingSelector()
        super().__init__(self.streams)
