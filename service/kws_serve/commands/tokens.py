"""`kws-serve token new|grant|list|revoke`: tokens for other machines, each with what it may do."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from kws_serve.api.token_advice import advice
from kws_serve.api.tokens import SCOPES, TokenFile
from kws_serve.config import load_settings

_LAST = (
    "That was the last token. A running service admits nobody now, but the bearer of its own KWS_TOKEN (or --token), "
    "until there is a new one: kws-serve token new. Started again it is open to this machine, and does not start where "
    "others could reach it, but with --insecure."
)


def parser() -> argparse.ArgumentParser:
    """The arguments of `kws-serve token`."""
    found = argparse.ArgumentParser(prog="kws-serve token", description=__doc__)
    commands = found.add_subparsers(dest="command", required=True, metavar="new|grant|list|revoke")
    new = commands.add_parser("new", help="make a token and print it, once")
    new.add_argument("name", help="what it is for: front-door, phone, ...")
    new.add_argument(
        "--scope",
        action="append",
        choices=SCOPES,
        help="listen: detections and state (the default); ingest: send audio; view: what a stream sounds like, audio "
        "in practice; metrics: /metrics; admin: everything; repeatable",
    )
    new.add_argument("--stream", action="append", metavar="NAME", help="only with this stream; repeatable")
    grant = commands.add_parser("grant", help="give a token more scopes")
    grant.add_argument("name")
    grant.add_argument("--scope", action="append", choices=SCOPES, required=True, help="repeatable")
    shown = commands.add_parser("list", help="list the tokens; they themselves are not kept, only their hashes")
    revoke = commands.add_parser("revoke", help="take a token back: it is cut off within a second")
    revoke.add_argument("name")
    for command in (new, grant, shown, revoke):
        command.add_argument("--data-dir", default=argparse.SUPPRESS, metavar="DIR", help="as of kws-serve")
        command.add_argument("--config", default=argparse.SUPPRESS, metavar="FILE", help="as of kws-serve")
    return found


def token(words: Sequence[str]) -> int:
    """Run the command in `words`. Raises KwsError."""
    found = parser().parse_args(words)
    given = {k: v for k, v in vars(found).items() if k in ("data_dir", "config")}
    settings, _ = load_settings(given)
    file = TokenFile(settings.data_folder / "tokens.json")
    if found.command == "new":
        print(file.new(found.name, found.scope or ["listen"], found.stream))
    elif found.command == "grant":
        file.grant(found.name, found.scope)
    elif found.command == "revoke":
        if not file.revoke(found.name):
            print(_LAST)
    else:
        for row in file.rows():
            streams = "all streams" if row.streams is None else " ".join(row.streams)
            print(f"{row.name}\t{' '.join(row.scopes)}\t{streams}\t{row.created}")
        for text in advice(file):
            print(f"warning: {text}", file=sys.stderr)
    return 0
