"""What the command line says of a training beside the architecture's name, and the recipe that follows from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from kws_models.training.recipes import Recipe, find_recipe
from kws_models.zoo.architectures import Architecture
from kws_models.zoo.labels import SILENCE, UNKNOWN
from kws_serve.messages import KwsError


@dataclass(frozen=True)
class TrainOptions:
    """Each as its argument in `kws-models train --help`."""

    cache: Path
    data: Path | None = None
    pack: Path | None = None
    batch: int | None = None
    fold: int | None = None
    recipe: str = "standard"
    steps: int | None = None
    seed: int = 1
    out: Path | None = None
    start: Path | None = None
    teacher: str | None = None
    mine: bool = False
    silence: float | None = None  # percent
    unknown: float | None = None  # percent
    dropout: float | None = None
    batch_norm: bool | None = None
    workers: int = 1
    threads: int = 1
    device: str = "auto"


def check_options(options: TrainOptions) -> None:
    """Raises KwsError for options that a training on a pack has no use for: its batches are made on the device."""
    if options.pack is None:
        return
    given = {
        "--teacher": options.teacher is not None,
        "--mine": options.mine,
        "--silence": options.silence is not None,
        "--unknown": options.unknown is not None,
    }
    found = [option for option, there in given.items() if there]
    if found:
        raise KwsError(f"--pack: found {', '.join(found)} too, wanted --data for {'it' if len(found) == 1 else 'them'}")


def chosen_recipe(architecture: Architecture, options: TrainOptions) -> Recipe:
    """The recipe that the options name, with what they change of it. Raises KwsError."""
    for option, share, label in (("silence", options.silence, SILENCE), ("unknown", options.unknown, UNKNOWN)):
        if share is not None and label not in architecture.labels:
            raise KwsError(f"--{option}: found {architecture.name}, wanted a model with {label} among its labels")
    recipe = find_recipe(architecture.name, architecture.task, architecture.raw, options.recipe)
    recipe = recipe.scaled(options.steps) if options.steps else recipe
    if options.batch is not None:
        recipe = replace(recipe, batch=options.batch)
    if options.silence is not None:
        recipe = replace(recipe, silence_share=options.silence / 100)
    if options.unknown is not None:
        recipe = replace(recipe, unknown_share=options.unknown / 100)
    if options.dropout is not None:
        recipe = replace(recipe, phases=tuple(replace(p, dropout=options.dropout) for p in recipe.phases))
    return recipe
