"""How often a guarantee is tried, and what was measured: `make test` takes a twentieth, `make proof` all of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

FULL = os.environ.get("PROOF") == "full"


def count(full: int, least: int = 1) -> int:
    """How often to do what the full proof does `full` times."""
    return full if FULL else max(least, full // 20)


def record(row: str, n: str, figure: str) -> None:
    """Note what a row's test did and measured, for the docs' table."""
    path = os.environ.get("PROOF_LOG")
    if path:
        with Path(path).open("a") as f:
            f.write(json.dumps({"row": row, "n": n, "figure": figure}) + "\n")
