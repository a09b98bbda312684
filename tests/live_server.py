"""The real server on real sockets, in this process: an engine thread, a uvicorn thread, an ephemeral port."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from kws_serve.app import Server, ServerOptions, build_app
from kws_serve.backends import open_backend
from kws_serve.engine import Engine, EngineRunner, LoadedModel
from kws_serve.model_folder import load_model
from kws_serve.sinks.history import History


class LiveServer:
    """A running server; `host` is 127.0.0.1:PORT."""

    def __init__(self, folders: Sequence[Path], options: ServerOptions, kept: int = 10_000) -> None:
        specs = [load_model(folder) for folder in folders]
        self.engine = Engine([LoadedModel(s, open_backend("onnx", s), "onnx") for s in specs], max_streams=64)
        self.history = History(kept)
        self.runner = EngineRunner(self.engine, self.history.publish)
        self.app = build_app(self.engine, self.runner, self.history, options)
        self.server = Server(self.app, options)
        self.host = f"127.0.0.1:{self.server.port}"
        self.ws = f"ws://{self.host}"
        self.http = f"http://{self.host}"
        self._thread = threading.Thread(target=self.server.run, daemon=True)

    def start(self) -> None:
        self.runner.start()
        self._thread.start()
        while not self.server.started:
            self._thread.join(0.01)

    def stop(self) -> None:
        self.server.stop()
        self._thread.join(10)
        self.runner.stop()


@contextlib.contextmanager
def live_server(
    folders: Sequence[Path], *, token: str | None = None, port: int = 0, kept: int = 10_000
) -> Iterator[LiveServer]:
    """A server for the length of a test."""
    server = LiveServer(folders, ServerOptions(port=port, token=token), kept)
    server.start()
    try:
        yield server
    finally:
        server.stop()
