"""What goes to stdout and stderr, written by a thread of its own: output that is not taken (Ctrl-S in the terminal, a
pager, a full pipe, a hung log collector) delays nobody.

Who prints only queues. The queue is bounded; past it the oldest lines are dropped, and counted where they are missing.
Bytes go straight to the file descriptor: a write that waits would lock Python's own buffers, which are flushed at exit.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TextIO, TypeAlias

from kws_serve.host import log_format

QUEUE_TEXTS = 1000
QUEUE_BYTES = 1 << 18
"""What waits at most for output that is not taken; the newest text is always kept."""

LATER_BYTES = 256
"""What a line counts as that is made when it is written: more than a detection's has, and QUEUE_TEXTS of them fill
QUEUE_BYTES.
"""

CLOSE_S = 1.0
"""How long what is queued may take at exit."""

_ERASE = b"\r\x1b[2K"  # to the line's start, and all of it away (ECMA-48 EL)
_DROPPED = "%d lines were dropped: this output was not taken"


_Text: TypeAlias = bytes | Callable[[], str]


class Printer:
    """Writes to one file descriptor; any thread may print, none waits."""

    def __init__(
        self, stream: TextIO | None, dropped: Callable[[int], str] = lambda n: f"  note    {_DROPPED % n}"
    ) -> None:
        """`stream`: where to write, by its file descriptor; None (closed at start): nowhere. `dropped`: the line that
        tells of so many dropped lines.
        """
        self._fd: int | None = None
        with contextlib.suppress(AttributeError, OSError):  # None; one that is no file
            self._fd = stream.fileno()  # type: ignore[union-attr]
        self.encoding = getattr(stream, "encoding", None) or "utf-8"
        self.tty = self._fd is not None and os.isatty(self._fd)
        self._told = dropped
        self._texts: deque[_Text] = deque()
        self._bytes = 0
        self._dropped = 0  # lines, since it was last told
        self._live: bytes | None = None  # to be drawn; empty: to be taken away
        self._shown = False  # whether a live line stands there; the thread's
        self._closing = False
        self._changed = threading.Condition()  # its lock is reentrant: a finaliser may print while it is held
        self._thread = threading.Thread(target=self._run, name="printer", daemon=True)
        self._thread.start()

    def put(self, text: str | Callable[[], str]) -> None:
        """Print whole lines, each with its newline; they are kept or dropped together. Or one line that the printer's
        thread makes when its turn has come; where that fails, a line says so.
        """
        data = text.encode(self.encoding, "backslashreplace") if isinstance(text, str) else text
        with self._changed:
            self._texts.append(data)
            self._bytes += _size(data)
            while len(self._texts) > 1 and (len(self._texts) > QUEUE_TEXTS or self._bytes > QUEUE_BYTES):
                oldest = self._texts.popleft()
                self._bytes -= _size(oldest)
                self._dropped += oldest.count(b"\n") if isinstance(oldest, bytes) else 1
            self._changed.notify_all()

    def live(self, text: str) -> None:
        """Draw the live line, below what was printed; empty: take it away. Only the newest is kept."""
        with self._changed:
            self._live = text.encode(self.encoding, "backslashreplace")
            self._changed.notify_all()

    def close(self, timeout_s: float) -> None:
        """Write what is queued, if it is taken in that time. What is printed later is not written."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (part := self._next()) is not None:
            data, lines = part
            try:
                self._write(data)
            except OSError:  # a full disk, a reader that is gone: counted, for when it goes on
                with self._changed:
                    self._dropped += lines
                    if self._closing:
                        return

    def _next(self) -> tuple[bytes, int] | None:
        """What to write next, and how many lines are lost if that fails; None: no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._texts or self._live is not None or self._closing)
            text: _Text = b""
            if self._texts:
                text = self._texts.popleft()
                self._bytes -= _size(text)
            elif self._live is not None:
                live, self._live = self._live, None
                data, self._shown = _ERASE + live if live or self._shown else b"", bool(live)
                return data, 0
            elif not self._dropped:
                return None
            lost, self._dropped = self._dropped, 0
        told = f"{self._told(lost)}\n".encode(self.encoding, "backslashreplace") if lost else b""
        erase, self._shown = _ERASE if self._shown else b"", False
        made = text if isinstance(text, bytes) else self._made(text)
        return erase + told + made, lost + made.count(b"\n")

    def _made(self, text: Callable[[], str]) -> bytes:
        try:
            line = text()
        except Exception as e:  # a fault of ours must not stop the output
            line = f"  note    a line could not be made: {e!r}\n"
        return line.encode(self.encoding, "backslashreplace")

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest and self._fd is not None:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:  # somebody made it non-blocking
                select.select([], [self._fd], [])


def _size(text: _Text) -> int:
    return len(text) if isinstance(text, bytes) else LATER_BYTES


class _Lines(io.TextIOBase):
    """A text stream whose whole lines go to a printer: what sys.stdout and sys.stderr are while a service runs."""

    def __init__(self, printer: Printer) -> None:
        self._printer = printer
        self._begun = ""  # a line without its end
        self._lock = threading.RLock()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The output's own."""
        return self._printer.encoding

    def isatty(self) -> bool:
        """Whether somebody watches."""
        return self._printer.tty

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, text: str) -> int:
        """Print what is a whole line by now, keep the rest for the next call; never waits. The number of characters."""
        with self._lock:
            whole, newline, self._begun = (self._begun + text).rpartition("\n")
            if newline:
                self._printer.put(whole + newline)
        return len(text)


@contextlib.contextmanager
def printers() -> Iterator[Printer]:
    """While it lasts, what writes to sys.stdout or sys.stderr does not wait (print, logging, warnings, tracebacks of
    threads). Yields stdout's printer; stderr's is the same where both are the same file, so that the order is kept.
    """
    real = sys.stdout, sys.stderr
    err = Printer(sys.stderr, lambda n: log_format.line(logging.WARNING, __name__, _DROPPED, n))
    out = err if _same_file(*real) else Printer(sys.stdout)
    sys.stdout, sys.stderr = _Lines(out), _Lines(err)
    try:
        yield out
    finally:
        sys.stdout, sys.stderr = real
        until_s = time.monotonic() + CLOSE_S
        for printer in (out, err):
            printer.close(max(0.0, until_s - time.monotonic()))


def _same_file(one: TextIO | None, other: TextIO | None) -> bool:
    try:
        return os.path.sameopenfile(one.fileno(), other.fileno())  # type: ignore[union-attr]
    except (AttributeError, OSError):
        return False
