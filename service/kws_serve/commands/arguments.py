"""What the parsers of all commands have in common."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from kws_serve import __version__
from kws_serve.config import Settings, add_flags
from kws_serve.host.log_format import printable


class Parser(argparse.ArgumentParser):
    """Errors in one line, without the usage."""

    def error(self, message: str) -> Any:
        """Exit 2 with one line that names the help."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def parser_of(command: str, text: str) -> Parser:
    """A parser with the version and the settings that have a flag of `command`."""
    parser = Parser(prog=command, description=text, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"{command} {__version__}")
    add_flags(parser, command)
    return parser


def loading_line(settings: Settings) -> str:
    """What is about to be loaded: on a slow machine that takes some 15 s."""
    return printable(f"loading {', '.join(settings.model)} on {' and '.join(settings.backend)}")


def show_warnings(warnings: Sequence[str]) -> None:
    """Each a line on stderr."""
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
