"""What the engine knows of a backend: patches in, scores out, and what some backends can do beyond that.

A backend says itself what it can do: the engine and the commands ask for a `StepBackend`, never for a name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from kws_serve.manifest.spec import FileSpec, ModelSpec
from kws_serve.messages import Float32Array, Int64Array


class Backend(Protocol):
    """One model, one owner thread at a time, no memory of streams (that is the Scorer's)."""

    name: str
    file: FileSpec  # what computes: the file whose digest stands in each detection

    def infer(self, patches: Float32Array) -> Float32Array:
        """Scores (n, n_classes) in [0, 1] of n >= 0 patches (n, n_frames, n_coeffs). Raises BackendError."""

    def close(self) -> None:
        """Free the session or the port. Safe to call twice."""


@runtime_checkable
class StepBackend(Backend, Protocol):
    """A Backend that also goes on in time."""

    state_shapes: list[tuple[int, ...]]  # what each layer keeps of a stream

    def step(self, frames: Float32Array, states: list[Float32Array], slots: Int64Array) -> Float32Array:
        """Frames (k, m, n_coeffs) of the streams `slots` (k,), whose states (n_streams, *shape) move on, zeros before a
        stream begins: scores (k, m, n_classes) of the patches that end with each frame.

        Raises BackendError; then any of these states may have moved or not.
        """


def new_states(shapes: list[tuple[int, ...]], n_streams: int) -> list[Float32Array]:
    """What layers keep of streams that have not begun: an array (n_streams, *shape) for each of `shapes`."""
    return [np.zeros((n_streams, *shape), np.float32) for shape in shapes]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model opened on a backend."""

    spec: ModelSpec
    backend: Backend
    backend_name: str  # of the table, as asked for

    @property
    def digest(self) -> str:
        """The first 16 hex digits of the SHA-256 of the file that computes."""
        return self.backend.file.sha256[:16]
