"""Labels of long recordings, in a text file beside each one.

`street.txt` beside `street.wav`: an Audacity label track, lines of onset, offset (seconds) and label between tabs.
`street.csv` or `.tsv`: columns onset, offset, event_label by header, as in DCASE's sound event detection tasks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from kws_models.data.csv_table import csv_rows
from kws_models.data.errors import DataError

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".aifc")
LABEL_SUFFIXES = (".txt", ".tsv", ".csv")


@dataclass(frozen=True)
class LabelledEvent:
    """Something that sounds, in seconds since the recording began."""

    onset_s: float
    offset_s: float
    label: str


@dataclass(frozen=True)
class LabelledRecording:
    """A recording and all that should be heard in it."""

    path: Path
    events: tuple[LabelledEvent, ...]


def find_labelled(folder: Path) -> list[LabelledRecording]:
    """Recordings under `folder` that have a label file; sorted by path. Raises DataError for none or a bad label."""
    if not folder.is_dir():
        raise DataError(f"--data: found no folder {folder}, wanted recordings with label files beside them")
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES):
        beside = [path.with_suffix(suffix) for suffix in LABEL_SUFFIXES if path.with_suffix(suffix).is_file()]
        if beside:
            found.append(LabelledRecording(path, read_labels(beside[0])))
    if not found:
        wanted = f"recordings with {', '.join('NAME' + s for s in LABEL_SUFFIXES)} beside them"
        raise DataError(f"--data: found no labelled recording under {folder}, wanted {wanted}")
    return found


def read_labels(path: Path) -> tuple[LabelledEvent, ...]:
    """The events of one label file, by onset. An empty file is a recording without events. Raises DataError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: found {error}, wanted a text file of labels") from error
    lines = [(i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip() and not line.startswith("\\")]
    rows = [(i, line.split("\t")) for i, line in lines] if path.suffix == ".txt" else _columns(path, lines)
    events = [_event(path, i, cells) for i, cells in rows]
    return tuple(sorted(events, key=lambda e: (e.onset_s, e.offset_s, e.label)))


def _columns(path: Path, lines: list[tuple[int, str]]) -> list[tuple[int, list[str]]]:
    """Onset, offset and label of each row, by the header's names."""
    if not lines:
        return []
    delimiter = "\t" if "\t" in lines[0][1] else ","
    # what is no line to us (blank, comment) is none to the reader either: its line i is lines[i - 1]
    table = [(lines[i - 1][0], cells) for i, cells in csv_rows(path, [line for _, line in lines], delimiter)]
    header, *rows = table[0][1], *table[1:]
    wanted = ("onset", "offset", "event_label")
    missing = [name for name in wanted if name not in header]
    if missing:
        raise DataError(f"{path}: found a header without {missing[0]}, wanted {', '.join(wanted)}")
    at = [header.index(name) for name in wanted]
    return [(i, [row[j] if j < len(row) else "" for j in at]) for i, row in rows]


def _event(path: Path, line: int, cells: list[str]) -> LabelledEvent:
    try:
        onset_s, offset_s, label = float(cells[0]), float(cells[1]), cells[2].strip()
    except (IndexError, ValueError):
        raise DataError(f"{path}: line {line}: found {' '.join(cells)[:60]!r}, wanted onset, offset, label") from None
    if not (label and math.isfinite(offset_s) and 0.0 <= onset_s <= offset_s):
        raise DataError(f"{path}: line {line}: found {onset_s} to {offset_s}, wanted 0 <= onset <= offset, and a label")
    return LabelledEvent(onset_s, offset_s, label)
