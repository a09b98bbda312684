"""`kws-models filters`: its arguments. The pictures want libraries that the other commands do not."""

from __future__ import annotations

import sys
from pathlib import Path

from kws_models.command_line import Commands, add_command, extra_of
from kws_models.evaluation.chosen_model import add_model_dir, choose_model


def add_filters(commands: Commands) -> None:
    """`filters`."""
    summary = "draws the first layers' filters, and a clip's feature maps"
    parser = add_command(commands, "filters", _filters, summary, "dscnn-s --clip yes.wav --out pictures")
    parser.add_argument("name", help="a shipped model, or a model folder")
    add_model_dir(parser)
    parser.add_argument("--clip", type=Path, metavar="FILE", help="a recording to draw the feature maps of")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the pictures go (default NAME-filters)")


def _filters(name: str, model_dir: Path | None, clip: Path | None, out: Path | None) -> None:
    spec = choose_model(name, model_dir)
    folder = out or Path(f"{spec.name}-filters")
    print(f"drawing the filters of {spec.name} into {folder}", file=sys.stderr, flush=True)  # it takes half a minute
    with extra_of("filters", "evaluate"):
        from kws_models.evaluation.filters import filters
    for path in filters(spec, clip, folder):
        print(path, flush=True)
