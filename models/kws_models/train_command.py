"""`kws-models train`: data checked, then trained; the run's folder gets weights.npz."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from kws_models.architectures import Architecture, find_architecture
from kws_models.audio_cache import decode
from kws_models.batch_workers import Batches
from kws_models.evaluation import UNKNOWN, UNKNOWN_SHARE, sample_unknown
from kws_models.event_batches import EventBatches
from kws_models.features import first_second, patch_maker
from kws_models.keyword_batches import KeywordBatches
from kws_models.model_folder_writer import replace_file
from kws_models.recipes import find_recipe
from kws_models.recordings import find_recordings, keyword_root, only_fold
from kws_models.torch_module import GraphModule
from kws_models.training import TrainingRun, to_input, train

WEIGHTS_FILE = "weights.npz"


def train_command(
    name: str,
    data: Path,
    fold: int | None,
    cache: Path,
    recipe: str,
    steps: int | None,
    seed: int,
    out: Path | None,
    workers: int,
    threads: int,
) -> None:
    """Train architecture `name`. Raises KwsError and ValueError for data or settings that do not fit."""
    architecture = find_architecture(name)
    chosen = find_recipe(architecture.task, recipe)
    chosen = replace(chosen, steps=steps) if steps else chosen
    folder = out or Path("runs") / name
    print(f"{name}: {chosen.steps} steps, seed {seed}, held-out fold {fold}; decoding recordings once into {cache}")
    batches = make_batches(architecture, data, fold, cache, seed)
    validate = keyword_validation(architecture, data, fold) if architecture.task == "keyword" else None
    run = TrainingRun(folder, chosen, seed, workers, threads)
    weights = train(architecture.graph, batches, run, validate)
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **weights)
    replace_file(folder / WEIGHTS_FILE, content.getvalue())
    facts = {"name": name, "recipe": str(chosen), "seed": seed, "fold": fold}
    replace_file(folder / "run.json", json.dumps(facts, indent=1).encode())
    print(f"{folder / WEIGHTS_FILE}: done; next: kws-models export {name} --weights {folder / WEIGHTS_FILE} ...")


def make_batches(architecture: Architecture, data: Path, fold: int | None, cache: Path, seed: int) -> Batches:
    """The task's training batches."""
    make = KeywordBatches if architecture.task == "keyword" else EventBatches
    return make(architecture, data, fold, cache, seed)


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
    samples = np.stack([first_second(decode(r.path, maker.spec.rate_hz)) for r, _ in cases])
    maps = to_input(maker.patches(samples), architecture.graph.axes)
    classes = torch.tensor([c for _, c in cases])

    def accuracy(module: GraphModule) -> float:
        with torch.no_grad():
            return float((module(maps).argmax(1) == classes).float().mean())

    return accuracy
