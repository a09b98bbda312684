"""What is noted beside the log's file of the ids that were given: the newest one, and whether all are in the file.

`.all-logged` holds the newest id as text. Where ids are given that the file does not have, it is called `.not-logged`
instead: renaming and writing over it need no space, so they work on a full disk too. A backup that is restored is seen
by it: in its place it lacks ids that were given, elsewhere it has no such note beside it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_DIGITS = 20
"""The text is always as long, so that writing over it needs no space: more than 2**63 has."""


class Given:
    """One thread at a time."""

    def __init__(self, path: Path) -> None:
        """`path`: the log's file."""
        self._all = Path(f"{path}.all-logged")
        self._not = Path(f"{path}.not-logged")
        self._open: int | None = None

    @property
    def newest_id(self) -> int | None:
        """The newest id that was noted, 0 where none was; None: nothing was noted of this file."""
        for path in (self._not, self._all):
            with contextlib.suppress(FileNotFoundError):
                text = path.read_text().strip()
                return int(text) if text.isascii() and text.isdigit() else 0
        return None

    @property
    def all_logged(self) -> bool:
        """Whether all that were given are in the file, as far as it was noted."""
        return self._all.exists() and not self._not.exists()

    def mark(self, logged: bool) -> None:
        """Note whether all are in the file, so that it outlives a power cut. Raises OSError: that is uncertain then."""
        found, wanted = (self._not, self._all) if logged else (self._all, self._not)
        with contextlib.suppress(FileNotFoundError):
            found.rename(wanted)
        self.close()
        self._open = os.open(wanted, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        folder = os.open(wanted.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def note(self, id_: int) -> None:
        """Note the newest id. After a power cut an older one may stand there; after `kill -9` it is this one."""
        if self._open is not None:
            with contextlib.suppress(OSError):
                os.pwrite(self._open, f"{id_:<{_DIGITS}}\n".encode(), 0)

    def close(self) -> None:
        """Close it. Safe to call twice."""
        if self._open is not None:
            os.close(self._open)
            self._open = None
