"""Rows of the event log as text: CSV, JSON lines or a page of JSON, in slices."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from kws_serve.api.slices import ROWS
from kws_serve.messages import JsonObject
from kws_serve.sinks.event_log import EventLog
from kws_serve.sinks.filter import Filter
from kws_serve.sinks.reader import logged_json
from kws_serve.wire import dumps

COLUMNS = (
    "id", "at", "stream", "label", "score", "phase", "model", "version", "digest", "backend", "epoch", "start_sample",
    "start_s", "decided_s", "start_id", "end_s", "start_at", "verified", "review", "uid",
)  # fmt: skip
"""All that the log keeps of a detection, what people look for first."""


def _rows(log: EventLog, wanted: Filter, after: int, log_id: str | None) -> Iterator[list[JsonObject]]:
    upto = log.last_id  # what comes later is not of this export
    after, _ = log.start_after(wanted.streams, after, log_id)
    while True:
        items, after = log.page(wanted, after, ROWS, upto)
        yield [logged_json(item) for item in items]
        if len(items) < ROWS:
            return


def as_jsonl(log: EventLog, wanted: Filter, after: int, log_id: str | None = None) -> Iterator[str]:
    """One JSON object a line, after an id of log `log_id` (of another one: all), up to the newest as it begins."""
    for rows in _rows(log, wanted, after, log_id):
        yield "".join(dumps(row) + "\n" for row in rows)


def as_csv(log: EventLog, wanted: Filter, after: int, log_id: str | None = None) -> Iterator[str]:
    """RFC 4180, with a header; rows as of `as_jsonl`. A text that a spreadsheet would take for a formula
    gets an apostrophe in front.
    """
    head = ",".join(COLUMNS) + "\r\n"
    for rows in _rows(log, wanted, after, log_id):
        out = io.StringIO()
        writer = csv.DictWriter(out, COLUMNS, extrasaction="ignore", lineterminator="\r\n")
        for row in rows:
            writer.writerow({key: as_cell(value) for key, value in row.items()})
        yield head + out.getvalue()
        head = ""


def as_page(
    log: EventLog, wanted: Filter, after: int, before: int | None, limit: int, log_id: str | None = None
) -> Iterator[str]:
    """`{"log_id":ID,"reset":false,"items":[...],"next":ID}`: `limit` rows after an id, or before one, newest first.

    `log_id`: the log that `after` is of; of another one than this, `reset` is true and the rows are its first.
    """
    after, reset = (after, False) if before is not None else log.start_after(wanted.streams, after, log_id)
    head = dumps({"log_id": log.log_id, "reset": reset})[:-1] + ',"items":['
    n, following, upto = 0, after, log.last_id
    while n < limit:
        part = min(ROWS, limit - n)
        if before is None:
            items, following = log.page(wanted, following, part, upto)
        else:
            items, following = log.page_before(wanted, before, part)
            before = following
        yield head + ("," if n and items else "") + ",".join(dumps(logged_json(item)) for item in items)
        head = ""
        n += len(items)
        if len(items) < part or before == 0:
            break
    yield f'],"next":{following}}}'


def as_cell(value: object) -> object:
    """A text that a spreadsheet would take for a formula gets an apostrophe in front; what is true is as in JSON."""
    if value is True:
        return "true"
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
