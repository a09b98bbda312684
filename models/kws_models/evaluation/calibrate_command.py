"""`kws-models calibrate`: detection settings from what must not fire and what must.

Scores are computed once (calibration_material.py); the service's own detector is run on them with each setting
(thresholds.py); what was found is told with its exposure and intervals (calibration_report.py).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kws_models.command_line import Commands, add_command, number, whole
from kws_models.data.data_arguments import add_fold
from kws_models.evaluation.calibration_material import gather
from kws_models.evaluation.calibration_report import measured, write
from kws_models.evaluation.chosen_model import FLOAT, open_file
from kws_models.evaluation.thresholds import Choice, choose, kept
from kws_serve.manifest.folder import load_model
from kws_serve.manifest.spec import ModelSpec

_MORE = """What must not fire: the fold's backgrounds and hard negatives (none of them may), and hours of synthesised
running speech without the command words over those backgrounds at 0 to 20 dB (at most --max-fa-per-hour, all labels
together). Real people's running speech of the fold is measured beside it, apart: it is harder, and of few hours. What
must fire: the fold's clips in scenes over its backgrounds.

Per label the lowest threshold is taken that keeps the bounds; the allowed false accepts are spent where they save most
misses. Prints the settings and the measurement as JSON."""


@dataclass(frozen=True)
class Bounds:
    """How much synthesised speech (hours), what may fire on it an hour and on hard negatives a label, and the seed."""

    hours: float = 6.0
    most_per_hour: float = 0.5
    most_hard: int = 0
    seed: int = 1


def add_calibrate(commands: Commands) -> None:
    """`calibrate`."""
    summary = "looks for the detection settings of a model folder that miss least within bounds"
    example = "my-models/dscnn-s --data DIR --fold 0 --write"
    add = (parser := add_command(commands, "calibrate", _calibrate, summary, example, _MORE)).add_argument
    add("folder", type=Path, metavar="FOLDER", help="the model's folder")
    add("--data", type=Path, required=True, metavar="DIR", help="recordings (docs/training.md says which)")
    add_fold(parser, "what the model did not learn from", required=True)
    add_material(parser)
    add("--seed", type=whole(0), default=1, metavar="N", help="of speech, scenes and mixing (default 1)")
    add(
        "--write",
        action="store_true",
        dest="write_settings",
        help="put settings and measurement into the folder's model.json",
    )


def add_material(parser: argparse.ArgumentParser) -> None:
    """What is listened to, and what may fire on it: the fields of Bounds but its seed, and other people talking."""
    add = parser.add_argument
    hours = number("hours > 0", lambda value: value > 0)
    add("--hours", type=hours, default=6.0, metavar="H", help="of synthesised running speech (default 6)")
    rate = number("a number >= 0", lambda value: value >= 0)
    add("--max-fa-per-hour", type=rate, default=0.5, metavar="N", help="false accepts on it, at most (default 0.5)")
    hard = "of a label on backgrounds and hard negatives, at most (default 0)"
    add("--max-hard-accepts", type=whole(0), default=0, metavar="N", help=hard)
    talk = "other people talking, all of them, measured apart (may be given again)"
    add("--speech", type=Path, action="append", default=[], metavar="DIR", help=talk)


def _calibrate(
    folder: Path,
    data: Path,
    fold: int,
    hours: float,
    max_fa_per_hour: float,
    max_hard_accepts: int,
    seed: int,
    speech: list[Path],
    write_settings: bool,
) -> None:
    spec = load_model(folder)
    bounds = Bounds(hours, max_fa_per_hour, max_hard_accepts, seed)
    choice, facts = calibrate(spec, data, fold, bounds, speech)
    print(json.dumps(facts, indent=1))
    if write_settings:
        write(folder, choice, facts)


def calibrate(
    spec: ModelSpec, data: Path, fold: int, bounds: Bounds, speech: Sequence[Path] = (), keep: bool = False
) -> tuple[Choice, dict[str, Any]]:
    """The settings of the model's float file, and what was measured; `keep`: those that it has. Raises KwsError."""
    with closing(open_file(FLOAT, spec)) as backend:
        material = gather(spec, backend.infer, data, fold, bounds.hours, bounds.seed, speech)
    choice = kept(spec, material) if keep else choose(spec, material, bounds.most_per_hour, bounds.most_hard)
    return choice, measured(spec, material, choice)
