"""A log's file that was damaged, removed or replaced while it was open is written anew, beside all that goes on."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future

from kws_serve.sinks.log_file import LogFile
from kws_serve.sinks.salvage import Salvaged

_log = logging.getLogger(__name__)


class Mending:
    """In the log's thread; reading what is left has a thread of its own, so that detections go on meanwhile."""

    def __init__(self, file: LogFile) -> None:
        self._file = file
        self._found: Future[Salvaged] | None = None

    @property
    def under_way(self) -> bool:
        """Whether it has begun and is not done."""
        return self._found is not None

    def begin(self, last_id: int) -> None:
        """Begin to read what there is of ids up to `last_id`."""
        self._found = Future()
        threading.Thread(target=self._read, args=(self._found, last_id), name="log salvage", daemon=True).start()

    def _read(self, found: Future[Salvaged], last_id: int) -> None:
        try:
            found.set_result(self._file.salvaged(self._file.log_id, last_id))
        except Exception as e:  # told to the log's thread
            found.set_exception(e)

    def done(self, wait_s: float = 0.0) -> bool:
        """Whether the new file is in place; waits for it at most so long. Raises sqlite3.Error, OSError: it cannot be
        written; then `begin` tries again.
        """
        if self._found is None:
            return True
        try:
            found = self._found.result(wait_s)
        except TimeoutError:
            if self._found.done():  # of the disk, not of waiting
                self._found = None
                raise
            return False
        except BaseException:
            self._found = None
            raise
        self._found = None
        self._file.replace(found)
        n = sum(hole.last - hole.first + 1 for hole in found.lost)
        aside = f"; what was there is kept as {self._file.set_aside}" if self._file.set_aside else ""
        _log.warning("event log: written anew: %d detections, %d ids lost%s", found.rows, n, aside)
        return True
