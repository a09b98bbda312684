"""The training loop: batches in, averaged weights out; resumable, one seed gives one result."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from kws_models.data.batches import Batches
from kws_models.training.batch_workers import batches_in_order
from kws_models.training.pack_batches import PackBatches
from kws_models.training.progress import Progress, TrainingRun
from kws_models.training.recipes import Phase
from kws_models.training.torch_module import GraphModule, as_input, weights_of
from kws_serve.messages import Float32Array, Int64Array, KwsError

CHECKPOINT = "checkpoint.pt"
_SAVE_EVERY = 500  # steps between checkpoints: what an interruption costs, at most
_LEAST_RATE_SHARE = 0.01  # of the learning rate, at the end of a cosine
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h: the options of mallopt
_MMAP_BYTES, _TRIM_BYTES, _TOP_PAD_BYTES = 1 << 30, (1 << 31) - 1, 1 << 26  # above any map; never trim; grow by 64 MB
_TEMPERATURE = 2.0  # of the softened scores that a teacher hands on (Hinton et al., 2015)

Validate = Callable[[GraphModule], float]
Teacher = Callable[[Float32Array], Float32Array]  # patches (n, n_frames, n_coeffs) -> logits (n, n_classes)


def to_input(patches: Float32Array, axes: str) -> Any:
    """Patches (n, n_frames, n_coeffs) -> tensor (n, 1, height, width) as the graph's axes say."""
    tensor = as_input(torch.from_numpy(np.ascontiguousarray(patches)), axes)
    return tensor.contiguous(memory_format=memory_format(axes))


def memory_format(axes: str, device: str = "cpu") -> Any:
    """Channels last is twice as fast on a CPU, but PyTorch 2.13's backward pass crashes on ResNetSE's maps in it."""
    return torch.contiguous_format if axes == "NCFT" or device != "cpu" else torch.channels_last


def keep_memory() -> None:
    """Let glibc keep freed maps for the next step; giving them back costs a page fault a page, up to half a step."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another libc
        libc = ctypes.CDLL(None)
        pairs = (
            (_M_MMAP_THRESHOLD, _MMAP_BYTES),
            (_M_TRIM_THRESHOLD, _TRIM_BYTES),
            (_M_TOP_PAD, _TOP_PAD_BYTES),
        )
        for option, value in pairs:
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
    batches: Batches | PackBatches,
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
    progress = Progress(run, first_step)
    made = (
        batches.batches(state.average, first_step, run.phase.steps)
        if isinstance(batches, PackBatches)
        else _on_device(batches_in_order(batches, first_step, run.phase.steps, run.n_workers), state, teacher)
    )
    for step, (maps, targets, taught) in enumerate(made, start=first_step):
        progress.add(step, *_step(state, step, maps, targets, taught))
        if (step + 1) % _SAVE_EVERY == 0 or step + 1 == run.phase.steps:
            state.save(step + 1)
            progress.write(step + 1, validate(state.average.eval()) if validate else math.nan)
    return weights_of(state.average)


def _on_device(
    made: Iterator[tuple[Float32Array, Int64Array]], state: _State, teacher: Teacher | None
) -> Iterator[tuple[Any, Any, Any]]:
    """Maps and classes of each batch, and what the teacher says of it."""
    axes, device = state.module.graph.axes, state.run.device
    for patches, classes in made:
        taught = torch.from_numpy(teacher(patches)).to(device) if teacher else None
        yield to_input(patches, axes).to(device), torch.from_numpy(classes).to(device), taught


def _step(state: _State, step: int, maps: Any, classes: Any, taught: Any) -> tuple[Any, Any]:
    """One batch: maps (n, 1, height, width), classes (n,), and a teacher's logits (n, n_classes); loss and accuracy.

    Both stay on the device: to fetch them would wait for it.
    """
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
    return loss.detach(), (logits.detach().argmax(1) == classes).float().mean()


def _distances(logits: Any, taught: Any) -> Any:
    """Cross-entropy (n,) of the softened scores, its gradient on the scale of the plain one's."""
    wanted = functional.softmax(taught / _TEMPERATURE, 1)
    return _TEMPERATURE**2 * functional.cross_entropy(logits / _TEMPERATURE, wanted, reduction="none")


def _rate_share(step: int, phase: Phase) -> float:
    if phase.schedule == "constant":
        return 1.0
    warm_up = min(1.0, (step + 1) / phase.warm_up_steps)
    return warm_up * (
        _LEAST_RATE_SHARE + (1.0 - _LEAST_RATE_SHARE) * 0.5 * (1.0 + math.cos(math.pi * step / phase.steps))
    )


def _optimiser(parameters: Any, phase: Phase, device: str) -> Any:
    match phase.optimiser:
        case "adamw":
            decay = phase.weight_decay
            return torch.optim.AdamW(parameters, phase.learning_rate, weight_decay=decay, fused=device != "cpu")
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
        pairs = zip(self.average.state_dict().values(), self.module.state_dict().values(), strict=True)
        self._pairs = [(kept, new) for kept, new in pairs if kept.dtype.is_floating_point]
        self.optimiser = _optimiser(self.module.parameters(), run.phase, run.device)

    def follow(self, step: int) -> None:
        """Move the averaged weights towards the trained ones; faster in the first steps."""
        decay = min(self.run.phase.average_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for kept, new in self._pairs:
                kept.lerp_(new, 1.0 - decay)

    def load(self) -> int:
        """Step to go on with; 0 where there is no checkpoint. Raises KwsError if it is of another run."""
        path = self.run.folder / CHECKPOINT
        if not path.exists():
            return 0
        saved = torch.load(path, weights_only=True, map_location="cpu")
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
    module.to(device).to(memory_format=memory_format(module.graph.axes, device))
    return module


def _identity(run: TrainingRun) -> str:
    return f"{run.phase} seed={run.seed}"
