"""Backends: what turns patches into scores. A new one is three edits:

1. `backends/<name>.py` with `open(spec, *, threads, board) -> Backend`; `model_bytes.read_model` reads its file.
   Most are a `patch_model.PatchModel` around a `Runtime`: one input, one output, a batch size that it is told; layout,
   quantisation, self-test and refusals are then done. One that goes on in time is a `contract.StepBackend`, one on a
   board a `contract.DeviceBackend`: the service asks for these, never for a name.
2. A line in BACKENDS.
3. An extra in pyproject.toml for the library that it wants.

tests/conformance then runs on it; where its scores round otherwise than the strictest, its tolerance stands there.
Modules are imported when first opened, so a service without TFLite never loads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from kws_serve.backends.contract import Backend
from kws_serve.manifest.spec import ModelSpec
from kws_serve.messages import BackendError


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a backend is, and the kinds of files (in `model.json`) that it reads."""

    module: str  # with open(spec, *, threads, board) -> Backend
    file: str
    beside: tuple[str, ...] = ()  # kinds that it reads, too, where a model has them
    device: bool = False  # computes on one that only one process can have


BACKENDS: dict[str, Entry] = {
    "onnx": Entry("kws_serve.backends.onnx", "onnx", ("onnx_step",)),
    "tflite": Entry("kws_serve.backends.tflite", "tflite"),
    "gap8": Entry("kws_serve.backends.gap8", "tflite", device=True),
}
"""By name, as --backend takes it."""


def open_backend(kind: str, spec: ModelSpec, *, threads: int = 1, board: str | None = None) -> Backend:
    """Open `spec`'s file on backend `kind`, self-tested; `board`: which one a backend of boards uses (default auto).

    Raises BackendError in one line: what, found, wanted.
    """
    entry = BACKENDS.get(kind)
    if entry is None:
        raise BackendError(f"backend: found {kind[:80]!r}, wanted one of {', '.join(BACKENDS)}")
    if threads < 1:
        raise BackendError(f"backend {kind}: threads: found {threads}, wanted an integer >= 1")
    check_files(spec)
    backend: Backend = import_module(entry.module).open(spec, threads=threads, board=board or "auto")
    return backend


def check_files(spec: ModelSpec) -> None:
    """Some backend reads each of the model's files. Raises BackendError naming the one that none does."""
    main = {entry.file for entry in BACKENDS.values()}
    beside = {kind: entry.file for entry in BACKENDS.values() for kind in entry.beside}
    for kind in spec.files:
        if kind in beside and beside[kind] not in spec.files:
            raise BackendError(
                f"model {spec.name}: files.{kind}: found no {beside[kind]} beside it, wanted the whole-patch file, too"
            )
        if kind not in main and kind not in beside:
            wanted = ", ".join(sorted(main | set(beside)))
            raise BackendError(f"model {spec.name}: files.{kind}: found a kind that no backend reads, wanted {wanted}")
