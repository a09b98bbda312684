"""The commands `kws-serve` and `kws-detect`: settings in, one clear line out where something is wrong."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kws_serve.host import log_format
from kws_serve.host.log_format import printable
from kws_serve.host.secrecy import forbid_dumps
from kws_serve.messages import KwsError


def serve(argv: Sequence[str] | None = None) -> None:
    """`kws-serve`: exits 0 after SIGINT or SIGTERM, 2 where a setting, model, source or port is wrong."""
    forbid_dumps()
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["token"]:
        from kws_serve.commands import tokens

        sys.exit(_guarded(tokens.token, words[1:]))
    if words[:1] == ["status"]:
        from kws_serve.commands import status

        sys.exit(_guarded(status.status, words[1:]))
    if words and not words[0].startswith("-"):
        sys.exit(_unknown(words[0]))
    from kws_serve.commands import serve as command

    sys.exit(_guarded(command.serve, vars(command.parser().parse_args(words))))


def detect(argv: Sequence[str] | None = None) -> None:
    """`kws-detect`: exits 0 also where nothing was found, 2 where an input cannot be read."""
    from kws_serve.commands import detect as command

    sys.exit(_guarded(command.detect, vars(command.parser().parse_args(argv))))


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


def _guarded(run: Callable[[Any], int], arguments: Any) -> int:
    """Run a command; a fault that is the user's to mend is one line on stderr."""
    log_format.set_up()
    try:
        return run(arguments)
    except KwsError as e:
        print(f"error: {printable(str(e))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `kws-detect ... | head`
        sys.stderr.close()
        return 0
