"""A training, phase by phase: each goes on from the one before; at the end the run's folder gets weights.npz."""

from __future__ import annotations

import json
from pathlib import Path

from kws_models.data.batches import Batches
from kws_models.evaluation.pictures import draw_curves
from kws_models.export.quantiser import calibration_patches, find_ranges
from kws_models.export.weights_file import WEIGHTS_FILE, Checkpoint, read_weights, weights_bytes
from kws_models.training.integer_module import IntegerModule
from kws_models.training.loop import Teacher, Validate, find_device, train
from kws_models.training.pack_batches import PackBatches
from kws_models.training.progress import HISTORY, TrainingRun
from kws_models.training.sources import open_source
from kws_models.training.teachers import open_teacher
from kws_models.training.torch_module import GraphModule, load_weights
from kws_models.training.train_options import TrainOptions, check_options, chosen_recipe
from kws_models.whole_file import replace_file
from kws_models.zoo.absorbing import absorb
from kws_models.zoo.architectures import Architecture, find_architecture
from kws_serve.messages import KwsError

_SEEDS_APART = 7919  # of the phases' batches: more than phases that anybody runs with neighbouring seeds


def train_model(name: str, options: TrainOptions) -> None:
    """Train architecture `name`. Raises KwsError and ValueError for data or settings that do not fit."""
    check_options(options)
    architecture = find_architecture(name, options.batch_norm)
    recipe = chosen_recipe(architecture, options)
    folder = options.out or Path("runs") / name
    device = find_device(options.device)
    teacher = open_teacher(options.teacher, architecture) if options.teacher else None
    found = read_weights(options.start, architecture) if options.start else None
    source = open_source(architecture, options, recipe, folder, device)
    print(
        f"{name}: {len(recipe.phases)} phases, {recipe.steps} steps, seed {options.seed}, "
        f"held-out fold {options.fold}, {device}; {source.told}"
    )
    validate = source.validation()
    for i, phase in enumerate(recipe.phases):
        part = folder / f"phase{i + 1}"
        if not (part / WEIGHTS_FILE).exists():
            if found is not None and found.ranges is not None:
                wanted = "ones from before that phase (phase folders)"
                raise KwsError(f"--start: found weights trained for int8, wanted {wanted}")
            print(f"phase {i + 1}: {phase}")
            batches = source.batches(phase, options.seed + _SEEDS_APART * i, part, found)
            run = TrainingRun(part, phase, options.seed, options.workers, options.threads, device)
            trained = _trained(architecture, batches, run, found, validate, teacher)
            replace_file(part / WEIGHTS_FILE, weights_bytes(trained))
        found = read_weights(part / WEIGHTS_FILE, architecture)
    assert found is not None
    replace_file(folder / WEIGHTS_FILE, weights_bytes(found))
    _draw(folder, len(recipe.phases))
    facts = {"name": name, "recipe": str(recipe), "seed": options.seed, "fold": options.fold}
    facts |= {"start": str(options.start or ""), "teacher": options.teacher or "", "mine": options.mine}
    replace_file(folder / "run.json", json.dumps(facts, indent=1).encode())
    print(f"{folder / WEIGHTS_FILE}: done; next: kws-models export {name} --weights {folder / WEIGHTS_FILE} ...")


def _draw(folder: Path, n_phases: int) -> None:
    """The plot at the end; without the library one line, for the weights are there."""
    try:
        draw_curves([folder / f"phase{i + 1}" / HISTORY for i in range(n_phases)], folder / "curves.png")
    except KwsError as error:
        print(error)


def _trained(
    architecture: Architecture,
    batches: Batches | PackBatches,
    run: TrainingRun,
    found: Checkpoint | None,
    validate: Validate | None,
    teacher: Teacher | None,
) -> Checkpoint:
    """One phase, from the weights found so far."""
    graph = architecture.graph
    if not run.phase.integer:

        def make(dropout: float) -> GraphModule:
            module = GraphModule(graph, dropout)
            if found is not None:
                load_weights(module, found.arrays)
            return module

        return Checkpoint(train(make, batches, run, validate, teacher))
    if found is None:
        raise KwsError("recipe: found an integer phase first, wanted weights to begin with: give --start")
    absorbed, arrays = absorb(graph, found.arrays)
    ranges = find_ranges(absorbed, arrays, calibration_patches(batches))

    def make_integer(dropout: float) -> GraphModule:
        module = IntegerModule(absorbed, ranges, dropout)
        load_weights(module, arrays)
        return module

    return Checkpoint(train(make_integer, batches, run, validate, teacher), ranges)
