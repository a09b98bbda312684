"""What systemd is told (sd_notify(3)): ready, stopping, and a heartbeat for as long as there is real progress."""

from __future__ import annotations

import contextlib
import os
import socket


class Notifier:
    """Speaks to the socket that `NOTIFY_SOCKET` names; silent without one."""

    def __init__(self) -> None:
        path = os.environ.pop("NOTIFY_SOCKET", "")  # not for children
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if path else None

    def tell(self, state: str) -> None:
        """READY=1, WATCHDOG=1, STOPPING=1 or STATUS=text."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendto(state.encode(), self._address)
