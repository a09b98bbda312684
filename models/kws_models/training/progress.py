"""How a phase goes and where it keeps its state: a live line, and a row of history.csv at each checkpoint."""

from __future__ import annotations

import csv
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kws_models.training.recipes import Phase

HISTORY = "history.csv"
_SHOW_EVERY = 50  # steps between two lines of progress: some seconds
_SHOWN_STEPS = 200  # that loss and accuracy in them are means over
_BAR = 20  # characters that stand for all steps


@dataclass(frozen=True)
class TrainingRun:
    """Where a phase keeps its state and how it goes."""

    folder: Path
    phase: Phase
    seed: int
    n_workers: int = 1
    n_threads: int = 1
    device: str = "cpu"


class Progress:
    """Of one phase, since `first_step`."""

    def __init__(self, run: TrainingRun, first_step: int) -> None:
        self._run, self._first_step, self._began_s = run, first_step, time.monotonic()
        self._recent: list[tuple[float, float]] = []
        self._new: list[tuple[Any, Any]] = []  # not fetched yet from a device, which would wait for it

    def add(self, step: int, loss: Any, accuracy: Any) -> None:
        """A step is done; both are numbers, or tensors of one."""
        self._new.append((loss, accuracy))
        if (step + 1) % _SHOW_EVERY == 0:
            mean_loss, mean_accuracy = self._means()
            step_ms = 1000 * (time.monotonic() - self._began_s) / (step + 1 - self._first_step)
            left_min = (self._run.phase.steps - step - 1) * step_ms / 60_000
            done = _BAR * (step + 1) // self._run.phase.steps
            print(
                f"[{'=' * done}{' ' * (_BAR - done)}] step {step + 1}/{self._run.phase.steps}  loss {mean_loss:.3f}  "
                f"accuracy {mean_accuracy:.3f}  {step_ms:.0f} ms/step  {left_min:.0f} min left",
                end="\r" if sys.stdout.isatty() else "\n",
                flush=True,
            )

    def _means(self) -> tuple[float, float]:
        fetched = [(float(loss), float(accuracy)) for loss, accuracy in self._new]
        self._recent, self._new = [*self._recent, *fetched][-_SHOWN_STEPS:], []
        mean_loss, mean_accuracy = np.mean(self._recent, axis=0)
        return float(mean_loss), float(mean_accuracy)

    def write(self, step: int, validation_accuracy: float) -> None:
        """A checkpoint is written; NaN where nothing is held out."""
        loss, accuracy = self._means()
        path = self._run.folder / HISTORY
        new = not path.exists()
        with path.open("a", newline="") as out:
            rows = csv.writer(out)
            if new:
                rows.writerow(["step", "loss", "accuracy", "validation_accuracy"])
            rows.writerow([step, f"{loss:.4f}", f"{accuracy:.4f}", f"{validation_accuracy:.4f}"])
        if not math.isnan(validation_accuracy):
            print(f"step {step}: accuracy on the held-out fold {validation_accuracy:.4f}", flush=True)
