"""`kws-models train`: data checked, then trained phase by phase; the run's folder gets weights.npz."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from kws_models.data.audio_cache import decode
from kws_models.data.augmentation import LEVELS
from kws_models.data.event_batches import MIXES, EventBatches
from kws_models.data.features import first_second, patch_maker
from kws_models.data.keyword_batches import NOISE_FOLDER, KeywordBatches, KeywordMix
from kws_models.data.negatives import SILENCE
from kws_models.data.preflight import check_recordings, check_room
from kws_models.data.real_speech import find_sentences
from kws_models.data.recordings import (
    DataError,
    Recording,
    event_root,
    find_recordings,
    flatten,
    keyword_root,
    only_fold,
    require_folders,
)
from kws_models.evaluation.clips import UNKNOWN, UNKNOWN_SHARE, sample_unknown
from kws_models.evaluation.pictures import draw_curves
from kws_models.export.model_folder_writer import replace_file
from kws_models.export.quantiser import calibration_patches, find_ranges
from kws_models.export.weights_file import WEIGHTS_FILE, Checkpoint, read_weights, weights_bytes
from kws_models.training.batch_workers import Batches
from kws_models.training.integer_module import IntegerModule
from kws_models.training.loop import HISTORY, Teacher, TrainingRun, Validate, find_device, to_input, train
from kws_models.training.mining import mined
from kws_models.training.recipes import Phase, Recipe, find_recipe
from kws_models.training.torch_module import GraphModule, load_weights
from kws_models.zoo.absorbing import absorb
from kws_models.zoo.architectures import Architecture, find_architecture
from kws_serve.backends import open_backend
from kws_serve.manifest.folder import find_model, load_model, shipped_models_dir
from kws_serve.messages import Float32Array, KwsError


@dataclass(frozen=True)
class TrainOptions:
    """What the command line says beside the architecture's name."""

    data: Path
    cache: Path
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


def train_command(name: str, options: TrainOptions) -> None:
    """Train architecture `name`. Raises KwsError and ValueError for data or settings that do not fit."""
    architecture = find_architecture(name, options.batch_norm)
    recipe = _chosen(architecture, options)
    folder = options.out or Path("runs") / name
    device = find_device(options.device)
    teacher = open_teacher(options.teacher, architecture) if options.teacher else None
    found = read_weights(options.start, architecture) if options.start else None
    if options.mine and (architecture.task == "event" or UNKNOWN not in architecture.labels):
        raise KwsError(f"--mine: found {name}, wanted a model of words with {UNKNOWN} among its labels")
    seconds = check_recordings(wanted_recordings(architecture, options.data))
    check_room(folder, options.cache, seconds)
    print(
        f"{name}: {len(recipe.phases)} phases, {recipe.steps} steps, seed {options.seed}, "
        f"held-out fold {options.fold}, {device}; decoding recordings once into {options.cache}"
    )
    validate = keyword_validation(architecture, options.data, options.fold) if architecture.task == "keyword" else None
    for i, phase in enumerate(recipe.phases):
        part = folder / f"phase{i + 1}"
        if not (part / WEIGHTS_FILE).exists():
            print(f"phase {i + 1}: {phase}")
            batches = make_batches(architecture, options, recipe, phase, options.seed + 7919 * i)
            if options.mine and found is not None:
                batches = with_mined(batches, part, architecture, found)
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


def wanted_recordings(architecture: Architecture, data: Path) -> list[Recording]:
    """All that a training will read under the task's folder, missing and empty classes refused. Raises DataError."""
    root = event_root(data) if architecture.task == "event" else keyword_root(data)
    found = find_recordings(root)
    words = tuple(label for label in architecture.labels if label not in (UNKNOWN, SILENCE))
    require_folders(found, words if architecture.task == "event" else (*words, NOISE_FOLDER), root)
    others = [name for name in found if name not in words and (name == UNKNOWN or not name.startswith("_"))]
    if UNKNOWN in architecture.labels and not others:
        raise DataError(f"data: found no recordings of words that are no command under {root}, wanted some")
    talk = [s.recording for s in find_sentences(data)] if UNKNOWN in architecture.labels else []
    return [*flatten(found), *talk]


def _draw(folder: Path, n_phases: int) -> None:
    """The plot at the end; without the library one line, for the weights are there."""
    try:
        draw_curves([folder / f"phase{i + 1}" / HISTORY for i in range(n_phases)], folder / "curves.png")
    except KwsError as error:
        print(error)


def _chosen(architecture: Architecture, options: TrainOptions) -> Recipe:
    recipe = find_recipe(architecture.name, architecture.task, architecture.raw, options.recipe)
    recipe = recipe.scaled(options.steps) if options.steps else recipe
    if options.silence is not None:
        recipe = replace(recipe, silence_share=options.silence / 100)
    if options.unknown is not None:
        recipe = replace(recipe, unknown_share=options.unknown / 100)
    if options.dropout is not None:
        recipe = replace(recipe, phases=tuple(replace(p, dropout=options.dropout) for p in recipe.phases))
    return recipe


def _trained(
    architecture: Architecture,
    batches: Batches,
    run: TrainingRun,
    found: Checkpoint | None,
    validate: Validate | None,
    teacher: Teacher | None,
) -> Checkpoint:
    """One phase, from the weights found so far."""
    graph = architecture.graph
    if found is not None and found.ranges is not None:
        raise KwsError("--start: found weights trained for int8, wanted ones from before that phase (phase folders)")
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


def make_batches(
    architecture: Architecture, options: TrainOptions, recipe: Recipe, phase: Phase, seed: int
) -> KeywordBatches | EventBatches:
    """The task's training batches at the phase's strength of augmentation."""
    if architecture.task == "event":
        mix = replace(MIXES[phase.augment], n=recipe.batch)
        return EventBatches(architecture, options.data, options.fold, options.cache, seed, mix)
    half = recipe.batch // 2
    shares = (recipe.silence_share, recipe.unknown_share)
    keyword = KeywordMix(recipe.batch - half, half, *shares, augment=LEVELS[phase.augment])
    return KeywordBatches(architecture, options.data, options.fold, options.cache, seed, keyword)


def with_mined(
    batches: KeywordBatches | EventBatches, folder: Path, architecture: Architecture, found: Checkpoint
) -> KeywordBatches:
    """The batches, with the places where `found` hears commands that nobody said."""
    assert isinstance(batches, KeywordBatches)
    if found.ranges is not None:
        raise KwsError("--start: found weights trained for int8, wanted ones from before that phase (phase folders)")
    module = GraphModule(architecture.graph)
    load_weights(module, found.arrays)
    module.eval()

    def infer(patches: Float32Array) -> Float32Array:
        with torch.no_grad():
            logits = module(to_input(patches, architecture.graph.axes))
        return np.asarray(torch.softmax(logits, 1).numpy(), np.float32)

    batches.speech.places = mined(folder, batches, found.arrays, infer)
    return batches


def open_teacher(name: str, architecture: Architecture) -> Teacher:
    """The model called `name`, or in that folder, as a teacher; one of shorter patches hears the middle.

    Raises KwsError if it hears or says something else.
    """
    folder = Path(name)
    spec = load_model(folder) if (folder / "model.json").is_file() else find_model(name, [shipped_models_dir()])
    same_input = spec.front_end == patch_maker(architecture).spec and spec.n_frames <= architecture.n_frames
    first = (architecture.n_frames - spec.n_frames) // 2
    if spec.labels != architecture.labels or not same_input:
        raise KwsError(f"--teacher: {name} has other labels or another front end than {architecture.name}")
    infer = open_backend("onnx", spec).infer

    def taught(patches: Float32Array) -> Float32Array:
        middle = patches[:, first : first + spec.n_frames]
        return np.asarray(np.log(infer(middle) + 1e-6), np.float32)

    return taught


def keyword_validation(
    architecture: Architecture, data: Path, fold: int | None
) -> Callable[[GraphModule], float] | None:
    """Accuracy on the held-out fold's clips, as `evaluate` counts it but for `_silence_`; None without a fold."""
    if fold is None:
        return None
    labels = architecture.labels
    found = {name: only_fold(recordings, fold) for name, recordings in find_recordings(keyword_root(data)).items()}
    cases = [(r, i) for i, label in enumerate(labels) if not label.startswith("_") for r in found.get(label, [])]
    if UNKNOWN in labels:
        others = {n: rs for n, rs in found.items() if n not in labels and not n.startswith("_")}
        cases += [(r, labels.index(UNKNOWN)) for r in sample_unknown(others, round(UNKNOWN_SHARE * len(cases)))]
    maker = patch_maker(architecture)
    rate_hz = maker.spec.rate_hz
    samples = np.stack([first_second(decode(r.path, rate_hz), rate_hz, maker.patch_samples) for r, _ in cases])
    maps = to_input(maker.patches(samples), architecture.graph.axes)
    classes = torch.tensor([c for _, c in cases])

    def accuracy(module: GraphModule) -> float:
        device = next(module.parameters()).device
        with torch.no_grad():
            right = [
                (module(part.to(device)).argmax(1).cpu() == wanted).sum()
                for part, wanted in zip(maps.split(256), classes.split(256), strict=True)
            ]
        return float(sum(right)) / len(classes)

    return accuracy
