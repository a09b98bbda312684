"""All that a service needs, opened from the settings in the order in which what is wrong is best told."""

from __future__ import annotations

import itertools
import socket
import sys
from collections.abc import Callable
from dataclasses import replace

from kws_serve.api.security import check_exposure
from kws_serve.api.tokens import OwnToken, TokenFile
from kws_serve.app import ServerOptions, bound_socket
from kws_serve.backends.contract import devices
from kws_serve.commands.certificate import check_certificate
from kws_serve.commands.loading import apply_thresholds, new_engine, reload_model, reload_verifier
from kws_serve.commands.own_token import read_own_token, set_up_log
from kws_serve.commands.reloading import Reloading
from kws_serve.commands.running import Running, restore_settings
from kws_serve.commands.terminal import MICROPHONE_HELP
from kws_serve.config import Settings
from kws_serve.host.port_owner import port_fault
from kws_serve.host.printer import Printer
from kws_serve.manifest.package_data import demo_audio
from kws_serve.messages import KwsError
from kws_serve.sinks.event_log import EventLog
from kws_serve.sinks.expiry import Retention
from kws_serve.sinks.schema import LogInUse
from kws_serve.sources.spec import SourceSpec, parse_sources


def open_service(settings: Settings, printer: Printer, read_again: Callable[[], Settings] | None = None) -> Running:
    """A service that is ready to run. `read_again`: the settings, as SIGHUP wants them. Raises KwsError."""
    token = read_own_token(settings)
    settings = settings.model_copy(update={"token": None})
    set_up_log(settings, token)
    tokens = TokenFile(settings.data_folder / "tokens.json")
    options = _options(settings, token, tokens)
    check_exposure(options.hosts, token, settings.insecure, tokens)
    check_certificate(settings.tls_cert, settings.tls_key)
    engine = new_engine(settings, live=True)
    specs, notice = _sources(settings)
    notice = "; ".join(text for text in (notice, *(device.notice() for device in devices(engine.loaded))) if text)
    options = replace(options, note=settings.note or notice)
    bound = _bound(settings)
    log = _open_log(settings)
    restore_settings(engine, log)
    apply_thresholds(engine, settings.thresholds)
    running = Running(
        engine,
        log,
        specs,
        options,
        bound=bound,
        loop=settings.loop or settings.demo,
        notice=notice,
        watch=(settings.watch, tuple(secret.get_secret_value() for secret in settings.watch_token)),
        printer=printer,
    )
    if read_again is not None:
        running.reload = Reloading(settings, read_again, running)
    return running


def _options(settings: Settings, token: OwnToken | None, tokens: TokenFile) -> ServerOptions:
    return ServerOptions(
        settings.host,
        settings.port,
        token,
        settings.insecure,
        tokens,
        settings.tls_cert,
        settings.tls_key,
        load_model=lambda name: reload_model(name, settings),
        load_verifier=lambda name: reload_verifier(name, settings),
        transport=settings.transport,
        public_urls=settings.public_url,
        allow_hosts=settings.allow_host,
    )


def _bound(settings: Settings) -> socket.socket:
    """The socket to listen on. Raises KwsError."""
    try:
        return bound_socket(settings.host, settings.port)
    except OSError as e:
        raise KwsError(port_fault(e, settings.host, settings.port, sys.argv[1:])) from None


def _open_log(settings: Settings) -> EventLog:
    """The log of the port; of any free port the first that no other service has. Raises KwsError."""
    keep = Retention(settings.keep_days, settings.keep_mb)
    numbers = itertools.count(2)
    path = settings.data_folder / f"events-{settings.port}.db"
    while True:
        try:
            log = EventLog(path, keep)
            break
        except LogInUse:
            if settings.port != 0:
                raise
            path = settings.data_folder / f"events-0-{next(numbers)}.db"
    if log.store.file.set_aside is not None:
        print(
            f"warning: {path} was damaged; kept as {log.store.file.set_aside}, read on from what could be read",
            file=sys.stderr,
        )
    return log


def _sources(settings: Settings) -> tuple[list[SourceSpec], str]:
    """What to listen to, and what to tell about it."""
    if settings.demo:
        return [
            SourceSpec("demo", "demo", str(demo_audio()), "--demo"),
            *parse_sources(settings.source),
        ], "demo audio: synthetic speech and sounds, made by free programs"
    if settings.source:
        return parse_sources(settings.source), ""
    from kws_serve.sources.portaudio import find_device  # PortAudio may be absent where nobody needs a microphone

    try:
        find_device("")
    except KwsError as e:
        return [], f"no microphone ({e}): {MICROPHONE_HELP}"
    return parse_sources(["mic"]), ""
