"""A running service: engine, log, sources and server together, and what its terminal shows."""

from __future__ import annotations

import contextlib
import logging
import resource
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from kws_serve.api.security import Access
from kws_serve.app import Server, ServerOptions, build_app
from kws_serve.commands.terminal import Terminal
from kws_serve.engine.engine import Engine
from kws_serve.engine.runner import EngineRunner
from kws_serve.host.printer import Printer
from kws_serve.host.stop_signal import StopSignal
from kws_serve.host.systemd import Notifier
from kws_serve.host.watch import Watch
from kws_serve.messages import Detection
from kws_serve.sinks.event_log import EventLog
from kws_serve.sources.spec import SourceSpec
from kws_serve.sources.supervisor import Sources, SourceState

_log = logging.getLogger(__name__)

_LINE_S, _HINT_S = 0.2, 1.0
"""How often the live line is drawn (the eye sees a level move), and, without a terminal, silence is looked for."""

_PULSE_S = 5.0
"""A server whose loop did nothing for so long hangs: it does something every half second (Server._beat)."""


class Running:
    """Owns the threads of a service and winds them down, so that what was heard is logged and told before it ends."""

    def __init__(
        self,
        engine: Engine,
        log: EventLog,
        specs: Sequence[SourceSpec],
        options: ServerOptions,
        *,
        bound: socket.socket | None = None,
        loop: bool,
        notice: str,
        watch: tuple[Sequence[str], Sequence[str]] = ((), ()),
        printer: Printer | None = None,
    ) -> None:
        """Everything that can be refused is refused here. `watch`: URLs and tokens of other servers. `printer`:
        stdout's.

        Raises KwsError, OSError (address).
        """
        self.engine = engine
        self.log = log
        self.log.on_commit = self._committed
        self.runner = EngineRunner(engine, self.log.publish)
        self.terminal = Terminal(engine, notice, printer or Printer(sys.stdout))
        self.sources = Sources(specs, engine, loop=loop, on_change=self._source_changed)
        self.watch = Watch(*watch, self.terminal.server)
        self.options = replace(options, sources=self.sources.states, watched=self.watch.rows)
        app = build_app(engine, self.runner, self.log, self.options)
        self.access: Access = app.state.access
        self.server = Server(app, self.options, bound)
        self.reload: Callable[[], str] = lambda: "nothing to read again"
        self._notifier = Notifier()
        self._stop = StopSignal(self._read_again)

    def run(self) -> int:
        """Serve until SIGINT or SIGTERM; 0, or 1 where the server itself ended."""
        self._stop.install()
        _raise_file_limit()
        notifier = self._notifier
        serving = threading.Thread(target=self.server.run, name="server", daemon=True)
        self.runner.start()
        serving.start()
        while not self.server.started and serving.is_alive():
            serving.join(0.005)
        kept = f"{self.log.store.path} (last id {self.log.last_id}); audio is not stored"
        self.terminal.banner(" ".join((self.server.url, *self.options.public_urls)), kept, self.sources.states())
        self.sources.start()
        self.watch.start()
        notifier.tell("READY=1")
        while not self._stop.wait(_LINE_S if self.terminal.tty else _HINT_S) and serving.is_alive():
            self.terminal.live_line()
            if self.progress:
                notifier.tell("WATCHDOG=1")
        notifier.tell("STOPPING=1")
        clean = self._stop.came
        self.terminal.clear()
        self._wind_down(serving)
        return 0 if clean else 1

    def _read_again(self) -> None:
        self._notifier.tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        self.terminal.reloaded(self.reload())
        self._notifier.tell("READY=1")

    @property
    def progress(self) -> bool:
        """Whether the engine ticks, the server's loop turns and the log's writer lives: what feeds the watchdog."""
        return self.runner.alive and self.server.pulse_s < _PULSE_S and self.log.alive

    def _wind_down(self, serving: threading.Thread) -> None:
        """Stop accepting, flush, commit, close 1012: what was heard is found, logged and pushed before the doors shut.

        A client's stream is not ended: it can go on where it was when the service is back.
        """
        self.server.accept_no_more()
        self.watch.stop()
        self.sources.stop(timeout_s=1.0)
        self.server.let_read(timeout_s=1.0)
        self.runner.drain(timeout_s=1.0)
        self.log.flush(timeout_s=1.0)
        self.server.stop()
        serving.join(2.5)
        self.runner.stop(timeout_s=1.0)
        self.log.close(timeout_s=2.0)
        if not self.runner.running:  # one that still computes would find them closed
            self.engine.close(timeout_s=1.0)

    def _committed(self, detections: list[Detection]) -> None:
        """In the log's thread: only queues."""
        for detection in detections:
            self.terminal.detection(detection)

    def _source_changed(self, state: SourceState) -> None:
        self.terminal.source(state)


def restore_settings(engine: Engine, log: EventLog) -> None:
    """The detector settings that PATCH left in the log; those that no longer fit are said and left out."""
    try:
        kept, of_streams = log.overrides(), log.stream_overrides()
    except sqlite3.Error as e:
        _log.error("event log: %s: settings changed before are not in force", e)
        return
    for model, overrides in kept.items():
        if model in engine.models:
            engine.restore_detection(model, overrides)
    for stream, model, overrides in of_streams:
        if model in engine.models:
            engine.restore_detection(model, overrides, stream)


def _raise_file_limit() -> None:
    """As many open connections as the system lets us have; its default of 1024 files is for other times."""
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
