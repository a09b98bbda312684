"""A running service: engine, sources and server together, and what its terminal shows."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from dataclasses import replace
from types import FrameType

from kws_serve.app import Server, ServerOptions, build_app
from kws_serve.engine import Engine, EngineRunner
from kws_serve.messages import Detection, Event
from kws_serve.sinks.history import History
from kws_serve.sources.spec import SourceSpec
from kws_serve.sources.supervisor import Sources, SourceState
from kws_serve.terminal import Terminal

_LINE_S, _HINT_S = 0.2, 1.0  # how often the live line is drawn, silence is looked for


class Running:
    """See the module."""

    def __init__(
        self, engine: Engine, specs: Sequence[SourceSpec], options: ServerOptions, *, loop: bool, notice: str
    ) -> None:
        """Everything that can be refused is refused here. Raises KwsError, OSError (address)."""
        self.engine = engine
        self.history = History()
        self.runner = EngineRunner(engine, self._publish)
        self.terminal = Terminal(engine, notice)
        self.sources = Sources(specs, engine, loop=loop, on_change=self._source_changed)
        self.options = replace(options, sources=self.sources.states, note=notice)
        self.server = Server(build_app(engine, self.runner, self.history, self.options), self.options)
        self._stopping = threading.Event()

    def run(self) -> int:
        """Serve until SIGINT or SIGTERM; 0, or 1 where the server itself ended."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        serving = threading.Thread(target=self.server.run, name="server", daemon=True)
        self.runner.start()
        serving.start()
        while not self.server.started and serving.is_alive():
            serving.join(0.005)
        self.terminal.banner(self.options.host, self.server.port, self.sources.states())
        self.sources.start()
        while not self._stopping.wait(_LINE_S if self.terminal.tty else _HINT_S) and serving.is_alive():
            self.terminal.live_line()
        clean = self._stopping.is_set()
        self.terminal.clear()
        self.sources.stop(timeout_s=1.0)
        self.runner.drain(timeout_s=1.0)  # what is found now still reaches the clients
        self.server.stop()
        serving.join(2.5)
        self.runner.stop(timeout_s=0.5)
        for model in self.engine.loaded:
            model.backend.close()
        return 0 if clean else 1

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping.set()

    def _publish(self, events: list[Event]) -> None:
        self.history.publish(events)
        for event in events:
            if isinstance(event, Detection):
                self.terminal.detection(event)

    def _source_changed(self, state: SourceState) -> None:
        self.terminal.source(state)
