"""What every command of `kws-models` shares: how its arguments are declared, and how values that do not fit are told.

A command stands in the module of its code as `add_NAME(commands)`; `cli.py` lists these.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeAlias

from kws_serve.messages import KwsError

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"  # what add_subparsers gives


class Parser(argparse.ArgumentParser):
    """Errors in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Exit 2, saying where the arguments are explained."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def add_command(
    commands: Commands, name: str, run: Callable[..., None], summary: str, example: str, more: str = ""
) -> Parser:
    """The parser of a new command, whose arguments go to `run` by name; `more` and an example end its --help."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"{more}\n\nexample:\n  kws-models {name} {example}".strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


@contextmanager
def extra_of(command: str, extra: str) -> Iterator[None]:
    """Around imports that the `extra` installs. Raises KwsError with the line that does so."""
    try:
        yield
    except ModuleNotFoundError as error:
        install = f'pip install "kws-serve[{extra}]"'
        raise KwsError(f"{command}: found no {error.name}; install it with: {install}") from error


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Of an argument: a whole number from `least` to `most`."""
    wanted = f"a whole number >= {least}" if most is None else f"a whole number from {least} to {most}"

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise _wrong(text, wanted) from None
        if value < least or (most is not None and value > most):
            raise _wrong(text, wanted)
        return value

    return read


def number(wanted: str, fits: Callable[[float], bool]) -> Callable[[str], float]:
    """Of an argument: a finite number that `fits`; `wanted` says which those are."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise _wrong(text, wanted) from None
        if not math.isfinite(value) or not fits(value):
            raise _wrong(text, wanted)
        return value

    return read


def one_of(names: Iterable[str]) -> Callable[[str], str]:
    """Of an argument: one of the `names`."""
    known = tuple(names)

    def read(text: str) -> str:
        if text not in known:
            raise _wrong(text, f"one of {', '.join(known)}")
        return text

    read.choices = known  # type: ignore[attr-defined]  # for the shell's completion
    return read


def _wrong(found: str, wanted: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"found {found!r}, wanted {wanted}")
