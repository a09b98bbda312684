"""SIGINT and SIGTERM, as the main thread waits for them."""

from __future__ import annotations

import queue
import signal
from types import FrameType


class StopSignal:
    """Waits for the first SIGINT or SIGTERM. Made and waited for in the main thread, where Python runs handlers.

    A handler runs between any two instructions of the main thread, so it must not take a lock that this thread may
    hold: `threading.Event.set` called there while `Event.wait` enters or leaves waits for itself for good. The put of a
    SimpleQueue is documented to be safe there.
    """

    def __init__(self) -> None:
        self._told: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.came = False
        """Whether one came; set by `wait`."""

    def install(self) -> None:
        """Take both signals from now on."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def wait(self, timeout_s: float) -> bool:
        """Whether one came, now, before, or within `timeout_s`."""
        if not self.came:
            try:
                self._told.get(timeout=timeout_s)
                self.came = True
            except queue.Empty:
                pass
        return self.came

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._told.put(number)
