"""What the log's file is asked: rows, holes, streams and settings. Any thread; as the last commit left them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from kws_serve.messages import Detection, Hole, JsonObject
from kws_serve.sinks.filter import Filter, Logged
from kws_serve.sinks.holes import FORGOTTEN, explained
from kws_serve.sinks.log_file import LogFile
from kws_serve.sinks.salvage import Read
from kws_serve.sinks.schema import COLUMNS


class History:
    """Queries. All raise sqlite3.Error where the file cannot be read; nothing is changed by any."""

    def __init__(self, file: LogFile) -> None:
        self._read = file.read
        self._file = file

    @property
    def newest_at_s(self) -> float:
        """When the row of the highest id was logged, s since 1970; 0 without rows."""
        rows = self._read("SELECT logged_at FROM detections ORDER BY id DESC LIMIT 1")
        return float(rows[0][0]) if rows else 0.0

    def rows(
        self, wanted: Filter, after: int, limit: int, upto: int | None = None, *, newest_first: bool = False
    ) -> list[Logged]:
        """At most `limit` wanted rows with after < id <= upto, oldest (or newest) first."""
        condition, values = wanted.sql()
        if upto is not None:
            condition, values = f"{condition} AND id <= ?", [*values, upto]
        order = "DESC" if newest_first else "ASC"
        sql = f"SELECT {','.join(COLUMNS)}, review FROM detections WHERE id > ?{condition} ORDER BY id {order} LIMIT ?"
        with self._file.snapshot() as read:
            found = read(sql, (after, *values, limit))
            if len(found) < limit and wanted == Filter() and not newest_first:
                _check_end(read, found[-1][0] if found else after, 2**63 - 1 if upto is None else upto)
        return [_logged(row) for row in found]

    def holes(self, after: int, upto: int) -> list[Hole]:
        """Ids in (after, upto] that the file does not have.

        after            2
        rows                    5     7              what stands between a row and the one before it,
        before                  2     5              and behind the last row:
        spans             [3 4]   [6]   [8 9]
        upto                                9
        """
        if upto <= after:
            return []
        with self._file.snapshot() as read:
            known = _noted(read, after, upto)
            rows = read(
                "SELECT id, before FROM (SELECT id, lag(id, 1, ?) OVER (ORDER BY id) AS before FROM detections "
                "WHERE id > ? AND id <= ?) WHERE id > before + 1",
                (after, after, upto),
            )
            last = read("SELECT max(id) FROM detections WHERE id > ? AND id <= ?", (after, upto))[0][0]
        spans = [(before + 1, id - 1) for id, before in rows]
        if (last or after) < upto:
            spans.append(((last or after) + 1, upto))
        return [hole for first, last in spans for hole in explained(Hole(first, last, FORGOTTEN), known)]

    def newest_ids(self) -> dict[str, int]:
        """Stream -> its newest id, of those that have rows, or had some."""
        of_rows = "SELECT stream, max(id) AS last FROM detections GROUP BY stream"
        return dict(
            self._read(
                f"SELECT stream, max(last) FROM ({of_rows} UNION ALL SELECT stream, last FROM lost) GROUP BY stream"
            )
        )

    def overrides(self) -> dict[str, JsonObject]:
        """Model -> what was changed for all streams."""
        return {m: json.loads(text) for m, text in self._read("SELECT model, settings FROM overrides")}

    def stream_overrides(self) -> list[tuple[str, str, JsonObject]]:
        """(stream, model, what was changed) of streams that have settings of their own."""
        rows = self._read("SELECT stream, model, settings FROM stream_overrides")
        return [(stream, model, json.loads(text)) for stream, model, text in rows]

    def streams(self) -> dict[str, dict[str, int]]:
        """Name -> epoch -> next sample to process, of streams whose clients may come back."""
        found: dict[str, dict[str, int]] = {}
        for name, epoch, sample in self._read("SELECT name, epoch, heard_sample FROM streams"):
            found.setdefault(name, {})[epoch] = int(sample)
        return found

    def owners(self) -> dict[str, set[str]]:
        """Name -> the owners of its epochs, of the same streams, where they are known; see Position."""
        found: dict[str, set[str]] = {}
        for name, owner in self._read("SELECT name, owner FROM streams WHERE owner IS NOT NULL"):
            found.setdefault(name, set()).add(owner)
        return found

    def decided(self, name: str, epoch: str) -> dict[tuple[str, str], float]:
        """(model, label) -> `decided_s` of its last detection in this stream."""
        rows = self._read(
            "SELECT model, label, max(decided_s) FROM detections WHERE stream = ? AND epoch = ? GROUP BY model, label",
            (name, epoch),
        )
        return {(model, label): float(s) for model, label, s in rows}


def _noted(read: Read, after: int, upto: int) -> list[Hole]:
    """The holes that were noted and reach into (after, upto], with the streams whose rows they were."""
    streams: dict[int, dict[str, int]] = {}
    reaching = "SELECT first FROM gaps WHERE last > ? AND first <= ?"
    for first, stream, last in read(f"SELECT first, stream, last FROM lost WHERE first IN ({reaching})", (after, upto)):
        streams.setdefault(first, {})[stream] = last
    noted = read("SELECT first, last, reason FROM gaps WHERE last > ? AND first <= ?", (after, upto))
    return [Hole(first, last, reason, streams.get(first)) for first, last, reason in noted]


def _check_end(read: Read, last: int, upto: int) -> None:
    """See that ids in (last, upto] have no rows: before a damaged page SQLite may end a query as if there was no more.

    Raises sqlite3.Error.
    """
    if rest := read("SELECT id FROM detections WHERE id > ? AND id <= ? LIMIT 1", (last, upto)):
        raise sqlite3.OperationalError(f"found no row after id {last} at first, then id {rest[0][0]}")


def _logged(row: Sequence[Any]) -> Logged:
    """A row of COLUMNS and `review`. The uid is a detection's own: made of the others again."""
    fields = dict(zip(COLUMNS, row, strict=False))
    fields.pop("uid")
    verified = fields.pop("verified")
    verified = None if verified is None else bool(verified)
    return Logged(Detection(**fields, verified=verified, latency_ms=None, durable=True), row[-1])
