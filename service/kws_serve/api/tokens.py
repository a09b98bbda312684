"""Tokens and what they allow: made and revoked by `kws-serve token`, kept hashed in the data folder.

A token is 192 random bits, so its SHA-256 cannot be searched and needs no salt. The running service reads the file
again when it changes: a new token works at once, a revoked one is cut off. Where the file is gone, empty or damaged
nobody has a token.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kws_serve.messages import KwsError, check_name

SCOPES = ("listen", "ingest", "view", "metrics", "admin")
"""listen: detections and state; ingest: send audio; view: what a stream sounds like, which is audio in practice (the
live view, why something fired); metrics: counts over all streams; admin: everything."""

RESERVED = ("clips",)
"""Of a later version: a file that it wrote is no damage here, and nothing needs it."""

OF_ALL_STREAMS = ("metrics", "admin")
"""Not for a token that is confined to some streams."""

GENERATION = 2
"""Of the meaning of scopes. In the first, which rows did not name, `listen` held what `view` and `metrics` are for."""

MAX_TOKENS = 1000
"""Each is compared with what is presented, whichever it is: together about 0.5 ms."""

MAX_BYTES = 1 << 20
"""Of the file that is read: MAX_TOKENS rows of some 1 KiB."""

_PREFIX = "kws_"  # so that people and scanners for secrets know one when they see it
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Grant:
    """What the bearer of a token may do; `streams` None: with any stream."""

    name: str
    scopes: frozenset[str]
    streams: frozenset[str] | None = None

    def may(self, scope: str) -> bool:
        """Whether this scope is allowed."""
        return scope in self.scopes or "admin" in self.scopes

    def may_touch(self, stream: str) -> bool:
        """Whether this stream is."""
        return self.streams is None or stream in self.streams


EVERYTHING = Grant("", frozenset(SCOPES))
"""Of an open service, and of its own token."""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token as it is kept."""

    name: str
    sha256: str
    scopes: tuple[str, ...]
    streams: tuple[str, ...] | None
    created: str
    generation: int = GENERATION  # in which somebody last chose the scopes

    @property
    def older(self) -> bool:
        """Whether it was made when `listen` was for more, and nobody has chosen since."""
        return self.generation < GENERATION and "listen" in self.scopes

    @property
    def grant(self) -> Grant:
        """What it allows."""
        return Grant(self.name, frozenset(self.scopes), None if self.streams is None else frozenset(self.streams))


def digest(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class OwnToken:
    """What is kept of the service's own token, which allows everything."""

    sha256: str
    n_chars: int

    def hidden_in(self, text: str) -> str:
        """`text`, with *** where the token stands in it; some 0.6 us a character."""
        found, at = "", 0
        while at < len(text):
            here = digest(text[at : at + self.n_chars]) == self.sha256
            found, at = (found + "***", at + self.n_chars) if here else (found + text[at], at + 1)
        return found


class TokenFile:
    """`tokens.json` of a data folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int, int] | None = None
        self._rows: tuple[TokenRow, ...] = ()

    def rows(self) -> tuple[TokenRow, ...]:
        """The tokens, read again where the file has changed. Raises KwsError: the file is damaged."""
        seen = self.state()
        if seen is None:
            self._seen, self._rows = None, ()
        elif seen != self._seen:
            self._seen = None  # damaged: looked at again the next time
            self._rows = _parse(self.path)
            self._seen = seen
        return self._rows

    def state(self) -> tuple[int, int, int] | None:
        """What changes with every change of the file; None: there is none. Raises KwsError: that cannot be told."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        except OSError as e:
            raise KwsError(f"tokens: cannot read {self.path} ({e.strerror})") from None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def mode(self) -> int | None:
        """Who may read and write the file, as chmod has it; None: there is none."""
        try:
            return self.path.stat().st_mode & 0o777
        except OSError:
            return None

    def new(self, name: str, scopes: Sequence[str], streams: Sequence[str] | None = None) -> str:
        """Make a token; it is told here and never again. Raises KwsError."""
        try:
            check_name("token name", name)
            for stream in streams or ():
                check_name("stream", stream)
        except ValueError as e:
            raise KwsError(str(e)) from None
        ordered = _checked_scopes(scopes, streams)
        token = _PREFIX + secrets.token_urlsafe(24)
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        row = TokenRow(name, digest(token), ordered, tuple(sorted(set(streams))) if streams else None, created)

        def add(rows: tuple[TokenRow, ...]) -> tuple[TokenRow, ...]:
            if any(r.name == name for r in rows):
                raise KwsError(f"token name: found {name!r} in use, wanted another (or: kws-serve token revoke {name})")
            if len(rows) >= MAX_TOKENS:
                raise KwsError(f"tokens: found {len(rows)}, the limit is {MAX_TOKENS}")
            return (*rows, row)

        self._change(add)
        return token

    def grant(self, name: str, scopes: Sequence[str]) -> None:
        """Give a token more scopes; those that it has may be among them. Raises KwsError: no such name or scope."""

        def more(rows: tuple[TokenRow, ...]) -> tuple[TokenRow, ...]:
            row = _named(rows, name)
            wider = replace(row, scopes=_checked_scopes([*row.scopes, *scopes], row.streams), generation=GENERATION)
            return tuple(wider if r is row else r for r in rows)

        self._change(more)

    def revoke(self, name: str) -> int:
        """Take a token back; how many are left. Raises KwsError: no such name."""

        def without(rows: tuple[TokenRow, ...]) -> tuple[TokenRow, ...]:
            row = _named(rows, name)
            return tuple(r for r in rows if r is not row)

        return self._change(without)

    def _change(self, change: Callable[[tuple[TokenRow, ...]], tuple[TokenRow, ...]]) -> int:
        """Write the file anew, whole or not at all, one at a time; the number of tokens in it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self.path.parent / ".tokens.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                rows = change(self.rows())
                text = json.dumps({"tokens": [asdict(row) for row in rows]}, indent=1)
                with tempfile.NamedTemporaryFile("w", dir=self.path.parent, prefix=".tokens", delete=False) as f:
                    try:
                        f.write(text)
                        f.flush()
                        os.fsync(f.fileno())
                        Path(f.name).replace(self.path)
                        _sync_folder(self.path.parent)
                    except BaseException:
                        Path(f.name).unlink(missing_ok=True)
                        raise
                return len(rows)
            finally:
                os.close(lock)
        except OSError as e:
            raise KwsError(f"tokens: cannot write {self.path} ({e.strerror})") from None


def _named(rows: Sequence[TokenRow], name: str) -> TokenRow:
    found = next((row for row in rows if row.name == name), None)
    if found is None:
        known = ", ".join(r.name for r in rows) or "none"
        raise KwsError(f"token: found no {name[:80]!r}, wanted one of: {known}")
    return found


def _checked_scopes(scopes: Sequence[str], streams: Sequence[str] | None) -> tuple[str, ...]:
    """Each once, in the order of SCOPES. Raises KwsError: unknown, none, or not for a token of some streams only."""
    if reserved := [s for s in scopes if s in RESERVED]:
        raise KwsError(
            f"scope: found {reserved[0]}, which is kept for a later version, wanted some of {', '.join(SCOPES)}"
        )
    unknown = [s for s in scopes if s not in SCOPES]
    if unknown or not scopes:
        raise KwsError(f"scope: found {unknown[0] if unknown else 'none'}, wanted some of {', '.join(SCOPES)}")
    wide = [s for s in OF_ALL_STREAMS if s in scopes]
    if streams and wide:
        raise KwsError(
            f"scope: found {wide[0]} for some streams only, wanted listen, ingest or view ({wide[0]} is of all)"
        )
    return tuple(s for s in SCOPES if s in scopes)


def find_grant(token: str, rows: Sequence[TokenRow]) -> TokenRow | None:
    """The row of this token, compared in constant time."""
    wanted = digest(token)
    found = None
    for row in rows:
        if hmac.compare_digest(row.sha256, wanted):
            found = row
    return found


def _sync_folder(folder: Path) -> None:
    """So that after a power loss the file is the new or the old one. Raises OSError."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _parse(path: Path) -> tuple[TokenRow, ...]:
    data = b""
    try:
        data = path.read_bytes()[:MAX_BYTES]
        items = json.loads(data)["tokens"]
        return tuple(_row(item) for item in items)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
        cut = not isinstance(e, OSError) and not data.strip(b"\0 \n")
        found = "empty, as a power loss can leave it" if cut else f"damaged ({type(e).__name__})"
        raise KwsError(
            f"tokens: found {path} {found}, wanted what kws-serve token wrote; nobody is admitted by it; remedy: put "
            f"it back from a backup, or remove it (rm {path}) and make each token anew (kws-serve token new NAME)"
        ) from None


def _row(item: dict[str, Any]) -> TokenRow:
    texts = [item["name"], item["sha256"], item["created"], *item["scopes"], *(item["streams"] or ())]
    if not all(isinstance(text, str) for text in texts) or not set(item["scopes"]) <= {*SCOPES, *RESERVED}:
        raise ValueError
    if item["streams"] is not None and not set(item["scopes"]).isdisjoint(OF_ALL_STREAMS):
        raise ValueError
    generation = item.get("generation", 1)
    if type(generation) is not int:
        raise ValueError
    if not _SHA256.fullmatch(item["sha256"]):
        raise ValueError
    streams = None if item["streams"] is None else tuple(item["streams"])
    return TokenRow(item["name"], item["sha256"], tuple(item["scopes"]), streams, item["created"], generation)
