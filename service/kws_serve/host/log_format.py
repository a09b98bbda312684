"""The service's own log on stderr: one line a record, which no name or message can forge, and without credentials."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

from kws_serve.transport.budget import Budgets, Rate

_CREDENTIAL = re.compile(r"(?i)(kws_[\w-]{16})[\w-]+|(bearer\s+)[^\s\"',}]+|(\"?token\"?\s*[=:]\s*\"?)[^\s\"'&,}]+")


SAME_LINES = Rate(0.1, 20)
"""Lines that differ in their values only: enough to see what goes on, and 9,000 a day at most."""


Secret = str | Callable[[str], str]
"""What no line may show, or what hides it in a text where only its hash is known."""


def masked(text: str, secrets: tuple[Secret, ...] = ()) -> str:
    """`text` without tokens."""
    for secret in secrets:
        text = text.replace(secret, "***") if isinstance(secret, str) else secret(text)
    return _CREDENTIAL.sub(lambda m: (m[2] or m[3] or "") + "***", text)


def printable(text: str) -> str:
    """Control characters escaped: a hostile name cannot forge a line or write on the terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class OneLine(logging.Formatter):
    """For people: level, logger and message. A traceback, our own words, keeps its lines."""

    def __init__(self, secrets: tuple[Secret, ...] = ()) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")
        self.secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        """A line of text for a terminal, secrets masked, without control characters."""
        text = masked(super().format(record), self.secrets)
        return text if record.exc_info else printable(text)


class JsonLine(logging.Formatter):
    """For machines: one JSON object a line, a traceback inside it."""

    def __init__(self, secrets: tuple[Secret, ...] = ()) -> None:
        super().__init__()
        self.secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        """A JSON object in one line, secrets masked."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        fields = {"at": at, "level": record.levelname, "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps({key: masked(value, self.secrets) for key, value in fields.items()})


class Sparing(logging.Filter):
    """Lets lines of one kind through at a rate: garbage from outside must not fill the disk with lines about it. What
    was left out is counted in the next line of its kind.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: in s."""
        super().__init__()
        self._clock = clock
        self._budgets = Budgets(SAME_LINES)
        self._left_out: Counter[tuple[str, str]] = Counter()
        self._lock = threading.RLock()  # a finaliser may log while it is held

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record's kind, its logger and template, has budget left."""
        kind = (record.name, str(record.msg)[:200])
        now_s = self._clock()
        with self._lock:
            if self._budgets.of(kind, now_s).spend(1, now_s) is None:
                self._left_out[kind] += 1
                return False
            left_out = self._left_out.pop(kind, 0)
        if left_out:
            record.msg, record.args = f"{record.getMessage()} ({left_out} more like it were left out)", None
        return True


OURS = ("kws_serve", "kws_models", "kws_board")
"""The loggers whose level can be chosen: in its debug lines a library writes frames with tokens in them."""


def set_up(secrets: tuple[Secret, ...] = (), level: str = "warning") -> None:
    """Log to stderr: as text on a terminal, else as JSON lines. `level`: debug, info, warning or error, of OURS; of
    libraries nothing below a warning is told.
    """
    handler = logging.StreamHandler()
    handler.addFilter(Sparing())
    handler.setFormatter(OneLine(secrets) if sys.stderr.isatty() else JsonLine(secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    chosen = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(max(logging.WARNING, chosen))
    for name in OURS:
        logging.getLogger(name).setLevel(chosen)


def line(level: int, name: str, message: str, *values: object) -> str:
    """A record as the log's lines are, without its newline: for who writes to stderr past the log."""
    record = logging.LogRecord(name, level, "", 0, message, values, None)
    handlers = logging.getLogger().handlers
    return handlers[0].format(record) if handlers else record.getMessage()
