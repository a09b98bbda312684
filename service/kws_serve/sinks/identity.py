"""Whether files still lie where they were opened: a file that was removed or replaced takes writes, and is gone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class Identity:
    """The inodes of some files, as they were when each was first seen. One thread at a time."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._seen: dict[Path, tuple[int, int]] = {}

    def fault(self) -> str:
        """What has become of a file that is not the one that was seen before; empty: all are."""
        for path in self._paths:
            try:
                stat = path.stat()
            except OSError as e:
                if path in self._seen:
                    return f"found {path} removed ({e.strerror})"
                continue
            if self._seen.setdefault(path, (stat.st_dev, stat.st_ino)) != (stat.st_dev, stat.st_ino):
                return f"found {path} replaced by another file"
        return ""

    def is_other(self, path: Path) -> bool:
        """Whether there lies another file than was seen there. Raises OSError: none."""
        stat = path.stat()
        return self._seen.get(path, (stat.st_dev, stat.st_ino)) != (stat.st_dev, stat.st_ino)
