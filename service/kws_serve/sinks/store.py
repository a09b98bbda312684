"""What is written into the log's file: detections, review marks, detector settings, and where streams were.

What it is asked is in `history`, what it takes on the disk in `space`, how it is opened in `log_file`.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from kws_serve.messages import Detection, Hole, JsonObject, Position
from kws_serve.sinks.filter import Review
from kws_serve.sinks.history import History
from kws_serve.sinks.holes import note_hole
from kws_serve.sinks.log_file import LogFile
from kws_serve.sinks.schema import COLUMNS, transaction
from kws_serve.sinks.space import Space


class Store:
    """The open file. One thread at a time writes; it raises sqlite3.Error where the disk does not do its part, and then
    nothing of the call is written.
    """

    def __init__(self, path: Path) -> None:
        """Open or create. Raises LogError, see LogFile."""
        self.file = LogFile(path)
        self.history = History(self.file)
        self.space = Space(self.file)

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return self.file.path

    def append(
        self, detections: Sequence[Detection], holes: Sequence[Hole] = (), positions: Sequence[Position] = ()
    ) -> None:
        """Commit detections that have their ids, ids that will have no row, and where streams are."""
        now_s = time.time()
        marks = ",".join("?" * (len(COLUMNS) + 1))
        with transaction(self.file.writer) as db:
            db.executemany(  # OR IGNORE: a commit that failed half-way may be there after all
                f"INSERT OR IGNORE INTO detections ({','.join(COLUMNS)}, logged_at) VALUES ({marks})",
                [(*(getattr(d, c) for c in COLUMNS), now_s) for d in detections],
            )
            for hole in holes:
                note_hole(db, hole)
            _note_positions(db, positions, now_s)

    def note_positions(self, positions: Iterable[Position], gone: Iterable[tuple[str, str]]) -> None:
        """Note how far streams were processed, for those who resume after a restart, and forget the streams
        (name, epoch) that are gone.
        """
        with transaction(self.file.writer) as db:
            db.executemany("DELETE FROM streams WHERE name = ? AND epoch = ?", list(gone))
            _note_positions(db, positions, time.time())

    def review(self, id: int, mark: Review | None) -> bool:
        """Mark a detection, or take its mark away; False where the log has no such id."""
        with transaction(self.file.writer) as db:
            return bool(db.execute("UPDATE detections SET review = ? WHERE id = ?", (mark, id)).rowcount)

    def save_overrides(self, model: str, settings: JsonObject, stream: str | None = None) -> None:
        """Keep what was changed of a model's detector, of `stream` or for all."""
        table, keys = ("overrides", {"model": model})
        if stream is not None:
            table, keys = "stream_overrides", {"stream": stream, "model": model}
        with transaction(self.file.writer) as db:
            db.execute(f"DELETE FROM {table} WHERE {' AND '.join(f'{key} = ?' for key in keys)}", (*keys.values(),))
            if settings:
                values = (*keys.values(), json.dumps(settings))
                db.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(values))})", values)

    def knows(self, uid: str) -> bool:
        """Whether an event is in the log. In the writing thread."""
        return bool(self.file.writer.execute("SELECT 1 FROM detections WHERE uid = ?", (uid,)).fetchone())

    def open_start(self, d: Detection) -> int | None:
        """The id of the start that the end `d` belongs to. In the writing thread."""
        row = self.file.writer.execute(
            "SELECT id, phase FROM detections WHERE stream = ? AND epoch = ? AND model = ? AND label = ? "
            "ORDER BY id DESC LIMIT 1",
            (d.stream, d.epoch, d.model, d.label),
        ).fetchone()
        return int(row[0]) if row and row[1] == "start" else None

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        self.file.close()


def _note_positions(db: sqlite3.Connection, positions: Iterable[Position], now_s: float) -> None:
    db.executemany(
        "INSERT OR REPLACE INTO streams (name, epoch, heard_sample, owner, seen_at) VALUES (?, ?, ?, ?, ?)",
        [(*position, now_s) for position in positions],
    )
