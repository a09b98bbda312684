"""By which names clients reach the service: the Host headers and Origins that are its own. Pure."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""Host headers that name this machine wherever the service listens."""

_PORTS = {"http": 80, "https": 443}
_PLAIN_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,252}[a-z0-9])?|\[[0-9a-f:.]+\]")
_PLAIN_ORIGIN = re.compile(rf"https?://({_PLAIN_NAME.pattern})(:[0-9]{{1,5}})?")


def is_loopback(host: str) -> bool:
    """Whether listening on `host` is reachable from this machine only: literal loopback addresses and localhost."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False  # a name may point anywhere, "" listens everywhere


@dataclass(frozen=True)
class Hosts:
    """Where the service listens, and by what else it is reached. `public_urls`: as browsers see it through a proxy,
    `allow_hosts`: names that it goes by, without a port.
    """

    host: str = "127.0.0.1"
    tls: bool = False
    public_urls: tuple[str, ...] = ()
    allow_hosts: tuple[str, ...] = ()

    @property
    def exposed(self) -> str:
        """The name or address by which others reach it; empty: nobody but this machine."""
        if not is_loopback(self.host):
            return self.host or "0.0.0.0"
        names = (*self._public_names, *(name.lower() for name in self.allow_hosts))
        return next((name for name in names if not is_loopback(name)), "")

    def host_allowed(self, header: str) -> bool:
        """Whether a Host header names this server: guards against DNS rebinding."""
        name = _name_of(header)
        if name in LOOPBACK_NAMES or name == self.host.lower():
            return True
        if name in self._public_names or name in (allowed.lower() for allowed in self.allow_hosts):
            return True
        if is_loopback(self.host):
            return False
        own = socket.gethostname().lower()
        if name in (own, f"{own}.local", f"[{self.host.lower()}]"):
            return True
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
            return True  # a literal address is nobody's DNS name
        except ValueError:
            return False

    def origin_allowed(self, origin: str, host: str) -> bool:
        """Whether a browser's Origin is this very server, under an allowed Host or as a public URL has it."""
        return origin.lower() in (self.own_origin(host), *map(origin_of, self.public_urls))

    def own_origin(self, host: str) -> str:
        """The Origin of our page where a browser asks for this Host."""
        return f"{'https' if self.tls else 'http'}://{host.lower()}"

    @property
    def _public_names(self) -> tuple[str, ...]:
        return tuple(_name_of(urlsplit(url).netloc) for url in self.public_urls)


def origin_of(url: str) -> str:
    """Scheme, name and port of a URL as a browser writes them: in small letters, without the scheme's own port."""
    parts = urlsplit(url.lower())
    own = parts.port in (None, _PORTS.get(parts.scheme))
    return f"{parts.scheme}://{_name_of(parts.netloc)}" + ("" if own else f":{parts.port}")


def host_remedy(header: str) -> str:
    """How to let a Host in, where it may be one of ours; empty for what is no name."""
    name = _name_of(header)
    if not _PLAIN_NAME.fullmatch(name):
        return ""
    return f"; if this server is reached by it, start it with --allow-host {name}, or behind a proxy with --public-url"


def origin_remedy(origin: str) -> str:
    """How to let a page in, where it may be our own seen through a proxy; empty for what is no URL."""
    if not _PLAIN_ORIGIN.fullmatch(origin.lower()):
        return ""
    return f"; if people reach this server there, through a proxy, start it with --public-url {origin.lower()}"


def _name_of(header: str) -> str:
    """What stands before a port, in small letters; all of it where that is none."""
    name, _, port = header.lower().rpartition(":") if not header.endswith("]") else (header.lower(), "", "")
    return header.lower() if not name or (port and not port.isdigit()) else name
