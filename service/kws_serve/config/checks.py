"""What addresses, names and thresholds have to look like. Each raises ValueError with what is wanted."""

from __future__ import annotations

import contextlib
import ipaddress
import math
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, urlsplit

from kws_serve.messages import check_name

_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9])?")

_IN_PATHS = "/%:@!$&'()*+,;=~"
"""What stands in a URL's path as it is, beside letters, digits, - . and _ (RFC 3986): all else is escaped."""


def check_url(text: str) -> str:
    """A server's address, with the path that a proxy has it under; no slash at its end. Raises ValueError with what is
    wanted.
    """
    parts = _split_url(text, "http://HOST:PORT or https://HOST:PORT, a path may follow,")
    return f"{parts.scheme}://{parts.netloc}{quote(parts.path.rstrip('/'), _IN_PATHS)}"


def check_public_url(text: str) -> str:
    """Where browsers find the page, a path allowed; with a slash at its end. Raises ValueError with what is wanted."""
    wanted = "a URL as browsers show it, like https://ears.example.org or https://example.org/ears/"
    parts = _split_url(text, wanted)
    check_host(parts.hostname)
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/"


def _split_url(text: str, wanted: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(wanted) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError(wanted)
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError(f"{wanted} and nothing more")
    return parts


def check_host(text: str | None) -> str:
    """A name or address as a Host header has it, without a port. Raises ValueError with what is wanted."""
    name = (text or "").strip("[]").lower()
    with contextlib.suppress(ValueError):
        return f"[{name}]" if ipaddress.ip_address(name).version == 6 else name
    if not _HOST_NAME.fullmatch(name):
        raise ValueError("a host's name or address without scheme and port, like ears.lan")
    return name


@dataclass(frozen=True, slots=True)
class Target:
    """What a threshold is for."""

    stream: str | None  # by its name; None: all
    model: str | None  # None: each that knows the label
    label: str  # or "*"


def parse_threshold(text: str) -> tuple[Target, float]:
    """`[STREAM:][MODEL/]LABEL=X` -> (what it is for, x). Raises ValueError with what is wanted.

    A colon behind what is no stream's name is part of a label or model: MODEL/LABEL names any label.
    """
    where, equals, number = text.rpartition("=")
    stream, rest = "", where
    with contextlib.suppress(ValueError):
        if ":" in where:
            stream, rest = check_name("stream", where.partition(":")[0]), where.partition(":")[2]
    model, slash, label = rest.rpartition("/")
    try:
        x = float(number)
    except ValueError:
        x = math.nan
    if not equals or not label or (slash and not model) or not 0.0 <= x <= 1.0:
        raise ValueError("[STREAM:][MODEL/]LABEL=X with X from 0 to 1, like yes=0.7 or desk:yes=0.7")
    return Target(stream or None, model or None, label), x
