"""The sources of a running service: a thread each, their states, and another try where a device is gone."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from kws_serve.audio.decoder import is_pipe
from kws_serve.engine.engine import Engine
from kws_serve.engine.stream import Stream
from kws_serve.messages import KwsError
from kws_serve.sources import portaudio
from kws_serve.sources.files import AudioFile
from kws_serve.sources.microphone import Microphone
from kws_serve.sources.spec import SourceSpec
from kws_serve.sources.stdin import Stdin

_log = logging.getLogger(__name__)

State = Literal["starting", "live", "retrying", "ended", "failed"]

MIN_RETRY_S, MAX_RETRY_S = 0.5, 30.0
STEADY_S = 10.0
"""A source that was live for this long is tried again at once when it breaks."""


@dataclass(frozen=True, slots=True)
class SourceState:
    """A source as people and /v1/status see it."""

    name: str
    spec: str
    kind: str
    state: State
    detail: str
    restarts: int
    retry_in_s: float | None  # state "retrying"


class OpenSource(Protocol):
    """What a source's thread runs."""

    rate_hz: int
    channels: int

    @property
    def detail(self) -> str:
        """What is open, for people."""

    def run(self, stream: Stream, stopping: threading.Event) -> None:
        """Feed `stream` until the input ends or `stopping` is set. Raises SourceError where it breaks."""

    def close(self) -> None:
        """Give the input back."""


def retry_delay_s(attempt: int, jitter: float) -> float:
    """The wait after failure `attempt` >= 0: doubling from 0.5 s to 30 s, less up to half by `jitter` in [0, 1)."""
    longest = min(MAX_RETRY_S, MIN_RETRY_S * 2.0 ** min(attempt, 16))
    return max(MIN_RETRY_S, longest * (1.0 - jitter / 2))


class Source:
    """One source and its thread."""

    def __init__(
        self, spec: SourceSpec, engine: Engine, *, loop: bool, on_change: Callable[[SourceState], None]
    ) -> None:
        self.spec = spec
        self.restarts = 0
        self._engine = engine
        self._loop = loop
        self._on_change = on_change
        self._target = spec.target
        self._state: State = "starting"
        self._detail = ""
        self._retry_at_s: float | None = None
        self._open: OpenSource | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"source {spec.name}", daemon=True)

    @property
    def state(self) -> SourceState:
        """How it is now."""
        retry_at_s, source = self._retry_at_s, self._open
        return SourceState(
            self.spec.name,
            self.spec.text,
            self.spec.kind,
            self._state,
            source.detail if source is not None and self._state == "live" else self._detail,
            self.restarts,
            None if retry_at_s is None else max(0.0, retry_at_s - time.monotonic()),
        )

    def prepare(self) -> None:
        """Find at once what no retry can heal. Raises SourceError: file unreadable, library missing."""
        if self.spec.kind == "mic":
            portaudio.load_sounddevice()
        elif self.spec.kind != "file" or not is_pipe(Path(self._target)):  # a pipe may keep us waiting
            self._open = self._opened()

    def start(self) -> None:
        """Begin to feed."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; `join` waits for it."""
        self._stopping.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _opened(self) -> OpenSource:
        if self.spec.kind in ("file", "demo"):
            return AudioFile(Path(self._target), channel=self.spec.channel or 0, alone=self.spec.alone, loop=self._loop)
        if self.spec.kind == "stdin":
            return Stdin()
        if self.restarts:
            portaudio.refresh_devices()
        microphone = Microphone(self._target)
        if self._target.split(":")[0].isdecimal():  # indexes change when devices come and go, names do not
            self._target = f"{microphone.device_name}:{microphone.channel}"
        return microphone

    def _change(self, state: State, detail: str, retry_at_s: float | None = None) -> None:
        self._state, self._detail, self._retry_at_s = state, detail, retry_at_s
        self._on_change(self.state)

    def _run(self) -> None:
        """Feed; where a microphone breaks, try again with growing pauses until told to stop."""
        attempt, delay_s = 0, 0.0
        while not self._stopping.is_set():
            began_s = time.monotonic()
            reason = self._feed()
            if reason is not None and self.spec.kind == "mic":
                attempt = 0 if time.monotonic() - began_s > STEADY_S else attempt
                delay_s = retry_delay_s(attempt, random.random())
                attempt += 1
                self._change("retrying", reason, time.monotonic() + delay_s)
            elif reason is not None:
                self._change("failed", reason)
            source, self._open = self._open, None
            if source is not None:
                source.close()  # after the news: a vanished device can take its time
            if self._state != "retrying" or self._stopping.wait(delay_s):
                return
            self.restarts += 1

    def _feed(self) -> str | None:
        """From opening to the input's end; or why it broke, the stream's name being free again."""
        stream: Stream | None = None
        try:
            if self._open is None:
                self._open = self._opened()
            source = self._open
            stream = self._engine.open_stream(
                self.spec.name, source.rate_hz, kind=self.spec.kind, channels=source.channels
            )
            self._change("live", source.detail)
            source.run(stream, self._stopping)
            stream.end()
            self._change("ended", source.detail)
            return None
        except KwsError as e:
            reason = str(e)
        except Exception as e:  # a fault of ours must not end the other sources silently
            _log.exception("source %s failed", self.spec.name)
            reason = f"{type(e).__name__}: {e}"
        if stream is not None:
            stream.close()
        return reason


class Sources:
    """All sources of the service."""

    def __init__(
        self,
        specs: Sequence[SourceSpec],
        engine: Engine,
        *,
        loop: bool = False,
        on_change: Callable[[SourceState], None] = lambda _: None,
    ) -> None:
        """`on_change` is told each new state, from the source's thread. The names are the sources' own from now on.

        Raises SourceError: see Source.prepare.
        """
        self._sources = [Source(spec, engine, loop=loop, on_change=on_change) for spec in specs]
        for source in self._sources:
            source.prepare()
        engine.reserved |= {spec.name for spec in specs}

    def start(self) -> None:
        """Begin to feed the engine."""
        for source in self._sources:
            source.start()

    def stop(self, timeout_s: float = 3.0) -> None:
        """End every source. Safe to call twice."""
        for source in self._sources:
            source.stop()
        deadline_s = time.monotonic() + timeout_s
        for source in self._sources:
            source.join(max(0.0, deadline_s - time.monotonic()))

    def states(self) -> list[SourceState]:
        """Every source as it is now."""
        return [source.state for source in self._sources]
