"""ASGI middleware before everything else: turns, Host, Origin, tokens and scopes; and the headers of every answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kws_serve.api.hosts import host_remedy, origin_remedy
from kws_serve.api.security import TOO_MANY_GUESSES, Access, TooManyGuesses
from kws_serve.api.tokens import Grant
from kws_serve.transport.budget import Budgets, Rate, network
from kws_serve.transport.connection import refuse_upgrade
from kws_serve.wire import dumps, error_json

PUBLIC_PATHS = frozenset({"/healthz", "/readyz"})
"""Answered without a token: they say a word, to monitors that have none."""

RATES = {
    "health": Rate(20, 40),  # several monitors, each once a second
    "page": Rate(50, 100),  # its 20 files, in a few tabs at once
    "read": Rate(50, 100),  # a page asks twice in 2 s; 50 of them behind one proxy
    "change": Rate(20, 40),  # a slider that is dragged sends 7 a second, for each label that it moves
}
"""Requests of one address and token. A read takes 1 to 2 ms, a change 5 ms and a commit."""

WAIT_S = 4.0
"""How long a request may wait for its turn; page and client give up after 10 s. Beyond it: 429."""

BODY_UNIT_BYTES, UNKNOWN_BODY = 1024, 64
"""Each KiB of a body counts as a request; a body of unknown size as the most that is taken in."""

HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        b"worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"microphone=(self), camera=(), geolocation=()"),
]
"""Of every answer: the page loads and runs nothing but its own files, no other page embeds or reads it, and of the
machine it gets the microphone only."""

NO_STORE = (b"cache-control", b"no-store")
"""Of every answer but the page's files: who said what, where, is not to lie in a cache that others can read."""

_log = logging.getLogger(__name__)


_SCOPES = tuple(
    (compile_path(path)[0], scope) for path, scope in (("/metrics", "metrics"), ("/v1/detections/{id}/why", "view"))
)
"""What needs more than `listen` to be read, as the router itself compares paths."""


def scope_of(method: str, path: str) -> str:
    """The scope that a route needs: what changes something is for admins."""
    if method not in ("GET", "HEAD"):
        return "admin"
    return next((scope for pattern, scope in _SCOPES if pattern.match(path)), "listen")


class Guard:
    """ASGI middleware: refuses before anything else runs, and puts the headers on every answer."""

    def __init__(self, app: ASGIApp, access: Access, public: frozenset[str], sockets: frozenset[str]) -> None:
        """`public`: the page's files; `sockets`: where a WebSocket is."""
        self.app = app
        self.access = access
        self.sockets = sockets
        self.files = public
        self.public = public | PUBLIC_PATHS
        self._budgets = {kind: Budgets(rate) for kind, rate in RATES.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or hand on; what is neither HTTP nor a WebSocket (lifespan) is handed on as it is."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        pairs = [(k.decode("latin-1").lower(), v.decode("latin-1")) for k, v in scope["headers"]]
        headers = dict(pairs)
        names = [k for k, _ in pairs]
        if scope["type"] == "websocket":
            refusal = self._foreign(scope, headers, names)
            if refusal is None and scope["path"] not in self.sockets:
                wanted = ", ".join(sorted(self.sockets))
                refusal = self._refused(scope, 404, f"WebSocket: found none at {scope['path'][:80]!r}, wanted {wanted}")
            if refusal is not None:
                await receive()
                await _answer(_with_headers(send), *refusal, upgrade=True)
            else:
                await self.app(scope, receive, _with_headers(send))
            return
        sending = _with_headers(send, kept=scope["path"] in self.files)
        guessed, grant = False, None
        try:
            grant = self.access.admit(self.access.bearer(headers), _address(scope))
        except TooManyGuesses:
            guessed = scope["path"] not in self.public
        refusal = (429, TOO_MANY_GUESSES) if guessed else await self._turn(scope, headers, grant)
        refusal = refusal or self._foreign(scope, headers, names) or self._forbidden(scope, headers, grant)
        if refusal is not None:
            _log.info("%s %s: answered %d: %s", scope["method"], scope["path"][:80], *refusal)
            await _answer(sending, *refusal)
            return
        if scope["method"] == "HEAD":  # what GET answers, less its body
            scope, sending = {**scope, "method": "GET"}, _without_body(sending)
        with contextlib.suppress(_BrokenOff):
            await self.app(scope, receive, self._while_granted(sending, headers, scope["state"].get("grant")))

    def _while_granted(self, send: Send, headers: dict[str, str], grant: Grant | None) -> Send:
        """As `send`, until whoever asked has lost the token: a long answer breaks off there, so that it is not taken
        for whole.
        """
        if grant is None:
            return send

        async def sending(message: Message) -> None:
            if message.get("more_body") and self.access.grant(self.access.bearer(headers)) != grant:
                _log.warning("token %s: revoked or changed; an answer under way was broken off", grant.name or "(none)")
                raise _BrokenOff
            await send(message)

        return sending

    async def _turn(self, scope: Scope, headers: dict[str, str], grant: Grant | None) -> tuple[int, str] | None:
        """Wait for the request's turn; the answer where that would take too long."""
        path = scope["path"]
        kind = "health" if path in PUBLIC_PATHS else "page" if path in self.public else "read"
        if scope["method"] not in ("GET", "HEAD"):
            kind = "change"
        now_s = time.monotonic()
        named = grant.name if grant and self.access.bearer(headers) is not None else None
        peer = (network(_address(scope)), named)
        wait_s = self._budgets[kind].of(peer, now_s).spend(_cost(headers), now_s, WAIT_S)
        if wait_s is None:
            rate = RATES[kind].per_s
            return 429, f"requests: found too many in line, wanted at most {rate:g} a second; try again later"
        if wait_s:
            await asyncio.sleep(wait_s)
        return None

    def _foreign(self, scope: Scope, headers: dict[str, str], names: list[str]) -> tuple[int, str] | None:
        """The answer to what comes under a name, or from a page, that is not this server's; told in the log too."""
        fault = self._fault(scope, headers, names)
        return self._refused(scope, 403, fault) if fault else None

    def _refused(self, scope: Scope, status: int, fault: str) -> tuple[int, str]:
        _log.warning("%s %s: refused with %d: %s", scope.get("method", "WebSocket"), scope["path"][:80], status, fault)
        return status, fault

    def _fault(self, scope: Scope, headers: dict[str, str], names: list[str]) -> str | None:
        hosts, host, anywhere = self.access.hosts, headers.get("host", ""), scope["path"] in PUBLIC_PATHS
        if not anywhere and (names.count("host") != 1 or not hosts.host_allowed(host)):
            return f"Host: found {host[:80]!r}, wanted a name or address of this server{host_remedy(host)}"
        origin = headers.get("origin", hosts.own_origin(host))
        if names.count("origin") > 1 or not hosts.origin_allowed(origin, host):
            wanted = f"this server's own page ({hosts.own_origin(host)[:80]})"
            return f"Origin: found {origin[:80]!r}, wanted {wanted}{origin_remedy(origin)}"
        if b"token=" in scope.get("query_string", b"").lower():
            return "token: found one in the URL, wanted Authorization: Bearer or an auth message (URLs are logged)"
        return None

    def _forbidden(self, scope: Scope, headers: dict[str, str], grant: Grant | None) -> tuple[int, str] | None:
        """The answer where the token does not do for the route; else the route finds what it may do."""
        if scope["path"] in self.public:
            return None
        if grant is not None:
            grant = self.access.grant(self.access.bearer(headers))  # it may have been revoked while the request waited
        needed = scope_of(scope["method"], scope["path"])
        if grant is None:
            return 401, "token: found none or a wrong one, wanted Authorization: Bearer TOKEN"
        if not grant.may(needed):
            return 403, f"token: found one of scope {', '.join(sorted(grant.scopes))}, wanted {needed}"
        scope["state"]["grant"] = grant
        return None


class _BrokenOff(Exception):
    """Whoever asked may not go on reading, or wants no more."""


def _cost(headers: dict[str, str]) -> float:
    """What a request counts as."""
    if "transfer-encoding" in headers:
        return UNKNOWN_BODY
    length = headers.get("content-length", "0")
    return 1 + min(UNKNOWN_BODY, (int(length) if length.isdigit() else 0) // BODY_UNIT_BYTES)


def _address(scope: Scope) -> str:
    return scope["client"][0] if scope["client"] else ""


def _with_headers(send: Send, *, kept: bool = False) -> Send:
    """`kept`: whether a browser or proxy may keep the answer, which is so of the page's own files only."""
    headers = HEADERS if kept else [*HEADERS, NO_STORE]

    async def sending(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            message = {**message, "headers": [*message.get("headers", []), *headers]}
        await send(message)

    return sending


def _without_body(send: Send) -> Send:
    """What is not sent need not be made either: the app is broken off where the body begins."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.body":
            await send({"type": "http.response.body"})
            raise _BrokenOff
        await send(message)

    return sending


async def _answer(send: Send, status: int, text: str, *, upgrade: bool = False) -> None:
    body = dumps(error_json(status, text)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status == 429:
        headers += [(b"retry-after", b"%d" % WAIT_S), (b"connection", b"close")]
    if upgrade:
        await refuse_upgrade(send, status, headers, body)
        return
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
