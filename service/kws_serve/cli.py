"""The commands `kws-serve` and `kws-detect`: settings in, one clear line out where something is wrong."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

from kws_serve.host import log_format
from kws_serve.host.log_format import printable
from kws_serve.host.output import guarded
from kws_serve.host.secrecy import forbid_dumps


def serve(argv: Sequence[str] | None = None) -> None:
    """`kws-serve`: exits 0 after SIGINT or SIGTERM, 2 where a setting, model, source or port is wrong."""
    forbid_dumps()
    log_format.set_up()
    words = list(sys.argv[1:] if argv is None else argv)
    sys.exit(guarded(lambda: _serve(words)))


def _serve(words: list[str]) -> int:
    if words[:1] == ["token"]:
        from kws_serve.commands import tokens

        return tokens.token(words[1:])
    if words[:1] == ["status"]:
        from kws_serve.commands import status

        return status.status(words[1:])
    if words and not words[0].startswith("-"):
        return _unknown(words[0])
    from kws_serve.commands import serve as command

    return command.serve(vars(command.parser().parse_args(words)))


def detect(argv: Sequence[str] | None = None) -> None:
    """`kws-detect`: exits 0 also where nothing was found, 2 where an input cannot be read."""
    from kws_serve.commands import detect as command

    log_format.set_up()
    sys.exit(guarded(lambda: command.detect(vars(command.parser().parse_args(argv)))))


_MEANT = {
    "token": "kws-serve token",
    "status": "kws-serve status",
    **{name: f"kws-{name}" for name in ("serve", "detect", "models", "board")},
}
"""What a word before the flags may stand for."""


def _unknown(word: str) -> int:
    """Tell of a command that is none, with what may be meant."""
    near = difflib.get_close_matches(word.removeprefix("kws-"), _MEANT, 1)
    meant = _MEANT[near[0]] if near else f"kws-serve --source {word}" if Path(word).suffix else ""
    hint = f"; did you mean {meant}?" if meant else " (see kws-serve --help)"
    print(printable(f"kws-serve: found {word!r}, wanted token, status or flags{hint}"), file=sys.stderr)
    return 2
