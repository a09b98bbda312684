"""The real server on real sockets, in this process: an engine thread, a uvicorn thread, an ephemeral port."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import httpx

from kws_serve.api.tokens import TokenFile
from kws_serve.app import Server, ServerOptions, bound_socket, build_app
from kws_serve.backends import open_backend
from kws_serve.backends.contract import LoadedModel
from kws_serve.engine.engine import Engine
from kws_serve.engine.runner import EngineRunner
from kws_serve.manifest.folder import load_model
from kws_serve.messages import JsonObject
from kws_serve.sinks.event_log import EventLog
from kws_serve.sinks.expiry import Retention


class LiveServer:
    """A running server; `host` is 127.0.0.1:PORT."""

    def __init__(self, folders: Sequence[Path], options: ServerOptions, data: Path, keep: Retention) -> None:
        specs = [load_model(folder) for folder in folders]
        self.engine = Engine([LoadedModel(s, open_backend("onnx", s), "onnx") for s in specs], max_streams=64)
        self.folders = {folder.name: folder for folder in folders}
        self.log = EventLog(data / "events.db", keep)
        self.runner = EngineRunner(self.engine, self.log.publish)
        self.app = build_app(self.engine, self.runner, self.log, replace(options, load_model=self.load_model))
        self.server = Server(self.app, options, bound_socket("127.0.0.1", options.port))  # whatever `host` says
        self.host = f"127.0.0.1:{self.server.port}"
        self.ws = f"{'wss' if options.tls_cert else 'ws'}://{self.host}"
        self.http = f"{'https' if options.tls_cert else 'http'}://{self.host}"
        self._thread = threading.Thread(target=self.server.run, daemon=True)

    def start(self) -> None:
        self.runner.start()
        self._thread.start()
        while not self.server.started:
            self._thread.join(0.01)

    def load_model(self, name: str) -> list[LoadedModel]:
        spec = load_model(self.folders[name])
        return [LoadedModel(spec, open_backend("onnx", spec), "onnx")]

    def rows(self) -> list[JsonObject]:
        """Of this server and those that it watches."""
        rows: list[JsonObject] = httpx.get(f"{self.http}/v1/servers").json()["items"]
        return rows

    def stop(self) -> None:
        self.server.stop()
        self._thread.join(10)
        self.runner.stop()
        self.log.close()


@contextlib.contextmanager
def live_server(
    folders: Sequence[Path],
    *,
    token: str | None = None,
    port: int = 0,
    data: Path | None = None,
    keep: Retention = Retention(),  # noqa: B008 (frozen)
    tokens: TokenFile | None = None,
    watched: Callable[[], list[JsonObject]] = list,
    host: str = "127.0.0.1",
    insecure: bool = False,
    transport: str = "own",
    tls: tuple[Path, Path] | None = None,
    public_urls: tuple[str, ...] = (),
    allow_hosts: tuple[str, ...] = (),
) -> Iterator[LiveServer]:
    """A server for the length of a test; its log in `data`, or gone with it.

    `host`: what it takes itself for; `tls`: its certificate and key.
    """
    with tempfile.TemporaryDirectory() as own:
        options = ServerOptions(host, port, token, insecure, tokens, watched=watched, transport=transport)
        options = replace(options, public_urls=public_urls, allow_hosts=allow_hosts)
        if tls:
            options = replace(options, tls_cert=tls[0], tls_key=tls[1])
        server = LiveServer(folders, options, data or Path(own), keep)
        server.start()
        try:
            yield server
        finally:
            server.stop()
