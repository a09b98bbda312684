"""Terminals and pipes that take nothing until somebody reads on: Ctrl-S, a pager, a consumer that hangs."""

from __future__ import annotations

import codecs
import contextlib
import os
import pty
import select
import time
import tty

CTRL_S, CTRL_Q = b"\x13", b"\x11"


class BlockedOutput:
    """A pipe or pty whose write end takes no byte more while `block` holds."""

    def __init__(self, kind: str) -> None:
        """`kind`: pipe, pty (not read), ctrl-s (a pty that was stopped by that key)."""
        self.kind = kind
        self.ours, self.theirs = os.pipe() if kind == "pipe" else pty.openpty()
        if kind == "pty":
            tty.setraw(self.theirs)  # the bytes as they were written
        self.text = ""
        self._decode = codecs.getincrementaldecoder("utf-8")().decode  # a part may end within a character

    def block(self) -> None:
        """From now on a write to it waits."""
        if self.kind == "ctrl-s":
            os.write(self.ours, CTRL_S)
            return
        filler = os.open(f"/proc/self/fd/{self.theirs}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        settle_s = 0.0 if self.kind == "pipe" else 0.2  # a pty moves on what it has, and takes more a moment later
        while select.select([], [filler], [], settle_s)[1]:
            for part in (b"." * 4096, b"."):
                with contextlib.suppress(BlockingIOError):
                    while True:
                        os.write(filler, part)
        os.close(filler)

    def read_until(self, wanted: str, timeout_s: float = 30.0) -> None:
        """Let it go on, and read until `wanted` has come."""
        if self.kind == "ctrl-s":
            os.write(self.ours, CTRL_Q)
        deadline_s = time.monotonic() + timeout_s
        while wanted not in self.text:
            left_s = deadline_s - time.monotonic()
            assert left_s > 0, self.text[-2000:]
            if select.select([self.ours], [], [], left_s)[0]:
                self.text += self._decode(os.read(self.ours, 65536)).lstrip(".")

    def close(self) -> None:
        os.close(self.ours)
        os.close(self.theirs)
