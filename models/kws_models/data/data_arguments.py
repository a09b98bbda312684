"""Arguments of the commands that read recordings."""

from __future__ import annotations

import argparse
from pathlib import Path

from kws_models.command_line import whole
from kws_models.data.audio_cache import default_cache
from kws_models.data.recordings import N_FOLDS


def add_learning_data(parser: argparse.ArgumentParser, name_help: str) -> None:
    """An architecture, and the recordings that its weights learn or learnt from."""
    parser.add_argument("name", help=name_help)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="recordings, a folder a label")
    add_fold(parser, "speakers or recordings to hold out")
    parser.add_argument("--cache", type=Path, default=default_cache(), metavar="DIR", help="decoded audio")


def add_fold(parser: argparse.ArgumentParser, what: str, required: bool = False) -> None:
    """`--fold`: one of the N_FOLDS parts that speakers and recordings are divided into."""
    last = N_FOLDS - 1
    parser.add_argument(
        "--fold", type=whole(0, last), required=required, metavar="F", help=f"{what}: a fold from 0 to {last}"
    )
