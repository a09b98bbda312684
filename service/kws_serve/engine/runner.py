"""The engine's owner thread."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from kws_serve.engine.admission import share_of_one
from kws_serve.engine.engine import Engine
from kws_serve.messages import Event

_log = logging.getLogger(__name__)

_IDLE_S = 1.0
"""Without input the thread looks round so often, to show that it is alive."""

_STUCK_S = 5.0
"""Without a look round for so long it is not: no tick that keeps up takes that long."""

_DRAINED_S = 0.005
"""How often `drain` asks, a quarter of a tick."""


class EngineRunner:
    """The engine's owner thread: ticks when there is input, hands the events to `sink` from its own thread."""

    MIN_TICK_S = 0.020
    """From one tick to the next at least, so that many streams share a tick: 40 ms cost 6 % less CPU at 300 streams,
    and 17 ms more latency (docs/measurements.md)."""

    def __init__(self, engine: Engine, sink: Callable[[list[Event]], None]) -> None:
        self.engine = engine
        self.sink = sink
        self.last_tick_s = time.monotonic()  # progress, for readiness
        self._input = threading.Event()
        self._reader = 0  # the thread that says when it has read enough
        self._read = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to tick."""
        self.engine.load.of_one = share_of_one([model.loaded for lane in self.engine.lanes for model in lane.models])
        self.engine.on_input = self._woken
        self._thread.start()

    def read_by_this_thread(self) -> None:
        """Input of this thread begins a tick only once it calls `release`, so that what it reads together is computed
        together.
        """
        self._reader = threading.get_ident()

    def release(self) -> None:
        """What this thread has read since the last call begins a tick now."""
        if self._read:
            self._read = False
            self._input.set()

    def _woken(self) -> None:
        if threading.get_ident() == self._reader:
            self._read = True
        elif not self._input.is_set():  # asking costs less than setting
            self._input.set()

    def drain(self, timeout_s: float) -> None:
        """Wait until everything that has arrived is processed, at most this long."""
        deadline_s = time.monotonic() + timeout_s
        while self.engine.busy and self._thread.is_alive() and time.monotonic() < deadline_s:
            time.sleep(_DRAINED_S)

    def stop(self, timeout_s: float = 5.0) -> None:
        """Finish what has arrived, then end the thread. Safe to call twice."""
        self._stopping.set()
        self._input.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    @property
    def running(self) -> bool:
        """Whether the thread has not ended."""
        return self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether the thread runs and has looked for work in the last seconds."""
        return self._thread.is_alive() and time.monotonic() - self.last_tick_s < _STUCK_S

    def _run(self) -> None:
        ended_s = time.monotonic()
        while True:
            self._input.wait(timeout=_IDLE_S)
            self._input.clear()
            now_s = time.monotonic()
            if self._stopping.is_set():
                if not self.engine.busy:
                    return
            elif self.engine.ready and not self.engine.only_free:
                self._stopping.wait(max(0.0, self.last_tick_s + self.MIN_TICK_S - now_s))
            self.last_tick_s = time.monotonic()
            self._tick()
            done_s = time.monotonic()
            self.engine.load.note(self.engine.live_share * (done_s - self.last_tick_s), done_s - ended_s)
            ended_s = done_s
            if self.engine.ready:
                self._input.set()

    def _tick(self) -> None:
        try:
            events = self.engine.tick()
        except Exception:
            _log.exception("the engine's tick failed; its events are lost")
            return
        if events:
            self.sink(events)
