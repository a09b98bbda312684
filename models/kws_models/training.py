"""The training loop: batches in, averaged weights out; resumable, one seed gives one result."""

from __future__ import annotations

import csv
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from kws_models.batch_workers import Batches, batches_in_order
from kws_models.graph import Graph
from kws_models.recipes import Recipe
from kws_models.torch_module import GraphModule, weights_of
from kws_serve.messages import Float32Array, KwsError

CHECKPOINT = "checkpoint.pt"
HISTORY = "history.csv"
_SAVE_EVERY = 500
_SHOW_EVERY = 50


@dataclass(frozen=True)
class TrainingRun:
    """Where a run keeps its state and how it goes."""

    folder: Path
    recipe: Recipe
    seed: int
    n_workers: int = 1
    n_threads: int = 1


def to_input(patches: Float32Array, axes: str) -> Any:
    """Patches (n, n_frames, n_coeffs) -> tensor (n, 1, height, width) as the graph's axes say."""
    tensor = torch.from_numpy(np.ascontiguousarray(patches))
    tensor = (tensor.transpose(1, 2) if axes == "NCFT" else tensor)[:, None]
    return tensor.contiguous(memory_format=memory_format(axes))


def memory_format(axes: str) -> Any:
    """Channels last is twice as fast on a CPU, but PyTorch 2.13's backward pass crashes on ResNetSE's maps in it."""
    return torch.contiguous_format if axes == "NCFT" else torch.channels_last


def train(
    graph: Graph, batches: Batches, run: TrainingRun, validate: Callable[[GraphModule], float] | None = None
) -> dict[str, Float32Array]:
    """Train, or go on from the run's checkpoint; the averaged weights. Raises KwsError where the disk is full."""
    torch.set_num_threads(run.n_threads)
    torch.manual_seed(run.seed)
    torch.use_deterministic_algorithms(True)
    run.folder.mkdir(parents=True, exist_ok=True)
    module = GraphModule(graph, run.recipe.dropout).to(memory_format=memory_format(graph.axes))
    average = GraphModule(graph).to(memory_format=memory_format(graph.axes))
    average.load_state_dict(module.state_dict())
    optimiser = torch.optim.AdamW(module.parameters(), run.recipe.learning_rate, weight_decay=run.recipe.weight_decay)
    state = _State(run, module, average, optimiser)
    first_step = state.load()
    progress = _Progress(run, first_step)
    steps = batches_in_order(batches, first_step, run.recipe.steps, run.n_workers)
    for step, (patches, classes) in enumerate(steps, start=first_step):
        loss, accuracy = _step(state, step, to_input(patches, graph.axes), torch.from_numpy(classes))
        progress.add(step, loss, accuracy)
        if (step + 1) % _SAVE_EVERY == 0 or step + 1 == run.recipe.steps:
            state.save(step + 1)
            progress.write(step + 1, validate(average.eval()) if validate else math.nan)
    return weights_of(average)


def _step(state: _State, step: int, patches: Any, classes: Any) -> tuple[float, float]:
    recipe = state.run.recipe
    for group in state.optimiser.param_groups:
        group["lr"] = recipe.learning_rate * _rate_share(step, recipe)
    state.module.train()
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
        logits = state.module(patches).float()
    loss = functional.cross_entropy(logits, classes, label_smoothing=recipe.label_smoothing)
    state.optimiser.zero_grad()
    loss.backward()
    state.optimiser.step()
    state.follow(step)
    return loss.item(), float((logits.argmax(1) == classes).float().mean())


def _rate_share(step: int, recipe: Recipe) -> float:
    warm_up = min(1.0, (step + 1) / recipe.warm_up_steps)
    return warm_up * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * step / recipe.steps)))


class _State:
    """Everything a resumed run needs, in one file that is replaced as a whole."""

    def __init__(self, run: TrainingRun, module: GraphModule, average: GraphModule, optimiser: Any) -> None:
        self.run, self.module, self.average, self.optimiser = run, module, average, optimiser

    def follow(self, step: int) -> None:
        """Move the averaged weights towards the trained ones; faster in the first steps."""
        decay = min(self.run.recipe.average_decay, (1 + step) / (10 + step))
        pairs = zip(self.average.state_dict().values(), self.module.state_dict().values(), strict=True)
        with torch.no_grad():
            for kept, new in pairs:
                if kept.dtype.is_floating_point:
                    kept.lerp_(new, 1.0 - decay)

    def load(self) -> int:
        """Step to go on with; 0 where there is no checkpoint. Raises KwsError if it is of another run."""
        path = self.run.folder / CHECKPOINT
        if not path.exists():
            return 0
        saved = torch.load(path, weights_only=True)
        wanted = _identity(self.run)
        if saved["run"] != wanted:
            raise KwsError(f"{path}: found a run with {saved['run']}, wanted {wanted}; choose another --out")
        self.module.load_state_dict(saved["module"])
        self.average.load_state_dict(saved["average"])
        self.optimiser.load_state_dict(saved["optimiser"])
        torch.set_rng_state(saved["random"])
        return int(saved["step"])

    def save(self, step: int) -> None:
        """Write beside the old checkpoint, then replace it: never half-written."""
        path = self.run.folder / CHECKPOINT
        part = path.with_suffix(f".part{os.getpid()}")
        state = {
            "run": _identity(self.run),
            "step": step,
            "module": self.module.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "random": torch.get_rng_state(),
        }
        try:
            torch.save(state, part)
            part.replace(path)
        except (OSError, RuntimeError) as error:
            part.unlink(missing_ok=True)
            raise KwsError(f"{path}: {error}; the checkpoint before it is whole") from error


def _identity(run: TrainingRun) -> str:
    return f"{run.recipe} seed={run.seed}"


class _Progress:
    """A live line, and a row of history.csv at each checkpoint."""

    def __init__(self, run: TrainingRun, first_step: int) -> None:
        self._run, self._first_step, self._began_s = run, first_step, time.monotonic()
        self._recent: list[tuple[float, float]] = []

    def add(self, step: int, loss: float, accuracy: float) -> None:
        self._recent = [*self._recent[-199:], (loss, accuracy)]
        if (step + 1) % _SHOW_EVERY == 0:
            mean_loss, mean_accuracy = np.mean(self._recent, axis=0)
            step_ms = 1000 * (time.monotonic() - self._began_s) / (step + 1 - self._first_step)
            end = "\r" if sys.stdout.isatty() else "\n"
            print(
                f"step {step + 1}/{self._run.recipe.steps}  loss {mean_loss:.3f}  accuracy {mean_accuracy:.3f}  "
                f"{step_ms:.0f} ms/step",
                end=end,
                flush=True,
            )

    def write(self, step: int, validation_accuracy: float) -> None:
        loss, accuracy = np.mean(self._recent, axis=0)
        path = self._run.folder / HISTORY
        new = not path.exists()
        with path.open("a", newline="") as out:
            rows = csv.writer(out)
            if new:
                rows.writerow(["step", "loss", "accuracy", "validation_accuracy"])
            rows.writerow([step, f"{loss:.4f}", f"{accuracy:.4f}", f"{validation_accuracy:.4f}"])
        if not math.isnan(validation_accuracy):
            print(f"step {step}: accuracy on the held-out fold {validation_accuracy:.4f}", flush=True)
