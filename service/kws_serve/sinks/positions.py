"""Where the streams of clients are: noted in the log, so that they can be resumed after a restart of the service."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Sequence

from kws_serve.messages import Detection, Position
from kws_serve.sinks.store import Store

_log = logging.getLogger(__name__)

NOTE_S = 0.25
"""How often streams that have just begun or gone are looked for: a quarter of a second of a new stream may be unknown
after a crash, and each note is a commit.
"""

MOVED_S = 5.0
"""How often the positions of all streams are noted: by so much the gap after a crash can be too long."""


class Positions:
    """In the log's writer thread."""

    def __init__(self, store: Store) -> None:
        self.source: Callable[[Collection[str] | None], Iterable[Position]] = lambda _: ()
        """The positions of streams of these names, or of all (None). Called in the writer thread."""
        self._store = store
        self._noted: dict[tuple[str, str], int] = {}  # (name, epoch) -> sample, as the file has it
        self._began_s = time.monotonic()
        self._next_note_s = self._next_moved_s = 0.0

    def of(self, detections: Sequence[Detection]) -> list[Position]:
        """Where the streams of these detections are: to be noted in the same commit, so that a stream that is resumed
        is known by the log that has its detections. Where that commit fails, call `forget`.
        """
        wanted = {(d.stream, d.epoch) for d in detections}
        found = [p for p in self.source({name for name, _ in wanted}) if p[:2] in wanted]
        self._noted |= {p[:2]: p.sample for p in found}
        return found

    def forget(self) -> None:
        """A commit has failed: take nothing for noted."""
        self._noted.clear()

    def look(self, now_s: float) -> None:
        """Note what is due; to be called at least every NOTE_S. `now_s`: time.monotonic()."""
        if now_s < self._next_note_s:
            return
        self._next_note_s = now_s + NOTE_S
        all_moved = now_s >= self._next_moved_s
        self.note(all_moved=all_moved)
        if all_moved:
            young = now_s - self._began_s < 2 * MOVED_S  # it may be one of many short lives
            self._next_moved_s = now_s + (NOTE_S if young else MOVED_S)

    def note(self, *, all_moved: bool = True) -> None:
        """Note how far streams have got: those that are new or gone, or all that have moved. What cannot be written is
        logged and tried again at the next look.
        """
        here = {p[:2]: p for p in self.source(None)}
        old = self._noted
        new = {key: p for key, p in here.items() if key not in old or (all_moved and old[key] != p.sample)}
        gone = [key for key in old if key not in here]
        if not (new or gone):
            return
        try:
            self._store.note_positions(new.values(), gone)
        except sqlite3.Error as e:
            _log.warning("event log: %s", e)
        else:
            noted = {**old, **{key: p.sample for key, p in new.items()}}
            self._noted = {key: at for key, at in noted.items() if key in here}
