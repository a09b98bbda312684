"""The service's own log on stderr: one line a record, which no name or message can forge, and without credentials."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime

_CREDENTIAL = re.compile(r"(?i)(kws_[\w-]{16})[\w-]+|(bearer\s+)[^\s\"',}]+|(\"?token\"?\s*[=:]\s*\"?)[^\s\"'&,}]+")


def masked(text: str, secrets: tuple[str, ...] = ()) -> str:
    """`text` without tokens."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return _CREDENTIAL.sub(lambda m: (m[2] or m[3] or "") + "***", text)


def printable(text: str) -> str:
    """Control characters escaped: a hostile name cannot forge a line or write on the terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class OneLine(logging.Formatter):
    """For people: level, logger and message. A traceback, our own words, keeps its lines."""

    def __init__(self, secrets: tuple[str, ...] = ()) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")
        self.secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        text = masked(super().format(record), self.secrets)
        return text if record.exc_info else printable(text)


class JsonLine(logging.Formatter):
    """For machines: one JSON object a line, a traceback inside it."""

    def __init__(self, secrets: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        fields = {"at": at, "level": record.levelname, "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps({key: masked(value, self.secrets) for key, value in fields.items()})


def set_up(secrets: tuple[str, ...] = ()) -> None:
    """Log to stderr: as text on a terminal, else as JSON lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine(secrets) if sys.stderr.isatty() else JsonLine(secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)


def line(level: int, name: str, message: str, *values: object) -> str:
    """A record as the log's lines are, without its newline: for who writes to stderr past the log."""
    record = logging.LogRecord(name, level, "", 0, message, values, None)
    handlers = logging.getLogger().handlers
    return handlers[0].format(record) if handlers else record.getMessage()
