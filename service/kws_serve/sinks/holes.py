"""Holes: ids that no row of the log has, and why. The file's table of them is called `gaps`, the message `log_gap`; in
all else a gap is audio that was lost.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator

from kws_serve.messages import Hole

FORGOTTEN = "retention"
"""Why an id is missing of which nothing was noted: its row was deleted."""


def note_hole(db: sqlite3.Connection, hole: Hole) -> None:
    """Note ids that no row has; they are given all the same. Inside the caller's transaction. Raises sqlite3.Error."""
    db.execute("INSERT OR REPLACE INTO gaps VALUES (?, ?, ?)", (hole.first, hole.last, hole.reason))
    note_given(db, hole.last)


def note_given(db: sqlite3.Connection, id_: int) -> None:
    """Note that ids up to this one were given. Inside the caller's transaction. Raises sqlite3.Error."""
    done = db.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'detections'", (id_,))
    if not done.rowcount:  # the table has never had a row
        db.execute("INSERT INTO sqlite_sequence VALUES ('detections', ?)", (id_,))


def explained(first: int, last: int, noted: Iterable[Hole], otherwise: str = FORGOTTEN) -> list[Hole]:
    """The missing ids [first, last] cut where the reason changes; what no `noted` hole has is missing for `otherwise`.

    noted            [4 . 6]     [8 . . . .     as far as it lies in [first, last]; no two share an id
    missing    [2 . . . . . . . . 9]
    found      [2 3][4 . 6][7][8 9]
    """
    holes = []
    at = first  # all below it is told
    for hole in sorted(noted, key=lambda h: h.first):
        begin, end = max(hole.first, at), min(hole.last, last)
        if begin > end:
            continue
        if begin > at:
            holes.append(Hole(at, begin - 1, otherwise))
        holes.append(Hole(begin, end, hole.reason))
        at = end + 1
    return [*holes, Hole(at, last, otherwise)] if at <= last else holes


def without(hole: Hole, waiting: Collection[int], noted: Collection[Hole]) -> list[Hole]:
    """A hole of the file, less the ids that wait in memory; of the rest, `noted` holes have their own reasons."""
    return [part for first, last in _between(hole, waiting) for part in explained(first, last, noted, hole.reason)]


def _between(hole: Hole, waiting: Collection[int]) -> Iterator[tuple[int, int]]:
    """The spans (first, last) of the hole's ids that are not `waiting`.

    hole       [3 . . . . . 9]
    waiting         5 6   8      12
    between    [3 4]   [7] [9]
    """
    at = hole.first
    for id_ in sorted(i for i in waiting if hole.first <= i <= hole.last):
        if id_ > at:
            yield at, id_ - 1
        at = id_ + 1
    if at <= hole.last:
        yield at, hole.last
