"""SIGINT, SIGTERM and SIGHUP, as the main thread waits for them."""

from __future__ import annotations

import os
import queue
import signal
from collections.abc import Callable
from types import FrameType


class StopSignal:
    """Waits for the first SIGINT or SIGTERM. Made and waited for in the main thread, where Python runs handlers.

    SIGHUP stops too where the process was started with a controlling terminal: that is gone. Without one it asks to
    read the settings again.

    A handler runs between any two instructions of the main thread, so it must not take a lock that this thread may
    hold: `threading.Event.set` called there while `Event.wait` enters or leaves waits for itself for good. The put of a
    SimpleQueue is documented to be safe there.
    """

    def __init__(self, on_reload: Callable[[], None] = lambda: None) -> None:
        """`on_reload`: called by `wait`, between two signals."""
        self._told: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._on_reload = on_reload
        self._reloads = False
        self.came = False
        """Whether one came; set by `wait`."""

    def install(self) -> None:
        """Take the signals from now on. SIGHUP of a terminal stays ignored where nohup has asked for that."""
        self._reloads = not has_terminal()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGHUP and not self._reloads and signal.getsignal(number) is signal.SIG_IGN:
                continue
            signal.signal(number, self._handle)

    def wait(self, timeout_s: float) -> bool:
        """Whether one came, now, before, or within `timeout_s`."""
        if not self.came:
            try:
                number = self._told.get(timeout=timeout_s)
                self.came = number != signal.SIGHUP or not self._reloads
                if not self.came:
                    self._on_reload()
            except queue.Empty:
                pass
        return self.came

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._told.put(number)


def has_terminal() -> bool:
    """Whether this process has a controlling terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
