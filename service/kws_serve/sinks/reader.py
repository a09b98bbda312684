"""What the log has: pages, exports and replays, from the file and from what waits for the disk. Any thread."""

from __future__ import annotations

from collections.abc import Callable

from kws_serve.messages import Hole, JsonObject
from kws_serve.sinks.filter import Filter, Logged
from kws_serve.sinks.history import History
from kws_serve.sinks.holes import without
from kws_serve.sinks.telling import Telling
from kws_serve.sinks.waiting import Waiting
from kws_serve.wire import detection_json, dumps

REPLAY_ROWS = 500
"""Rows that are read and made to text at once; a subscriber that lacks fewer is live at once."""


class Reader:
    """Reads the memory first and then the file: what is written in between is found twice, never missed. Raises
    sqlite3.Error where the file cannot be read.
    """

    def __init__(
        self,
        history: History,
        waiting: Waiting,
        last_id: Callable[[], int],
        newest_id: Callable[[frozenset[str]], int],
    ) -> None:
        """`last_id`: the newest id that was told; `newest_id`: of some streams."""
        self._history = history
        self._waiting = waiting
        self._last_id = last_id
        self._newest_id = newest_id

    def of_another_log(self, streams: frozenset[str] | None, after: int) -> bool:
        """Whether id `after` was never given to these streams (None: to any): then it is one of another log."""
        if streams is None:
            return after > self._last_id()
        if after <= self._newest_id(streams):
            return False
        return not self._read(Filter(streams=streams), after - 1, 1, self._last_id())  # read before it was told

    def replay(
        self, wanted: Filter, after: int, upto: int, rows: int = REPLAY_ROWS, telling: Telling | None = None
    ) -> tuple[list[str], int]:
        """The next messages about ids in (after, upto] (at most `rows` detections, and log_gaps where some are
        missing), and the id they reach: `upto`, or less where there is more. `telling`: as it was told up to `after`.
        """
        items = self._read(wanted, after, rows, upto)
        reach = items[-1].detection.id if len(items) == rows else upto
        found: list[tuple[int, tuple[int, str] | Hole]] = [
            (id_, (id_, dumps(logged_json(item)))) for item in items for id_ in [item.detection.id]
        ]
        found += [(hole.first, hole) for hole in self._holes(after, reach)]
        in_order = [one for _, one in sorted(found, key=lambda pair: pair[0])]
        return (telling or Telling(wanted, after)).tell(in_order), reach

    def page(self, wanted: Filter, after: int, limit: int, upto: int | None = None) -> tuple[list[Logged], int]:
        """Up to `limit` wanted detections after id `after`, to `upto` at most, and the id to go on from: one of the
        streams that may be heard, so that it tells nothing of others.
        """
        last = self._last_id() if upto is None else upto
        items = self._read(wanted, after, limit, last)
        if len(items) < limit and wanted.streams is None:
            return items, max(after, last)
        if len(items) < limit:
            after = max(after, min(last, self._newest_id(wanted.streams or frozenset())))
        return items, max(after, items[-1].detection.id) if items else after

    def page_before(self, wanted: Filter, before: int, limit: int) -> tuple[list[Logged], int]:
        """Up to `limit` wanted detections before id `before`, newest first, and the id to go on from; 0: no more."""
        items = self._read(wanted, 0, limit, min(before - 1, self._last_id()), newest_first=True)
        return items, items[-1].detection.id if len(items) == limit else 0

    def find(self, id: int) -> Logged | None:
        """The detection of this id, where it is still kept."""
        found = self._read(Filter(), id - 1, 1, id)
        return found[0] if found else None

    def _read(self, wanted: Filter, after: int, limit: int, upto: int, *, newest_first: bool = False) -> list[Logged]:
        waiting, _ = self._waiting.read()
        mine = [Logged(d) for d in waiting if after < d.id <= upto and wanted.takes(d)]
        items = self._history.rows(wanted, after, limit, upto, newest_first=newest_first)
        by_id = {item.detection.id: item for item in (*mine, *items)}  # the file's, with its mark, wins
        return [by_id[id_] for id_ in sorted(by_id, reverse=newest_first)[:limit]]

    def _holes(self, after: int, upto: int) -> list[Hole]:
        """What neither the file nor the memory has of ids (after, upto]."""
        waiting, noted = self._waiting.read()
        ids = [d.id for d in waiting]
        return [part for hole in self._history.holes(after, upto) for part in without(hole, ids, noted)]


def logged_json(item: Logged) -> JsonObject:
    """A row of the log as a replayed message."""
    message = detection_json(item.detection, replayed=True)
    return message | ({"review": item.review} if item.review else {})
