"""`kws-models paired`: int8 against float on held-out folds, then pooled."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from kws_models.command_line import Commands, add_command
from kws_models.evaluation.chosen_model import FLOAT, INTEGER, open_file
from kws_models.evaluation.clips import Options, judge
from kws_models.evaluation.intervals import Paired, paired
from kws_serve.manifest.folder import load_model
from kws_serve.messages import KwsError

_MORE = """A folder's model.json says which fold it did not learn from (provenance.held_out_fold): its clips are judged.
Prints a line a folder and one of all clips: int8 less float in points, Newcombe's paired 95 % interval, the clips that
only one of the two files gets right, and the exact McNemar test."""


def add_paired(commands: Commands) -> None:
    """`paired`."""
    summary = "a folder's int8 file against its float32 one, on the fold that it did not learn from"
    parser = add_command(commands, "paired", _paired, summary, "my-models/fold0 my-models/fold1 --data DIR", _MORE)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="model folders, one or more")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="recordings, a folder a label")


def _paired(folders: Sequence[Path], data: Path) -> None:
    print(as_text(*judged_folders(folders, data)))


def judged_folders(folders: Sequence[Path], data: Path) -> tuple[list[str], list[Paired]]:
    """A name and a comparison (first float32, second int8) for each folder, and a last one of all clips together.

    Raises KwsError for a folder whose model.json does not say which fold it did not learn from.
    """
    names, right = [], []
    for folder in folders:
        spec = load_model(folder)
        fold = spec.provenance.get("held_out_fold")
        if not isinstance(fold, int):
            raise KwsError(
                f"{folder}: provenance.held_out_fold: found {fold!r}, wanted a fold that it did not learn from"
            )
        both = []
        for kind in (FLOAT, INTEGER):
            with closing(open_file(kind, spec)) as backend:
                both.append(judge(spec, backend.infer, data, Options(fold=fold)).right(spec.labels))
        names.append(f"{spec.name} fold {fold}")
        right.append(both)
    pooled = [np.concatenate(part) for part in zip(*right, strict=True)]
    return [*names, "all"], [paired(*both) for both in (*right, pooled)]


def as_text(names: list[str], rows: list[Paired]) -> str:
    """A line a fold; the spread is over folds."""
    lines = [f"{'':24}{'n':>7}  int8 - float  95 % interval      only float  only int8  McNemar p"]
    for name, row in zip(names, rows, strict=True):
        low, high = (100 * x for x in row.interval)
        lines.append(
            f"{name:24}{row.n:>7}{100 * row.difference:>+13.2f}  {low:+.2f} to {high:+.2f}"
            f"{row.only_first:>14}{row.only_second:>11}{row.p_value:>11.3g}"
        )
    points = [100 * row.difference for row in rows[:-1]]
    spread = f", standard deviation {np.std(points, ddof=1):.2f}" if len(points) > 1 else ""
    return "\n".join([*lines, f"mean over folds {np.mean(points):+.2f} points{spread}"])
