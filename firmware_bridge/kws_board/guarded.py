"""A program that ends with this process, whatever ends this one: SIGKILL too. By a small process between the two.

The kernel's own way (PR_SET_PDEATHSIG) alone will not do: it acts when the *thread* ends that started the program, and
it removes no folder. So guardian.py stands between: it sees its socket closed when this process is gone. Works on any
POSIX system; that the program ends even where the guardian is killed is Linux's.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from kws_board import guardian

_START_S = 30.0


class Guarded:
    """A running program, its own session and process group. One owner thread at a time."""

    def __init__(
        self,
        command: list[str],
        *,
        folder: Path | None = None,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.DEVNULL,
        stderr: int | IO[bytes] = subprocess.DEVNULL,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start it. `folder`: removed where this process ends, or at `close`. Raises OSError with the reason."""
        self._socket, theirs = socket.socketpair()
        words = [sys.executable, "-I", "-S", guardian.__file__, str(theirs.fileno()), str(folder or ""), *command]
        self._lines = b""
        self._code: int | None = None
        with theirs, contextlib.ExitStack() as stack:
            stack.callback(self._socket.close)
            self._guardian = subprocess.Popen(
                words, stdin=stdin, stdout=stdout, stderr=stderr, cwd=cwd, env=env, bufsize=0,
                pass_fds=(theirs.fileno(),), start_new_session=True,
            )  # fmt: skip
            stack.pop_all()
        self.stdin, self.stdout, self.stderr = self._guardian.stdin, self._guardian.stdout, self._guardian.stderr
        kind, _, rest = self._line(_START_S).partition(" ")
        if kind != "pid":
            self.close(remove=False)
            raise OSError(rest or "found no answer of its guardian")
        self.pid = int(rest)

    def poll(self) -> int | None:
        """Its exit status (negative: a signal's number); None while it runs."""
        return self.wait(0.0)

    def wait(self, timeout_s: float) -> int | None:
        """The same, after at most so long."""
        if self._code is None:
            kind, _, rest = self._line(timeout_s).partition(" ")
            if kind == "exit":
                self._code = int(rest)
            elif self._guardian.poll() is not None:  # killed itself
                self._code = self._guardian.returncode
        return self._code

    def kill(self) -> None:
        """End it and what it has started."""
        with contextlib.suppress(OSError):
            self._socket.sendall(b"k")

    def close(self, remove: bool = True) -> None:
        """End it, with its folder unless that is to stay; returns when both are gone. Safe to call twice."""
        if not remove:
            with contextlib.suppress(OSError):
                self._socket.sendall(b"q")
        self._socket.close()
        self._guardian.wait()
        pipes: tuple[Any, ...] = (self.stdin, self.stdout, self.stderr)
        for pipe in pipes:
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _line(self, timeout_s: float) -> str:
        """The guardian's next line; empty where none comes in time, or ever."""
        until = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            if self._socket.fileno() < 0:
                return ""
            selector.register(self._socket, selectors.EVENT_READ)
            while b"\n" not in self._lines:
                if not selector.select(max(0.0, until - time.monotonic())):
                    return ""
                data = os.read(self._socket.fileno(), 4096)
                if not data:
                    return ""
                self._lines += data
        line, _, self._lines = self._lines.partition(b"\n")
        return line.decode("utf-8", "replace")
