"""Who may talk to the service: exposure and tokens. The guard at the door asks here: guard.py."""

from __future__ import annotations

import contextlib
import hmac
import logging
import time
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field

from kws_serve.api.hosts import Hosts, is_loopback
from kws_serve.api.token_advice import advice
from kws_serve.api.tokens import EVERYTHING, Grant, OwnToken, TokenFile, TokenRow, digest, find_grant
from kws_serve.messages import KwsError
from kws_serve.transport.budget import Budgets, Rate, network

_log = logging.getLogger(__name__)


def clean_token(text: str | None) -> str | None:
    """The service's own token as it is presented, without blanks around it; None: there is none. Raises KwsError."""
    token = (text or "").strip()
    if any(ord(c) < 32 or ord(c) == 127 for c in token):
        raise KwsError("token: found a control character in it, wanted what an HTTP header can carry")
    return token or None


def own_token(token: str | OwnToken | None) -> OwnToken | None:
    """What is kept of it; None: there is none. Raises KwsError: see clean_token."""
    if isinstance(token, OwnToken):
        return token
    clean = clean_token(token)
    return OwnToken(digest(clean), len(clean)) if clean else None


MIN_TOKEN_CHARS = 16
"""Of the service's own token beyond this machine: 64 bits even where it is hexadecimal, and no word or PIN."""

GUESSES = Rate(1, 100)
"""Wrong tokens of one address: a thousand programs with an old token come 100 at a time, and 86,500 guesses a day are
nothing to 64 bits."""

KNOWN_TOKENS = 4096
"""Whose bearers go on being let in, of the last, while others at their address guess."""


TOO_MANY_GUESSES = "token: found too many wrong ones from this address, wanted the right one; try again later"


class TooManyGuesses(Exception):
    """No token of this address is looked at for now."""


def check_exposure(
    hosts: Hosts | str, token: str | OwnToken | None, insecure: bool, tokens: TokenFile | None = None
) -> None:
    """Refuse to be reached by others without a token, or with one that can be guessed. Raises KwsError."""
    own = own_token(token)
    hosts = Hosts(hosts) if isinstance(hosts, str) else hosts
    host = hosts.exposed
    if own and host and own.n_chars < MIN_TOKEN_CHARS:
        raise KwsError(
            f"token: found one of {own.n_chars} characters for {host!r}, which others can reach, wanted at least "
            f"{MIN_TOKEN_CHARS}, such as `openssl rand -hex 16` prints"
        )
    if host and not own and not insecure and not (tokens and tokens.rows()):
        name = "host" if not is_loopback(hosts.host) else "public-url, allow-host"
        raise KwsError(
            f"{name}: found {host!r}, which others can reach, without a token; wanted KWS_TOKEN (or --token), "
            "a token of `kws-serve token new`, or --insecure to let anyone on the network listen"
        )


@dataclass
class Access:
    """What this server accepts. Whether it is open to everybody is decided at the start: no token then, and out of
    others' reach or `insecure`. An open one closes for good as soon as its token file is not what it was.
    """

    hosts: Hosts = field(default_factory=Hosts)
    token: InitVar[str | OwnToken | None] = None  # allows everything
    tokens: TokenFile | None = None
    insecure: bool = False

    def __post_init__(self, token: str | OwnToken | None) -> None:
        """Raises KwsError: a token that nobody could present."""
        self._own = own_token(token)
        self._open = self._own is None and (self.insecure or not self.hosts.exposed)
        self._file_at_start: object = None
        self._said = ""
        self._guesses = Budgets(GUESSES)
        self._known: dict[tuple[str, str], None] = {}  # (address, digest) of tokens that were right there, in order
        if self.tokens is None:
            return
        try:
            self._file_at_start = self.tokens.state()
            self._open = self._open and not self.tokens.rows()
            for text in advice(self.tokens):
                _log.warning("%s", text)
        except KwsError as e:
            self._say(e)
            self._open = False

    def renew(self, token: str | OwnToken | None) -> None:
        """Take another token of the service's own for the present one; it never opens again. Raises KwsError."""
        self._own = own_token(token)
        self._open = self._open and self._own is None

    @property
    def open(self) -> bool:
        """Whether nobody needs a token. Once False, for ever."""
        if self._open and self.tokens is not None:
            try:
                self._open = self.tokens.state() == self._file_at_start
            except KwsError:
                self._open = False
            if not self._open:
                _log.warning("tokens: found %s changed; from now on a token is needed", self.tokens.path)
        return self._open

    def grant(self, presented: str | None) -> Grant | None:
        """What a token allows, compared in constant time; everything where none is needed. None: nothing."""
        if self.open:
            return EVERYTHING
        if presented is None:
            return None
        if self._own is not None and hmac.compare_digest(self._own.sha256, digest(presented)):
            return EVERYTHING
        row = find_grant(presented, self._rows())
        return row.grant if row else None

    def admit(self, presented: str | None, address: str) -> Grant | None:
        """As `grant`, for who comes with a token by an `address`. Raises TooManyGuesses: it was not looked at, which
        happens only to tokens that were not right there before.
        """
        if presented is None or self.open:
            return self.grant(presented)
        peer = network(address)
        key, guesses = (peer, digest(presented)), self._guesses.of(peer, time.monotonic())
        if key not in self._known and guesses.left(time.monotonic()) < 1:
            raise TooManyGuesses
        found = self.grant(presented)
        if found is None:
            self._known.pop(key, None)
            guesses.spend(1, time.monotonic())
        else:
            self._known[key] = self._known.pop(key, None)
            while len(self._known) > KNOWN_TOKENS:
                del self._known[next(iter(self._known))]
        return found

    def bearer(self, headers: dict[str, str]) -> str | None:
        """The token that a request's headers carry. They are read as Latin-1, and most clients write UTF-8."""
        scheme, _, presented = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        with contextlib.suppress(UnicodeError):
            presented = presented.encode("latin-1").decode()
        return presented.strip() or None

    def _rows(self) -> Sequence[TokenRow]:
        """The tokens of the file; none where it is gone or damaged, so that nobody is let in."""
        if self.tokens is None:
            return ()
        try:
            return self.tokens.rows()
        except KwsError as e:
            self._say(e)
            return ()

    def _say(self, fault: KwsError) -> None:
        """Once, not with every request."""
        if f"{fault}" != self._said:
            self._said = f"{fault}"
            _log.error("%s", fault)
