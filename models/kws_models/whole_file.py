"""Files that are whole or not there: what a reader, or a run that is taken up again, may count on."""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` beside `path`, then put it in its place: never half-written.

    Raises OSError; the old file is then as it was, and what was written of the new one may lie beside it.
    """
    part = path.with_name(f"{path.name}.part{os.getpid()}")
    part.write_bytes(content)
    part.replace(path)
