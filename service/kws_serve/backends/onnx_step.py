"""Step files (`kws-models export --step`): ONNX that goes on in time, beside the model's whole-patch file."""

from __future__ import annotations

from typing import Any

import numpy as np

from kws_serve.backends.model_bytes import one_line
from kws_serve.backends.patch_model import BATCH_SIZES, PatchModel, as_scores, next_size
from kws_serve.manifest import FileSpec, ModelSpec
from kws_serve.messages import BackendError, Float32Array

_TOLERANCE = 1e-4
STRIDE = "kws_stride"
"""Key of the file's metadata: frames from one column to the next."""


class OnnxStep:
    """See incremental.StepBackend."""

    name = "onnx"

    def __init__(self, spec: ModelSpec, file: FileSpec, session: Any, whole: PatchModel) -> None:
        """Check the file against the manifest and against `whole`. Raises BackendError."""
        self._what = f"backend onnx: model {spec.name}: {file.path.name}"
        self._session: Any = session
        self._whole = whole
        self._output = file.output
        self._n_coeffs, self._n_classes = spec.n_coeffs, len(spec.labels)
        self.stride, self.state_size = self._shape()
        self._check_against(whole, spec)

    def infer(self, patches: Float32Array) -> Float32Array:
        """See Backend."""
        return self._whole.infer(patches)

    def step(self, frames: Float32Array, state: Float32Array) -> tuple[Float32Array, Float32Array]:
        """See StepBackend."""
        n, columns = len(frames), frames.shape[1] // self.stride
        scores = np.empty((n, columns, self._n_classes), np.float32)
        after = np.empty((n, self.state_size), np.float32)
        first = 0
        while first < n:
            size = next_size(n - first, BATCH_SIZES)
            part = slice(first, first + size)
            found, kept = self._run(_padded(frames[part], size), _padded(state[part], size))
            scores[part], after[part] = found[: n - first], kept[: n - first]
            first += size
        return as_scores(scores.reshape(-1, self._n_classes), self._output).reshape(scores.shape), after

    def close(self) -> None:
        """See Backend."""
        self._session = None
        self._whole.close()

    def _run(self, frames: Float32Array, state: Float32Array) -> tuple[Float32Array, Float32Array]:
        if self._session is None:
            raise BackendError(f"{self._what}: found a closed backend, wanted an open one")
        try:
            found, kept = self._session.run(["scores", "next_state"], {"frames": frames, "state": state})
        except Exception as error:
            raise BackendError(f"{self._what}: inference failed: {one_line(error)}") from error
        return found, kept

    def _shape(self) -> tuple[int, int]:
        """(stride, state size) of the file. Raises BackendError."""
        ends = {end.name: end.shape for end in (*self._session.get_inputs(), *self._session.get_outputs())}
        stride = self._session.get_modelmeta().custom_metadata_map.get(STRIDE, "")
        wanted = {"frames": (3, self._n_coeffs), "scores": (3, self._n_classes)}
        for name, (rank, last) in wanted.items():
            found = ends.get(name)
            if found is None or len(found) != rank or found[-1] != last:
                raise BackendError(f"{self._what}: {name}: found {found}, wanted n x columns x {last}")
        state = ends.get("state")
        if state is None or ends.get("next_state") != state or len(state) != 2 or not isinstance(state[1], int):
            raise BackendError(f"{self._what}: state: found {state}, wanted n x its size, as next_state")
        if not (stride.isdigit() and 1 <= int(stride) <= 64):
            raise BackendError(f"{self._what}: metadata {STRIDE}: found {stride[:20]!r}, wanted 1 to 64")
        return int(stride), state[1]

    def _check_against(self, whole: PatchModel, spec: ModelSpec) -> None:
        """The same frames, whole and step by step, give the same scores. Raises BackendError."""
        columns = -(-spec.n_frames // self.stride) + 2
        frames = np.random.default_rng(0).normal(0, 3, (1, columns * self.stride, spec.n_coeffs)).astype(np.float32)
        scores, _ = self.step(frames, np.zeros((1, self.state_size), np.float32))
        for column in range(columns - 2, columns):
            end = (column + 1) * self.stride
            wanted = whole.infer(frames[:, end - spec.n_frames : end])
            worst = float(np.abs(scores[0, column] - wanted[0]).max())
            if not worst <= _TOLERANCE:
                raise BackendError(
                    f"{self._what}: found scores {worst:.2g} away from the whole file's, wanted the same"
                )


def _padded(rows: Float32Array, size: int) -> Float32Array:
    missing = size - len(rows)
    return np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), np.float32)]) if missing else rows
