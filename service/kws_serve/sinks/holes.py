"""Holes: ids that no row of the log has, and why. The file's table of them is called `gaps`, the message `log_gap`; in
all else a gap is audio that was lost.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from kws_serve.messages import Hole

FORGOTTEN = "retention"
"""Why an id is missing of which nothing was noted: its row was deleted."""

MOST_NAMED = 10_000
"""Streams of which it is kept that rows of theirs are in a hole, about 0.5 MB: of more, it may be anybody's."""


def named(streams: Mapping[str, int]) -> Mapping[str, int] | None:
    """The streams of a hole, unless they are too many to be kept."""
    return streams if len(streams) <= MOST_NAMED else None


def note_hole(db: sqlite3.Connection, hole: Hole) -> None:
    """Note ids that no row has; they are given all the same. Inside the caller's transaction. Raises sqlite3.Error."""
    db.execute("INSERT OR REPLACE INTO gaps VALUES (?, ?, ?)", (hole.first, hole.last, hole.reason))
    _note_streams(db, hole.first, hole.streams)
    note_given(db, hole.last)


def note_forgotten(db: sqlite3.Connection, ids: Iterable[tuple[int, str]]) -> None:
    """Note ids (ascending, each with its stream) whose rows go: beside the hole that they are next to, or as one.

    Inside the caller's transaction. Raises sqlite3.Error.
    """
    for hole in _joined(ids):
        first, *before = db.execute(
            "SELECT first, last, reason, first IN (SELECT first FROM lost) FROM gaps WHERE first < ? "
            "ORDER BY first DESC LIMIT 1",
            (hole.first,),
        ).fetchone() or (0,)
        if before == [hole.first - 1, FORGOTTEN, True]:
            db.execute("UPDATE gaps SET last = ? WHERE first = ?", (hole.last, first))
            _note_streams(db, first, hole.streams)
        else:
            note_hole(db, hole)


def _joined(ids: Iterable[tuple[int, str]]) -> list[Hole]:
    """Ids that follow one another as one hole."""
    holes: list[Hole] = []
    for id_, stream in ids:
        if holes and holes[-1].last == id_ - 1:
            holes[-1] = Hole(holes[-1].first, id_, FORGOTTEN, {**(holes[-1].streams or {}), stream: id_})
        else:
            holes.append(Hole(id_, id_, FORGOTTEN, {stream: id_}))
    return holes


def _note_streams(db: sqlite3.Connection, first: int, streams: Mapping[str, int] | None) -> None:
    """Add to the streams of the hole that begins at `first`."""
    db.executemany(
        "INSERT OR REPLACE INTO lost VALUES (?, ?, ?)", [(first, name, id_) for name, id_ in (streams or {}).items()]
    )
    if db.execute("SELECT count(*) FROM lost WHERE first = ?", (first,)).fetchone()[0] > MOST_NAMED:
        db.execute("DELETE FROM lost WHERE first = ?", (first,))


def note_given(db: sqlite3.Connection, id_: int) -> None:
    """Note that ids up to this one were given. Inside the caller's transaction. Raises sqlite3.Error."""
    done = db.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'detections'", (id_,))
    if not done.rowcount:  # the table has never had a row
        db.execute("INSERT INTO sqlite_sequence VALUES ('detections', ?)", (id_,))


def explained(missing: Hole, noted: Iterable[Hole]) -> list[Hole]:
    """The `missing` ids cut where a `noted` hole explains them; the rest is missing for its own reason.

    noted            [4 . 6]     [8 . . . .     as far as it lies in `missing`; no two share an id
    missing    [2 . . . . . . . . 9]
    found      [2 3][4 . 6][7][8 9]
    """
    holes = []
    at, last = missing.first, missing.last  # all below `at` is told
    for hole in sorted(noted, key=lambda h: h.first):
        begin, end = max(hole.first, at), min(hole.last, last)
        if begin > end:
            continue
        if begin > at:
            holes.append(replace(missing, first=at, last=begin - 1))
        holes.append(replace(hole, first=begin, last=end))
        at = end + 1
    return [*holes, replace(missing, first=at)] if at <= last else holes


def without(hole: Hole, waiting: Collection[int], noted: Collection[Hole]) -> list[Hole]:
    """A hole of the file, less the ids that wait in memory; of the rest, `noted` holes have their own reasons."""
    return [part for span in _between(hole, waiting) for part in explained(span, noted)]


def _between(hole: Hole, waiting: Collection[int]) -> Iterator[Hole]:
    """The hole without the ids that are `waiting`.

    hole       [3 . . . . . 9]
    waiting         5 6   8      12
    between    [3 4]   [7] [9]
    """
    at = hole.first
    for id_ in sorted(i for i in waiting if hole.first <= i <= hole.last):
        if id_ > at:
            yield replace(hole, first=at, last=id_ - 1)
        at = id_ + 1
    if at <= hole.last:
        yield replace(hole, first=at)
