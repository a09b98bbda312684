"""Raw PCM on stdin: signed 16-bit little-endian, 16 kHz, mono."""

from __future__ import annotations

import os
import select
import sys
import threading
import time

from kws_serve.audio.containers import SURE_BYTES, may_be_frames, recognised
from kws_serve.audio.decoder import is_text
from kws_serve.core.pcm import decoded
from kws_serve.engine.stream import MAX_AHEAD_S, Stream
from kws_serve.messages import SourceError

_POLL_S = 0.1  # how soon a stop is noticed
_READ_BYTES = 6400  # 0.2 s: what is read at once at most, so that a fast pipe is held back in time
_HINT = "convert it first: ffmpeg -i FILE -f s16le -ar 16000 -ac 1 - | kws-serve --source -"
_ENOUGH_BYTES = 64  # tell text and headers from samples, but for what may be a stream without a header


class Stdin:
    """Bytes of a file descriptor as samples."""

    rate_hz = 16000
    channels = 1

    def __init__(self, fd: int | None = None) -> None:
        """`fd`: stdin's unless given. Raises SourceError where it is a terminal."""
        if fd is None and sys.stdin is None:
            raise SourceError("stdin: found it closed, wanted raw PCM (s16le, 16 kHz, mono) through a pipe")
        self._fd = sys.stdin.fileno() if fd is None else fd
        if os.isatty(self._fd):
            raise SourceError("stdin: found a terminal, wanted raw PCM (s16le, 16 kHz, mono) through a pipe")
        self.odd_bytes = 0

    @property
    def detail(self) -> str:
        """What is read, for people."""
        odd = ", an odd byte at the end left out" if self.odd_bytes else ""
        return f"raw s16le PCM, mono, {self.rate_hz} Hz{odd}"

    def run(self, stream: Stream, stopping: threading.Event) -> None:
        """Push what comes until the end or `stopping`; not read while 2 s ahead of real time. Raises SourceError."""
        pending = b""
        checked = False
        while not stopping.is_set():
            now_s = time.monotonic()
            if stream.ahead_s(now_s) > MAX_AHEAD_S:
                stopping.wait(_POLL_S)
                continue
            if not select.select([self._fd], [], [], _POLL_S)[0]:
                continue
            try:
                data = os.read(self._fd, _READ_BYTES)
            except OSError as e:
                raise SourceError(f"stdin: broke off ({e.strerror})") from e
            pending += data
            enough = SURE_BYTES if may_be_frames(pending) else _ENOUGH_BYTES
            if not checked and (len(pending) >= enough or not data):
                check_pcm(pending)
                checked = True
            if checked:
                whole = len(pending) // 2 * 2
                stream.push(decoded(pending[:whole], 2).samples, time.monotonic())
                pending = pending[whole:]
            if not data:
                self.odd_bytes = len(pending)
                return

    def close(self) -> None:
        """Nothing: stdin is the process's."""


def check_pcm(beginning: bytes) -> None:
    """Raises SourceError where the first bytes are plainly not PCM: a file of some kind, or text."""
    if kind := recognised(beginning):
        raise SourceError(f"stdin: found {kind} header, wanted raw PCM (s16le, 16 kHz, mono); {_HINT}")
    if is_text(beginning):
        shown = beginning[:20].decode("ascii")
        raise SourceError(f"stdin: found text ({shown!r}), wanted raw PCM (s16le, 16 kHz, mono); {_HINT}")
