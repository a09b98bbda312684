"""`kws-serve`: the service, or a list of the capture devices."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable
from typing import Any

from kws_serve.commands.arguments import Parser, loading_line, parser_of, show_warnings
from kws_serve.config import SERVE, Settings, load_settings
from kws_serve.host.completion import add_print_completion
from kws_serve.host.log_format import printable
from kws_serve.host.printer import printers


def parser() -> Parser:
    """The arguments of `kws-serve`."""
    found = parser_of(
        SERVE,
        "Live audio in, detections out: WebSockets, a page, several models at once. "
        "`kws-serve token --help`: tokens for other machines; `kws-serve status`: who is up.",
    )
    found.add_argument("--list-devices", action="store_true", help="list the capture devices and exit")
    add_print_completion(found, _with_commands)
    return found


def _with_commands(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """What the shell completes: the flags, and the commands that the entry point tells apart by the first word."""
    from kws_serve.commands import status, tokens

    commands = parser.add_subparsers()
    for name, command in (("token", tokens.parser()), ("status", status.parser())):
        commands.add_parser(name, parents=[command], add_help=False, help=command.description)
    return parser


def serve(arguments: dict[str, Any]) -> int:
    """Serve until a signal comes: 0, or 1 where the server itself ended. Raises KwsError."""
    settings, warnings = load_settings(arguments)
    with contextlib.nullcontext() if arguments["list_devices"] else printers() as printer:
        show_warnings(warnings)
        if printer is None:
            return _list_devices()
        printer.put(f"{loading_line(settings)}\n")
        from kws_serve.commands.opening import open_service

        return open_service(settings, printer, _read_again(arguments)).run()


def _read_again(arguments: dict[str, Any]) -> Callable[[], Settings]:
    """How SIGHUP reads the settings. A token of a flag or variable stays, and is not kept here."""
    stays = "token" in arguments or bool(os.environ.get("KWS_TOKEN"))
    kept = {name: value for name, value in arguments.items() if name != "token"}

    def read() -> Settings:
        found, _ = load_settings(kept)
        return found.model_copy(update={"token": None, "token_file": None}) if stays else found

    return read


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
