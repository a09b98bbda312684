"""The per-layer table that the GAP8 reference prints: layer, cycles, operations, operations a cycle, total."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from kws_board import gvsoc
from kws_board.board import Board
from kws_board.cost_model import estimate
from kws_board.errors import BoardError
from kws_board.image import BoardImage

SOURCES = {
    "counter": "cycles of the board's own counter",
    "gvsoc": "cycles of gvsoc, the simulator of the chip",
    "instructions": "instructions executed by the emulator: no measure of GAP8's cycles",
    "modelled": "modelled from the reference's tables, not measured",
    "none": "not counted by this board",
}


@dataclass(frozen=True)
class ProfileRow:
    """One layer."""

    layer: str
    kind: str
    cycles: int
    operations: int


@dataclass(frozen=True)
class Profile:
    """A model's layers, and where their cycles come from."""

    model: str
    cycle_source: str  # a key of SOURCES
    board: str  # who counted, with versions
    rows: tuple[ProfileRow, ...]

    def as_json(self) -> str:
        """What `--json` prints and `--from-log` reads."""
        totals = {"cycles": self.cycles, "operations": self.operations}
        return json.dumps(asdict(self) | {"total": totals}, indent=1)

    @property
    def cycles(self) -> int:
        """Total."""
        return sum(row.cycles for row in self.rows)

    @property
    def operations(self) -> int:
        """Total."""
        return sum(row.operations for row in self.rows)


def measured(board: Board, image: BoardImage, version: str) -> Profile:
    """One inference of a patch of zeros on `board`. Raises BoardError."""
    zeros = np.full(image.model.input.size, image.model.input.zero_point, np.int8)
    result = board.infer(image, zeros, layers=True)
    if len(result.layers) != len(image.steps):
        raise BoardError(f"board: profile: found {len(result.layers)} layers, wanted {len(image.steps)}")
    rows = [
        ProfileRow(step.name, step.kind, count.cycles, count.operations)
        for step, count in zip(image.steps, result.layers, strict=True)
    ]
    source = "gvsoc" if board.name.startswith("gvsoc") else result.cycle_source
    return Profile(image.model.name, source, f"{board.name}, {version}", tuple(rows))


def modelled(image: BoardImage) -> Profile:
    """The cost model's cycles."""
    cycles = estimate(image).cycles
    rows = [ProfileRow(s.name, s.kind, c, s.operations) for s, c in zip(image.steps, cycles, strict=True)]
    return Profile(image.model.name, "modelled", "cost model", tuple(rows))


def from_log(path: Path, image: BoardImage | None = None) -> Profile:
    """What `--json` printed, or of `image` what `--log` kept of gvsoc; also *.gz. Raises BoardError for others."""
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
        if image is not None and f"{gvsoc.TIMER}/trace" in text:
            return _from_trace(path, text, image)
        found: dict[str, Any] = json.loads(text)
        rows = tuple(ProfileRow(**row) for row in found["rows"])
        profile = Profile(found["model"], found["cycle_source"], found["board"], rows)
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise BoardError(
            f"{path}: found no profile ({error}), wanted what kws-board profile --json prints, or with a model's NAME "
            "what --log kept"
        ) from error
    if profile.cycle_source not in SOURCES:
        raise BoardError(f"{path}: cycle_source: found {profile.cycle_source!r}, wanted one of {', '.join(SOURCES)}")
    return profile


# time in ps, cycle of the cluster's clock, component: a read of the timer's low word
_READ = re.compile(
    r"^\d+: (\d+): \[\S*cluster/timer/trace *\] Timer access \(offset: 0x8, .*is_write: 0\)$", re.MULTILINE
)


def _from_trace(path: Path, text: str, image: BoardImage) -> Profile:
    """The last inference: the firmware reads the counter before its first layer and after each."""
    read_at = [int(found[1]) for found in _READ.finditer(text)][-len(image.steps) - 1 :]
    if len(read_at) <= len(image.steps):
        wanted = f"at least {len(image.steps) + 1}"
        raise BoardError(f"{path}: {image.model.name}: found {len(read_at)} reads of the timer, wanted {wanted}")
    rows = tuple(
        ProfileRow(step.name, step.kind, after - before, step.operations)
        for step, (before, after) in zip(image.steps, pairwise(read_at), strict=True)
    )
    return Profile(image.model.name, "gvsoc", path.name, rows)


def as_table(profile: Profile) -> str:
    """The table as text."""
    unit = "instructions" if profile.cycle_source == "instructions" else "cycles"
    width = max([len(row.layer) for row in profile.rows] + [5]) + 2
    lines = [
        f"{profile.model}: {SOURCES[profile.cycle_source]} ({profile.board})",
        f"{'layer':<{width}}{unit:>14}{'operations':>12}{f'op/{unit[:-1]}':>16}",
    ]
    for row in [*profile.rows, ProfileRow("total", "", profile.cycles, profile.operations)]:
        rate = f"{row.operations / row.cycles:.2f}" if row.cycles else "-"
        lines.append(f"{row.layer:<{width}}{row.cycles:>14,}{row.operations:>12,}{rate:>16}")
    return "\n".join(lines)
