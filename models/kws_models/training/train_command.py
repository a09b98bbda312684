"""`kws-models train`: its arguments. What it does wants torch, which no other command does."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from kws_models.command_line import Commands, add_command, extra_of, number, whole
from kws_models.data.audio_cache import default_cache
from kws_models.data.data_arguments import add_fold
from kws_models.training.train_options import TrainOptions
from kws_models.zoo.architectures import ARCHITECTURES
from kws_models.zoo.zoo_commands import add_batch_norm


def add_train(commands: Commands) -> None:
    """`train`."""
    example = "dscnn-s --data DIR --fold 0 --out runs/s"
    parser = add_command(commands, "train", _train, "train on recordings (needs the train extra)", example)
    add = parser.add_argument
    add("name", help=f"name of an architecture: {', '.join(ARCHITECTURES)}")
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--data", type=Path, metavar="DIR", help="recordings, a folder a label")
    given.add_argument("--pack", type=Path, metavar="FILE", help="features that kws-models pack wrote")
    add_fold(parser, "speakers or recordings to hold out")
    add("--out", type=Path, help="folder of the run (default runs/NAME); an interrupted run goes on")
    add_training(parser)


def add_training(parser: argparse.ArgumentParser) -> None:
    """How to train, whatever from: each a field of TrainOptions."""
    add = parser.add_argument
    add("--cache", type=Path, default=default_cache(), metavar="DIR", help="decoded audio")
    add("--recipe", default="standard", help="standard (default), mined, short, finish, reference")
    add("--steps", type=whole(1), help="in all, instead of the recipe's; its phases are scaled")
    add("--batch", type=whole(2), help="patches a step, instead of the recipe's; with --pack 512")
    add("--seed", type=whole(0), default=1, help="one seed gives one result (default 1)")
    add("--start", type=Path, metavar="FILE", help="weights.npz to go on from")
    add("--teacher", metavar="MODEL", help="a model or folder of the same front end and labels to learn from")
    mine = "before a phase that goes on from weights: find where they hear commands that nobody said"
    add("--mine", action="store_true", help=mine)
    percent = number("a percentage from 0 to 100", lambda value: 0 <= value <= 100)
    add("--silence", type=percent, metavar="PERCENT", help="of the batch, instead of the recipe's")
    add("--unknown", type=percent, metavar="PERCENT", help="of the batch, instead of the recipe's")
    share = number("0 <= P < 1", lambda value: 0 <= value < 1)
    add("--dropout", type=share, metavar="P", help="instead of the recipe's; 0 <= P < 1")
    add_batch_norm(parser)
    add("--device", default="auto", help="auto (default), cpu, cuda")
    add("--workers", type=whole(0), default=1, help="processes that make batches (default 1)")
    add("--threads", type=whole(1), default=1, help="threads of the training itself (default 1)")


def _train(name: str, **arguments: Any) -> None:
    with extra_of("train", "train"):
        from kws_models.training.phases import train_model
    train_model(name, TrainOptions(**arguments))
