"""`kws-serve status`: one row for a running server and for each that it watches."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from kws_serve.api.status import STATUS_COLUMNS
from kws_serve.commands.arguments import Parser
from kws_serve.commands.certificate import certificate_only
from kws_serve.commands.own_token import read_token
from kws_serve.config import Settings, check_url, load_settings
from kws_serve.host.log_format import printable
from kws_serve.host.watch import StatusError, get_json
from kws_serve.messages import JsonObject, KwsError


def parser() -> Parser:
    """The arguments of `kws-serve status`."""
    found = Parser(prog="kws-serve status", description=f"{__doc__} Exits 1 where one is OFF.")
    found.add_argument("url", nargs="?", help="of the running server (default: where the settings let it listen)")
    found.add_argument("--host", default=argparse.SUPPRESS, metavar="HOST", help="as of kws-serve")
    found.add_argument("--port", default=argparse.SUPPRESS, metavar="PORT", help="as of kws-serve")
    found.add_argument("--config", default=argparse.SUPPRESS, metavar="FILE", help="as of kws-serve")
    return found


def status(words: Sequence[str]) -> int:
    """Run the command in `words`: 0, or 1 where a server is OFF. Raises KwsError: no answer."""
    found = vars(parser().parse_args(words))
    settings, _ = load_settings({k: v for k, v in found.items() if k != "url"})
    context = certificate_only(settings.tls_cert) if settings.tls_cert and not found["url"] else None
    try:
        url = check_url(found["url"] or own_url(settings))
    except ValueError as e:
        raise KwsError(f"url: found {found['url']!r}, wanted {e}") from None
    token = read_token(settings)
    try:
        rows = get_json(url, "/v1/servers", token, context)["items"]
        print("\n".join(table(rows)))
    except StatusError as e:
        raise KwsError(f"{url}: {e}" + ("; give it as KWS_TOKEN" if "token" in str(e) else "")) from None
    except (KeyError, TypeError):
        raise KwsError(f"{url}: found no list of servers, wanted kws-serve") from None
    return int(any(row["state"] == "OFF" for row in rows))


def own_url(settings: Settings) -> str:
    """Where this machine reaches the service of these settings."""
    host = settings.host.strip("[]")
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http{'s' if settings.tls_cert else ''}://{f'[{host}]' if ':' in host else host}:{settings.port}"


def table(rows: Sequence[JsonObject]) -> list[str]:
    """Aligned lines with a header; what has a reason beside its state tells it."""
    cells = [[column.replace("_", " ") for column in STATUS_COLUMNS]]
    for row in rows:
        state = f"{row['state']} ({row['detail']})" if row["detail"] else row["state"]
        found = {**row, "state": state, "last_seen": row["last_seen"] or "never"}
        cells.append([printable("-" if found[c] in (None, "") else str(found[c])) for c in STATUS_COLUMNS])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(f"{c:<{w}}" for c, w in zip(line, widths, strict=True)).rstrip() for line in cells]
