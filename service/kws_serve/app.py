"""The server: routes, sockets and page on one ASGI app, run by uvicorn."""

from __future__ import annotations

import asyncio
import asyncio.constants
import contextlib
import logging
import os
import socket
import sqlite3
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi import WebSocket as AppWebSocket
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from kws_serve import __version__
from kws_serve.api.audio_ws import audio
from kws_serve.api.detections_ws import detections
from kws_serve.api.guard import Guard
from kws_serve.api.hosts import Hosts
from kws_serve.api.ingest import Ingest
from kws_serve.api.live_ws import live
from kws_serve.api.page import PageFiles
from kws_serve.api.routes import error, log_error, make_router, wire_error
from kws_serve.api.security import Access, check_exposure
from kws_serve.api.service import Service
from kws_serve.api.shedding import shed
from kws_serve.api.tokens import OwnToken, TokenFile
from kws_serve.backends.contract import LoadedModel
from kws_serve.engine.engine import Engine
from kws_serve.engine.runner import EngineRunner
from kws_serve.manifest.package_data import data_path
from kws_serve.messages import JsonObject
from kws_serve.sinks.event_log import EventLog
from kws_serve.transport.batching import TOGETHER_S, StreamLoop
from kws_serve.transport.choice import choose
from kws_serve.transport.connection import MAX_MESSAGE_BYTES, REQUEST_S
from kws_serve.wire import WireError

_log = logging.getLogger(__name__)

SOCKETS = ("/v1/audio", "/v1/detections", "/v1/live")
"""Where WebSockets are."""

BACKLOG = 2048
"""Connections that wait in the kernel to be let in."""

LET_IN, LET_IN_TLS = 16, 4
"""Connections let in at one look at the door: a handshake of TLS takes about 1 ms, a plain connection 0.1 ms."""


@dataclass(frozen=True)
class ServerOptions:
    """How the server listens."""

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | OwnToken | None = None
    insecure: bool = False
    tokens: TokenFile | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    sources: Callable[[], Sequence[Any]] = lambda: ()  # SourceState of each source
    load_model: Callable[[str], list[LoadedModel]] = lambda _: []
    load_verifier: Callable[[str], LoadedModel] | None = None
    watched: Callable[[], list[JsonObject]] = list  # a row for each server that this one watches
    note: str = ""
    transport: str = "own"  # or plain
    public_urls: tuple[str, ...] = ()
    allow_hosts: tuple[str, ...] = ()

    @property
    def hosts(self) -> Hosts:
        """By which names it is reached."""
        return Hosts(self.host, self.tls_cert is not None, self.public_urls, self.allow_hosts)


def build_app(engine: Engine, runner: EngineRunner, log: EventLog, options: ServerOptions) -> FastAPI:
    """The ASGI app around running parts. Raises KwsError: exposed without a token."""
    check_exposure(options.hosts, options.token, options.insecure, options.tokens)
    access = Access(options.hosts, options.token, options.tokens, options.insecure)
    ingest = Ingest(engine, log)
    address = f"{options.host}:{options.port}"
    service = Service(
        engine,
        runner,
        log,
        ingest,
        address,
        options.sources,
        options.load_model,
        options.watched,
        options.load_verifier,
        note=options.note,
    )
    log.positions.source = engine.positions
    app = FastAPI(
        title="kws-serve",
        version=__version__,
        lifespan=lambda _: _while_served(runner, log, ingest),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service, app.state.access = service, access
    app.include_router(make_router())
    app.add_exception_handler(WireError, wire_error)
    app.add_exception_handler(sqlite3.Error, log_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, wire_error)

    for path in SOCKETS:  # behind the routes: /v1/detections is both

        @app.get(path, include_in_schema=False)
        async def no_socket() -> JSONResponse:
            return error(426, "WebSocket: found no Upgrade header, wanted one; a proxy in between has to hand it on")

    @app.websocket("/v1/detections")
    async def detections_socket(ws: AppWebSocket) -> None:
        await detections(ws, log, access, service.slices, service.subscribers)

    @app.websocket("/v1/audio")
    async def audio_socket(ws: AppWebSocket) -> None:
        await audio(ws, ingest, access)

    @app.websocket("/v1/live")
    async def live_socket(ws: AppWebSocket) -> None:
        await live(ws, engine, access, service.viewers)

    page = data_path("frontend")
    files = frozenset(f"/{p.relative_to(page).as_posix()}" for p in page.rglob("*") if p.is_file())
    if page.is_dir():
        app.mount("/", PageFiles(directory=page, html=True))
    app.add_middleware(Guard, access=access, public=files | {"/"}, sockets=frozenset(SOCKETS))
    return app


@contextlib.asynccontextmanager
async def _while_served(runner: EngineRunner, log: EventLog, ingest: Ingest) -> AsyncIterator[None]:
    """The server's loop hears from the log and tells the engine what it has read, until the server ends."""
    loop = asyncio.get_running_loop()
    log.bind(loop)
    if isinstance(loop, StreamLoop):
        runner.read_by_this_thread()
        loop.streams.on_read = runner.release
    shedding = asyncio.create_task(shed(ingest))
    ingest.since_s = time.monotonic()
    yield
    shedding.cancel()


async def _http_error(_: Request, e: Exception) -> JSONResponse:
    assert isinstance(e, HTTPException)
    return error(e.status_code, f"{e.detail}")


class _Uvicorn(uvicorn.Server):
    """Its `backlog` is what is let in at once; what waits in the kernel may be more."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen with a longer backlog; the listening sockets are doors."""
        await super().startup(sockets)
        loop = asyncio.get_running_loop()
        for sock in sockets or ():
            sock.listen(BACKLOG)
            if isinstance(loop, StreamLoop):
                loop.streams.door(sock.fileno())


class Server:
    """uvicorn around the app, on a socket bound beforehand so that a port in use is known at once."""

    def __init__(self, app: FastAPI, options: ServerOptions, bound: socket.socket | None = None) -> None:
        """`bound`: a socket of `bound_socket`. Raises OSError where the address or port can't be had."""
        self.options = options
        self.socket = bound or bound_socket(options.host, options.port)
        self.port: int = self.socket.getsockname()[1]
        app.state.service.address = f"{options.host}:{self.port}"
        self._transport = choose(options.transport)
        let_in = (LET_IN if options.tls_cert is None else LET_IN_TLS) if self._transport.own else BACKLOG
        config = uvicorn.Config(
            self._transport.wrap(app),
            http=self._transport.http,
            ws=self._transport.ws,
            ws_max_size=4 * MAX_MESSAGE_BYTES,  # larger ones are refused by name, with what was wanted
            ws_per_message_deflate=False,  # PCM does not shrink, and a bomb would grow
            ws_ping_interval=3.0,
            ws_ping_timeout=None,  # a client that sends without reading is alive; dead ones: see bound_socket
            timeout_keep_alive=10,
            timeout_graceful_shutdown=2,
            h11_max_incomplete_event_size=32 * 1024,
            access_log=False,
            log_config=None,
            log_level="warning",  # at debug level, frames with tokens would be logged
            server_header=False,
            lifespan="on",
            proxy_headers=bool(options.public_urls or os.environ.get("FORWARDED_ALLOW_IPS")),  # X-Forwarded-For
            backlog=let_in,
            ssl_certfile=options.tls_cert,
            ssl_keyfile=options.tls_key,
        )
        if options.tls_cert is not None:
            config.load()
            assert config.ssl is not None
            config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
            asyncio.constants.SSL_HANDSHAKE_TIMEOUT = REQUEST_S  # 60 s otherwise
        self._config = config
        self._uvicorn = _Uvicorn(config) if self._transport.own else uvicorn.Server(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._beat_s = time.monotonic()

    async def serve(self) -> None:
        """Until `stop`."""
        self._loop = asyncio.get_running_loop()
        beating = asyncio.create_task(self._beat())
        await self._uvicorn.serve(sockets=[self.socket])
        beating.cancel()

    async def _beat(self) -> None:
        while True:
            self._beat_s = time.monotonic()
            await asyncio.sleep(0.5)

    def run(self) -> None:
        """Serve in this thread, stopping cleanly at SIGINT and SIGTERM."""
        with asyncio.Runner(loop_factory=self._transport.new_loop) as runner:
            runner.run(self.serve())

    def accept_no_more(self) -> None:
        """Close the door; those inside go on. Any thread."""
        loop, servers = self._loop, list(getattr(self._uvicorn, "servers", ()))
        if loop is not None and not loop.is_closed():
            for server in servers:
                loop.call_soon_threadsafe(server.close)

    def renew_certificate(self, cert: Path, key: Path) -> None:
        """Show these files to whoever connects from now on; they have been looked at before. Any thread."""
        loop, context = self._loop, self._config.ssl
        if context is not None and loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(context.load_cert_chain, cert, key)

    def let_read(self, timeout_s: float) -> None:
        """Wait until the loop has read what lies in its sockets, at most this long. Any thread but the loop's."""
        loop, read = self._loop, threading.Event()
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(
                loop.call_later, 2 * TOGETHER_S, read.set
            )  # sockets of many streams wait that long
            read.wait(timeout_s)

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the page."""
        host = self.options.host
        shown = f"[{host}]" if ":" in host and not host.startswith("[") else host
        here = "localhost" if host in ("0.0.0.0", "::", "") else shown
        return f"http{'s' if self.options.tls_cert else ''}://{here}:{self.port}/"

    @property
    def pulse_s(self) -> float:
        """Seconds since the server's loop last did something."""
        return time.monotonic() - self._beat_s

    def stop(self) -> None:
        """Ask the server to end. Any thread."""
        self._uvicorn.should_exit = True

    @property
    def started(self) -> bool:
        """Whether connections are accepted."""
        return self._uvicorn.started


def bound_socket(host: str, port: int) -> socket.socket:
    """A listening TCP socket. Its connections are given up 7 s after the other side fell silent (Linux): pings make
    traffic, and the kernel's acknowledgements tell a dead peer from one that is alive but does not read.
    """
    bare = host.strip("[]")
    family, kind, proto, _, address = socket.getaddrinfo(
        bare or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            ("TCP_KEEPIDLE", 3),
            ("TCP_KEEPINTVL", 2),
            ("TCP_KEEPCNT", 3),
            ("TCP_USER_TIMEOUT", 7000),
        ):
            if hasattr(socket, option):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    sock.set_inheritable(True)
    return sock
