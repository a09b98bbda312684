"""What systemd is told (sd_notify(3)): ready, stopping, and a heartbeat for as long as there is real progress."""

from __future__ import annotations

import os
import socket


class Notifier:
    """Speaks to the socket that `NOTIFY_SOCKET` names; silent without one."""

    def __init__(self) -> None:
        path = os.environ.pop("NOTIFY_SOCKET", "")  # not for children
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if path else None
        self._untold: list[str] = []  # what the socket had no room for, each once

    def tell(self, state: str) -> None:
        """READY=1, WATCHDOG=1, STOPPING=1 or STATUS=text; where systemd does not read, later, in order."""
        if self._socket is None:
            return
        if state not in self._untold:
            self._untold.append(state)
        while self._untold:
            try:
                self._socket.sendto(self._untold[0].encode(), socket.MSG_DONTWAIT, self._address)
            except BlockingIOError:
                return
            except OSError:  # nobody is there
                pass
            del self._untold[0]
