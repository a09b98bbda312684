"""The commands `kws-serve` and `kws-detect`: settings in, one clear line out where something is wrong."""

from __future__ import annotations

import argparse
import contextlib
import errno
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kws_serve import __version__
from kws_serve.config import DETECT, SERVE, Settings, add_flags, load_settings
from kws_serve.host import log_format
from kws_serve.host.log_format import printable
from kws_serve.host.printer import Printer, printers
from kws_serve.messages import KwsError

if TYPE_CHECKING:
    from kws_serve.backends.contract import LoadedModel

_MICROPHONE_HELP = "open the page to use the browser's, or name a file with --source FILE, or --demo"


def serve(argv: Sequence[str] | None = None) -> None:
    """`kws-serve`: exits 0 after SIGINT or SIGTERM, 2 where a setting, model, source or port is wrong."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["token"]:
        from kws_serve.commands.tokens import token

        sys.exit(_guarded(token, {"words": words[1:]}))
    if words[:1] == ["status"]:
        from kws_serve.commands.status import status

        sys.exit(_guarded(status, {"words": words[1:]}))
    parser = _parser(
        SERVE,
        "Live audio in, detections out: WebSockets, a page, several models at once. "
        "`kws-serve token --help`: tokens for other machines; `kws-serve status`: who is up.",
    )
    parser.add_argument("--list-devices", action="store_true", help="list the capture devices and exit")
    sys.exit(_guarded(_serve, vars(parser.parse_args(words))))


def detect(argv: Sequence[str] | None = None) -> None:
    """`kws-detect`: exits 0 also where nothing was found, 2 where an input cannot be read."""
    parser = _parser(DETECT, "The same detections from audio files, as fast as it goes.")
    parser.add_argument("file", nargs="+", metavar="FILE", help="an audio file that libsndfile reads")
    sys.exit(_guarded(_detect, vars(parser.parse_args(argv))))


class _Parser(argparse.ArgumentParser):
    """Errors in one line, without the usage."""

    def error(self, message: str) -> Any:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser(command: str, text: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=command, description=text, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"{command} {__version__}")
    add_flags(parser, command)
    return parser


def _guarded(run: Any, arguments: dict[str, Any]) -> int:
    """Run a command; a fault that is the user's to mend is one line on stderr."""
    log_format.set_up()
    try:
        return int(run(arguments))
    except KwsError as e:
        print(f"error: {printable(str(e))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `kws-detect ... | head`
        sys.stderr.close()
        return 0


def load_models(settings: Settings, *, live: bool = False) -> list[LoadedModel]:
    """Every model on every backend asked for. `live`: a device must keep up with audio as it comes, for which patch
    hops are stretched. Raises KwsError; then nothing stays open.
    """
    from kws_serve.backends.contract import DeviceBackend, devices

    loaded: list[LoadedModel] = []
    try:
        for name in settings.model:
            loaded += load_model(name, settings)
        if not live:
            return loaded
        if loaded and isinstance(publishing := loaded[0].backend, DeviceBackend):
            hops = publishing.device.share_out()
            return [_with_hop(model, hops[model.spec.name]) for model in loaded]
        for device in devices(loaded):
            device.warn_if_slow()
    except KwsError:
        _close(loaded)
        raise
    return loaded


def reload_model(name: str, settings: Settings) -> list[LoadedModel]:
    """A model opened again beside the one that runs, with its patch hop where a device computes. Raises KwsError."""
    from kws_serve.backends.contract import DeviceBackend

    group = load_model(name, settings)
    if not isinstance(publishing := group[0].backend, DeviceBackend):
        return group
    try:
        hop_ms = publishing.device.take_over(group[0].spec)
    except KwsError:
        _close(group)
        raise
    return [_with_hop(model, hop_ms) for model in group]


def _with_hop(model: LoadedModel, patch_hop_ms: float) -> LoadedModel:
    return replace(model, spec=replace(model.spec, patch_hop_ms=patch_hop_ms))


def _close(models: Sequence[LoadedModel]) -> None:
    for model in models:
        model.backend.close()


def load_model(name: str, settings: Settings) -> list[LoadedModel]:
    """A model on every backend asked for, self-tested. Raises KwsError; then nothing stays open."""
    from kws_serve.backends import open_backend
    from kws_serve.backends.contract import LoadedModel
    from kws_serve.manifest.folder import find_model, shipped_models_dir

    spec = find_model(name, [*([settings.model_dir] if settings.model_dir else []), shipped_models_dir()])
    group: list[LoadedModel] = []
    try:
        for kind in settings.backend:
            backend = open_backend(kind, spec, threads=settings.threads, board=settings.board)
            group.append(LoadedModel(spec, backend, kind))
    except KwsError:
        _close(group)
        raise
    return group


def apply_thresholds(engine: Any, settings: Settings) -> None:
    """The thresholds of the command line. Raises KwsError where no model has the label."""
    for model, label, threshold in settings.thresholds:
        names = [
            n for n, spec in engine.models.items() if model in (None, n) and (label == "*" or label in spec.detection)
        ]
        if not names:
            where = f"model {model}" if model else "any model"
            known = sorted({x for n, spec in engine.models.items() if model in (None, n) for x in spec.detection})
            raise KwsError(
                f"--threshold: found label {label!r}, unknown to {where}; wanted * or one of {', '.join(known)}"
            )
        for name in names:
            engine.patch_detection(name, {label: {"threshold": threshold}})


def _serve(arguments: dict[str, Any]) -> int:
    settings, warnings = load_settings(arguments)
    with contextlib.nullcontext() if arguments["list_devices"] else printers() as printer:
        for warning in warnings:
            print(f"warning: {warning}", file=sys.stderr)
        return _list_devices() if printer is None else _run_service(settings, printer)


def _run_service(settings: Settings, printer: Printer) -> int:
    """Open everything and serve until a signal comes. Raises KwsError."""
    from kws_serve.api.security import check_exposure, clean_token
    from kws_serve.api.tokens import TokenFile
    from kws_serve.app import ServerOptions, bound_socket
    from kws_serve.backends.contract import devices
    from kws_serve.commands.running import Running, restore_settings
    from kws_serve.engine.engine import Engine
    from kws_serve.sinks.event_log import EventLog
    from kws_serve.sinks.expiry import Retention

    token = clean_token(settings.token.get_secret_value() if settings.token else None)
    watch_tokens = tuple(secret.get_secret_value() for secret in settings.watch_token)
    log_format.set_up((*((token,) if token else ()), *watch_tokens))
    tokens = TokenFile(settings.data_folder / "tokens.json")
    check_exposure(settings.host, token, settings.insecure, tokens)
    _check_tls(settings)
    engine = Engine(load_models(settings, live=True))
    specs, notice = _sources(settings)
    notice = "; ".join(text for text in (notice, *(device.notice() for device in devices(engine.loaded))) if text)
    options = ServerOptions(
        settings.host,
        settings.port,
        token,
        settings.insecure,
        tokens,
        settings.tls_cert,
        settings.tls_key,
        load_model=lambda name: reload_model(name, settings),
        note=settings.note or notice,
    )
    try:
        bound = bound_socket(settings.host, settings.port)
    except OSError as e:
        raise KwsError(_port_fault(e, settings)) from None
    path = settings.data_folder / f"events-{settings.port}.db"
    log = EventLog(path, Retention(settings.keep_days, settings.keep_mb))
    if log.store.file.set_aside is not None:
        print(f"warning: {path} was damaged; kept as {log.store.file.set_aside}, a new log begins", file=sys.stderr)
    restore_settings(engine, log)
    apply_thresholds(engine, settings)
    return Running(
        engine,
        log,
        specs,
        options,
        bound=bound,
        loop=settings.loop or settings.demo,
        notice=notice,
        watch=(settings.watch, watch_tokens),
        printer=printer,
    ).run()


def _check_tls(settings: Settings) -> None:
    """Both files or none, and readable as what they should be. Raises KwsError."""
    cert, key = settings.tls_cert, settings.tls_key
    if (cert is None) != (key is None):
        missing, given = ("--tls-cert", "--tls-key") if cert is None else ("--tls-key", "--tls-cert")
        raise KwsError(f"{missing}: found none beside {given}, wanted both")
    if cert is None or key is None:
        return
    import ssl

    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert, key)
    except ssl.SSLError as e:
        raise KwsError(f"--tls-cert, --tls-key: found {cert}, {key} unfit ({e.reason or e}), wanted PEM") from None
    except OSError as e:
        raise KwsError(f"--tls-cert, --tls-key: cannot read {e.filename or cert} ({e.strerror})") from None


def _sources(settings: Settings) -> tuple[list[Any], str]:
    """What to listen to, and what to tell about it."""
    from kws_serve.manifest.package_data import demo_audio
    from kws_serve.sources.spec import SourceSpec, parse_sources

    if settings.demo:
        return [
            SourceSpec("demo", "demo", str(demo_audio()), "--demo"),
            *parse_sources(settings.source),
        ], "demo audio: synthetic speech and sounds, made by free programs"
    if settings.source:
        return parse_sources(settings.source), ""
    from kws_serve.sources.portaudio import find_device

    try:
        find_device("")
    except KwsError as e:
        return [], f"no microphone ({e}): {_MICROPHONE_HELP}"
    return parse_sources(["mic"]), ""


def _list_devices() -> int:
    from kws_serve.sources.portaudio import list_devices

    devices = list_devices()
    if not devices:
        print("no capture devices found")
        return 1
    print(f"{'':2}{'index':>5}  {'channels':>8}  {'rate':>6}  name")
    for d in devices:
        print(f"{'*' if d.is_default else '':2}{d.index:>5}  {d.channels:>8}  {d.rate_hz:>6}  {printable(d.name)}")
    return 0


def _port_fault(error: OSError, settings: Settings) -> str:
    """Why the address can't be had; for a port in use, its owner and the command with another port."""
    from kws_serve.host.port_owner import port_owner

    if error.errno != errno.EADDRINUSE:
        return f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}"
    owner = port_owner(settings.port)
    by = f" by {owner}" if owner else ""
    again = shlex.join(["kws-serve", *_with_port(sys.argv[1:], settings.port % 65535 + 1)])
    return f"port {settings.port} is in use{by}; try: {again}"


def _with_port(words: Sequence[str], port: int) -> list[str]:
    """The command line again with another port, and without tokens that others could read over a shoulder."""
    left_out = ("--port", "--token", "--watch-token")
    kept: list[str] = []
    skip = False
    for word in words:
        flag, equals, _ = word.partition("=")
        if not skip and flag not in left_out:
            kept.append(word)
        skip = not skip and flag in left_out and not equals
    return [*kept, "--port", str(port)]


def _detect(arguments: dict[str, Any]) -> int:
    settings, warnings = load_settings(arguments)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    from kws_serve.commands.detect import detect_file
    from kws_serve.commands.timeline import Timeline, page
    from kws_serve.engine.engine import Engine
    from kws_serve.messages import Detection, StreamDone
    from kws_serve.wire import detection_json, dumps

    engine = Engine(load_models(settings))
    apply_thresholds(engine, settings)
    failed, audio_s, began_s = 0, 0.0, time.monotonic()
    timelines: list[Timeline] = []
    for path in [Path(name) for name in arguments["file"]]:

        def begin(stream: str, seconds: float, path: Path = path) -> None:
            if settings.html:
                timelines.append(Timeline(engine, path, stream, seconds))

        try:
            for event in detect_file(engine, path, channel=settings.channel, on_open=begin):
                if isinstance(event, Detection) and timelines:
                    timelines[-1].detections.append(event)
                if isinstance(event, StreamDone):
                    audio_s += event.seconds
                elif isinstance(event, Detection) and settings.json_lines:
                    print(dumps(detection_json(event, live=False)))
                elif isinstance(event, Detection):
                    phase = "" if event.phase == "once" else event.phase
                    at_s = event.start_s if event.end_s is None else event.end_s
                    print(f"{path}\t{at_s:.2f} s\t{event.label}\t{event.score:.2f}\t{phase}".rstrip())
        except KwsError as e:
            failed += 1
            print(f"error: {printable(str(e))}", file=sys.stderr)
        finally:
            if timelines:
                timelines[-1].close()
    engine.close()
    if settings.html and timelines:
        try:
            settings.html.write_text(page(timelines), encoding="utf-8")
        except OSError as e:
            raise KwsError(f"--html: cannot write {settings.html} ({e.strerror})") from None
    took_s = time.monotonic() - began_s
    if audio_s:
        print(f"{audio_s:.1f} s of audio in {took_s:.2f} s: {audio_s / took_s:.0f} times real time", file=sys.stderr)
    return 2 if failed else 0
