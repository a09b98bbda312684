"""What the file takes on the disk, and making room in it. In the writing thread, but for `used_bytes`."""

from __future__ import annotations

from collections.abc import Sequence

from kws_serve.sinks.holes import note_forgotten
from kws_serve.sinks.log_file import LogFile
from kws_serve.sinks.schema import transaction

EXPIRE_ROWS = 5000
"""Rows that are forgotten at a look at most, in parts: 0.2 s of work in a minute."""

PART_ROWS = 250
"""Rows that are forgotten at once: commits wait meanwhile, some 10 ms."""

VACUUM_PAGES = 100
"""Free pages of 4 KiB that are given back at once at most, for the same reason; 250 rows leave about 30."""

FILLED = 0.9
"""How full a file of the largest size is left: so that not each further row asks for room again."""


class Space:
    """The file's size, and what is due to go. Raises sqlite3.Error where the file cannot be read or written."""

    def __init__(self, file: LogFile) -> None:
        self._file = file

    @property
    def used_bytes(self) -> int:
        """Bytes of the file that hold something. Any thread."""
        pages, free, page_bytes = (
            self._file.read(f"PRAGMA {what}")[0][0] for what in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * page_bytes)

    def older_than(self, at_s: float) -> list[int]:
        """Ids of rows that were logged before `at_s` (s since 1970) themselves, ascending; at most EXPIRE_ROWS."""
        rows = self._file.writer.execute(
            "SELECT id FROM detections WHERE logged_at < ? ORDER BY logged_at LIMIT ?", (at_s, EXPIRE_ROWS)
        )
        return sorted(id_ for (id_,) in rows)

    def oldest(self) -> list[int]:
        """The oldest ids, ascending; at most PART_ROWS."""
        rows = self._file.writer.execute("SELECT id FROM detections ORDER BY id LIMIT ?", (PART_ROWS,))
        return [id_ for (id_,) in rows]

    def forget(self, ids: Sequence[int]) -> None:
        """Delete these rows (not none; ids ascending), with their marks, and note whose they were.

        Where it raises, the rows are all there or all gone; what they took may not be free yet.
        """
        db = self._file.writer
        with transaction(db):
            whose = [db.execute("SELECT id, stream FROM detections WHERE id = ?", (id_,)).fetchone() for id_ in ids]
            db.executemany("DELETE FROM detections WHERE id = ?", [(id_,) for id_ in ids])
            note_forgotten(db, filter(None, whose))
        db.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
        db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def forget_streams(self, seen_before_s: float) -> None:
        """Forget the positions of streams that were last seen before then (s since 1970)."""
        with transaction(self._file.writer) as db:
            db.execute("DELETE FROM streams WHERE seen_at < ?", (seen_before_s,))
