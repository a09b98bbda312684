"""The training loop: batches in, averaged weights out; resumable, one seed gives one result."""

from __future__ import annotations

import contextlib
import csv
import ctypes
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

from kws_models.data.batches import Batches
from kws_models.training.batch_workers import batches_in_order
from kws_models.training.recipes import Phase
from kws_models.training.torch_module import GraphModule, weights_of
from kws_serve.messages import Float32Array, KwsError

CHECKPOINT = "checkpoint.pt"
HISTORY = "history.csv"
_SAVE_EVERY = 500
_SHOW_EVERY = 50
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h
_TEMPERATURE = 2.0  # of the softened scores that a teacher hands on (Hinton et al., 2015)

Validate = Callable[[GraphModule], float]
Teacher = Callable[[Float32Array], Float32Array]  # patches (n, n_frames, n_coeffs) -> logits (n, n_classes)


@dataclass(frozen=True)
class TrainingRun:
    """Where a phase keeps its state and how it goes."""

    folder: Path
    phase: Phase
    seed: int
    n_workers: int = 1
    n_threads: int = 1
    device: str = "cpu"


def to_input(patches: Float32Array, axes: str) -> Any:
    """Patches (n, n_frames, n_coeffs) -> tensor (n, 1, height, width) as the graph's axes say."""
    tensor = torch.from_numpy(np.ascontiguousarray(patches))
    tensor = (tensor.transpose(1, 2) if axes == "NCFT" else tensor)[:, None]
    return tensor.contiguous(memory_format=memory_format(axes))


def memory_format(axes: str) -> Any:
    """Channels last is twice as fast on a CPU, but PyTorch 2.13's backward pass crashes on ResNetSE's maps in it."""
    return torch.contiguous_format if axes == "NCFT" else torch.channels_last


def keep_memory() -> None:
    """Let glibc keep freed maps for the next step; giving them back costs a page fault a page, up to half a step."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another libc
        libc = ctypes.CDLL(None)
        for option, value in ((_M_MMAP_THRESHOLD, 1 << 30), (_M_TRIM_THRESHOLD, (1 << 31) - 1), (_M_TOP_PAD, 1 << 26)):
            libc.mallopt(option, value)


def find_device(name: str) -> str:
    """`auto`: a GPU where there is one. Raises KwsError where a GPU is asked for and there is none."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise KwsError(f"--device: found no GPU that this PyTorch ({torch.__version__}) can use, wanted {name}")
    return name


def train(
    make: Callable[[float], GraphModule],
    batches: Batches,
    run: TrainingRun,
    validate: Validate | None = None,
    teacher: Teacher | None = None,
) -> dict[str, Float32Array]:
    """Train what `make(dropout)` builds, or go on from the run's checkpoint; the averaged weights.

    Raises KwsError where the disk is full.
    """
    torch.set_num_threads(run.n_threads)
    keep_memory()
    torch.manual_seed(run.seed)
    torch.use_deterministic_algorithms(run.device == "cpu")
    run.folder.mkdir(parents=True, exist_ok=True)
    state = _State(run, make)
    first_step = state.load()
    progress = _Progress(run, first_step)
    axes = state.module.graph.axes
    for step, (patches, classes) in enumerate(
        batches_in_order(batches, first_step, run.phase.steps, run.n_workers), start=first_step
    ):
        maps, targets = to_input(patches, axes).to(run.device), torch.from_numpy(classes).to(run.device)
        taught = torch.from_numpy(teacher(patches)).to(run.device) if teacher else None
        progress.add(step, *_step(state, step, maps, targets, taught))
        if (step + 1) % _SAVE_EVERY == 0 or step + 1 == run.phase.steps:
            state.save(step + 1)
            progress.write(step + 1, validate(state.average.eval()) if validate else math.nan)
    return weights_of(state.average)


def _step(state: _State, step: int, maps: Any, classes: Any, taught: Any) -> tuple[float, float]:
    phase = state.run.phase
    for group in state.optimiser.param_groups:
        group["lr"] = phase.learning_rate * _rate_share(step, phase)
    state.module.train(not phase.integer)  # norms are absorbed: nothing left that differs but dropout
    with torch.autocast(torch.device(state.run.device).type, torch.bfloat16, enabled=phase.bfloat16):
        logits = state.module(maps).float()
    losses = functional.cross_entropy(logits, classes, label_smoothing=phase.label_smoothing, reduction="none")
    if taught is not None:  # followed where it is right
        share = phase.teacher_share * (taught.argmax(1) == classes)
        losses = (1.0 - share) * losses + share * _distances(logits, taught)
    loss = losses.mean()
    state.optimiser.zero_grad()
    loss.backward()
    state.optimiser.step()
    state.follow(step)
    return loss.item(), float((logits.argmax(1) == classes).float().mean())


def _distances(logits: Any, taught: Any) -> Any:
    """Cross-entropy (n,) of the softened scores, its gradient on the scale of the plain one's."""
    wanted = functional.softmax(taught / _TEMPERATURE, 1)
    return _TEMPERATURE**2 * functional.cross_entropy(logits / _TEMPERATURE, wanted, reduction="none")


def _rate_share(step: int, phase: Phase) -> float:
    if phase.schedule == "constant":
        return 1.0
    warm_up = min(1.0, (step + 1) / phase.warm_up_steps)
    return warm_up * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * step / phase.steps)))


def _optimiser(parameters: Any, phase: Phase) -> Any:
    match phase.optimiser:
        case "adamw":
            return torch.optim.AdamW(parameters, phase.learning_rate, weight_decay=phase.weight_decay)
        case "adam":
            return torch.optim.Adam(parameters, phase.learning_rate, weight_decay=phase.weight_decay)
        case "sgd":
            return torch.optim.SGD(parameters, phase.learning_rate, weight_decay=phase.weight_decay)
        case "rmsprop":  # TensorFlow's decay and momentum of the time
            return torch.optim.RMSprop(parameters, phase.learning_rate, alpha=0.9, momentum=0.9, eps=1e-3)


class _State:
    """Everything a resumed phase needs, in one file that is replaced as a whole."""

    def __init__(self, run: TrainingRun, make: Callable[[float], GraphModule]) -> None:
        self.run = run
        self.module, self.average = (_placed(make(dropout), run.device) for dropout in (run.phase.dropout, 0.0))
        self.average.load_state_dict(self.module.state_dict())
        self.optimiser = _optimiser(self.module.parameters(), run.phase)

    def follow(self, step: int) -> None:
        """Move the averaged weights towards the trained ones; faster in the first steps."""
        decay = min(self.run.phase.average_decay, (1 + step) / (10 + step))
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


def _placed(module: GraphModule, device: str) -> GraphModule:
    module.to(device).to(memory_format=memory_format(module.graph.axes))
    return module


def _identity(run: TrainingRun) -> str:
    return f"{run.phase} seed={run.seed}"


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
            left_min = (self._run.phase.steps - step - 1) * step_ms / 60_000
            done = 20 * (step + 1) // self._run.phase.steps
            print(
                f"[{'=' * done}{' ' * (20 - done)}] step {step + 1}/{self._run.phase.steps}  loss {mean_loss:.3f}  "
                f"accuracy {mean_accuracy:.3f}  {step_ms:.0f} ms/step  {left_min:.0f} min left",
                end="\r" if sys.stdout.isatty() else "\n",
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
