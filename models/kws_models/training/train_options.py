"""What the command line says of a training beside the architecture's name, and the recipe that follows from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from kws_models.training.recipes import Recipe, find_recipe
from kws_models.zoo.architectures import Architecture


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


def chosen_recipe(architecture: Architecture, options: TrainOptions) -> Recipe:
    """The recipe that the options name, with what they change of it. Raises KwsError."""
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
