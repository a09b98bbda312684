"""What the log forgets: the oldest ids beyond its size, and rows that are too old, once the clock is to be believed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from kws_serve.sinks.clock_guard import ClockGuard
from kws_serve.sinks.space import EXPIRE_ROWS, FILLED, PART_ROWS
from kws_serve.sinks.store import Store

_log = logging.getLogger(__name__)
_log.setLevel(logging.INFO)  # a deletion is no fault, but is always told

BY_AGE_S = 3600.0
"""How often rows are deleted for their age: each time is told in a line, and days do not need it more often."""

STREAM_S = 86400.0
"""How long the position of a stream is kept whose client does not come back: a laptop may sleep over night."""

TOLD_SPANS = 20
"""How many spans of ids a line names: ids that were deleted for their age are mostly one, and a line stays readable."""


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept: at most so old and so large."""

    days: float = 90.0
    megabytes: float = 500.0


class Expiry:
    """In the log's writer thread."""

    def __init__(self, store: Store, keep: Retention, wall_s: float) -> None:
        """`wall_s`: the clock at the start, s since 1970. Raises sqlite3.Error."""
        self._store = store
        self._keep = keep
        newest_s = store.history.newest_at_s
        self._guard = ClockGuard(newest_s)
        self._next_by_age_s = 0.0
        if newest_s - wall_s > 1.0:
            _log.warning(
                "event log: the clock is %.0f s before the newest detection; nothing is deleted by age until then",
                newest_s - wall_s,
            )

    def look(self, wall_s: float, monotonic_s: float, between: Callable[[], None] = lambda: None) -> None:
        """Delete what is due, a part at a time; to be called every minute or so. `between` two parts others may write.
        Raises sqlite3.Error: what was told as deleted is, and the next look does the rest.
        """
        keep, space = self._keep, self._store.space
        believed = self._guard.look(wall_s, monotonic_s)
        if space.used_bytes > keep.megabytes * 1e6:
            beyond = iter(lambda: space.oldest() if space.used_bytes > FILLED * keep.megabytes * 1e6 else [], [])
            self._delete(beyond, f"the oldest beyond {keep.megabytes:g} MB", between)
        if not believed or monotonic_s < self._next_by_age_s:
            return
        old = space.older_than(wall_s - keep.days * 86400)
        parts = (old[at : at + PART_ROWS] for at in range(0, len(old), PART_ROWS))
        self._delete(parts, f"older than {keep.days:g} days", between)
        space.forget_streams(wall_s - STREAM_S)
        if len(old) < EXPIRE_ROWS:  # else there may be more
            self._next_by_age_s = monotonic_s + BY_AGE_S

    def _delete(self, parts: Iterator[list[int]], why: str, between: Callable[[], None]) -> None:
        """Delete `parts` of ascending ids, at most EXPIRE_ROWS, and tell which went."""
        gone: list[int] = []
        try:
            while len(gone) < EXPIRE_ROWS and (part := next(parts, [])):
                self._store.space.forget(part)
                gone += part
                between()
        finally:
            if gone:
                _log.info("event log: deleted %d detections %s: ids %s", len(gone), why, spans(gone))


def spans(ids: Sequence[int]) -> str:
    """Ascending `ids`, not empty, as text: 1-3, 7."""
    found: list[list[int]] = []
    for id_ in ids:
        if found and found[-1][1] == id_ - 1:
            found[-1][1] = id_
        else:
            found.append([id_, id_])
    texts = [f"{first}-{last}" if last > first else f"{first}" for first, last in found[:TOLD_SPANS]]
    more = f" and {len(found) - TOLD_SPANS} more spans up to {ids[-1]}" if len(found) > TOLD_SPANS else ""
    return ", ".join(texts) + more
