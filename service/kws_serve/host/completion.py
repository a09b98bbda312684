"""`--print-completion SHELL`: the script by which a shell completes our commands, made by shtab from their parsers."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

SHELLS = ("bash", "zsh", "tcsh")


class _Print(argparse.Action):
    """Print the script and exit. shtab is imported here alone: it takes longer than the parsers."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        import shtab

        whole: argparse.ArgumentParser = self.const(parser)
        for action in _actions(whole):
            action.choices = action.choices or getattr(action.type, "choices", None)
            if action.metavar == "DIR":
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
            elif action.metavar in ("FILE", "OUT"):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
        print(shtab.complete(whole, values))
        parser.exit()


def add_print_completion(
    parser: argparse.ArgumentParser,
    whole: Callable[[argparse.ArgumentParser], argparse.ArgumentParser] = lambda parser: parser,
) -> None:
    """The flag. `whole` makes of `parser` the one to complete, where that knows not all of the command's words."""
    text = f"print the script for a shell to complete this command: {', '.join(SHELLS)}"
    parser.add_argument(
        "--print-completion",
        action=_Print,
        choices=SHELLS,
        const=whole,
        default=argparse.SUPPRESS,
        metavar="SHELL",
        help=text,
    )


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of a parser and of its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
