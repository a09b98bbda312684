"""What the engine knows of a backend: patches in, scores out, and what some backends can do beyond that.

A backend says itself what it can do: the engine and the commands ask for `StepBackend` or `DeviceBackend`, never for a
name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from kws_serve.manifest.spec import FileSpec, ModelSpec
from kws_serve.messages import Float32Array, Int64Array, JsonObject


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


class Device(Protocol):
    """Something beside this machine's cores (a board) that computes for several models in turn. Hops are in ms."""

    def share_out(self) -> dict[str, float]:
        """The patch hop at which it keeps up with live audio, per open model. Raises BackendError: there is none."""

    def take_over(self, spec: ModelSpec) -> float:
        """The patch hop at which a model opened again takes the place of the one before it. Raises BackendError."""

    def warn_if_slow(self) -> None:
        """Say so where it falls behind at the models' own patch hops."""

    def notice(self) -> str:
        """What the user should know of the hops it was given; empty: nothing."""

    def share_of(self, model: str) -> float:
        """Of its time that one stream of the model takes, where that bounds the number of streams; else 0."""

    def states(self) -> list[JsonObject]:
        """Each one that is open, for the status. Any thread."""


@runtime_checkable
class DeviceBackend(Backend, Protocol):
    """A Backend that computes on a device, whose time its models share."""

    device: Device


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


def devices(models: Iterable[LoadedModel]) -> list[Device]:
    """What computes for these models beside this machine's cores, each once."""
    found: list[Device] = []
    for model in models:
        if isinstance(model.backend, DeviceBackend) and model.backend.device not in found:
            found.append(model.backend.device)
    return found
