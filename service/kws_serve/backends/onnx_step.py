"""Step files (`kws-models export --step`): ONNX that goes on in time, beside the model's whole-patch file."""

from __future__ import annotations

from typing import Any

import numpy as np

from kws_serve.backends.model_bytes import one_line
from kws_serve.backends.patch_model import BATCH_SIZES, PatchModel, as_scores, next_size
from kws_serve.manifest import FileSpec, ModelSpec
from kws_serve.messages import BackendError, Float32Array, Int64Array

_TOLERANCE = 1e-4


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
        self.state_size = self._state_size()
        self._batches = {size: np.zeros((size, self.state_size), np.float32) for size in BATCH_SIZES}
        self._check_against(whole, spec)

    def infer(self, patches: Float32Array) -> Float32Array:
        """See Backend."""
        return self._whole.infer(patches)

    def step(self, frames: Float32Array, states: Float32Array, slots: Int64Array) -> Float32Array:
        """See StepBackend."""
        n, m, _ = frames.shape
        scores = np.empty((n, m, self._n_classes), np.float32)
        first = 0
        while first < n:
            size = next_size(n - first, BATCH_SIZES)
            mine = slots[first : first + size]
            k = len(mine)
            batch, state = frames[first : first + k], self._batches[size]
            if k < size:
                batch = np.concatenate([batch, np.zeros((size - k, m, self._n_coeffs), np.float32)])
            np.take(states, mine, axis=0, out=state[:k], mode="clip")  # "raise" would copy
            found, kept = self._run(batch, state)
            scores[first : first + k] = found[:k]
            states[mine] = kept[:k]
            first += size
        return as_scores(scores.reshape(-1, self._n_classes), self._output).reshape(scores.shape)

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

    def _state_size(self) -> int:
        """Of the file, whose ends are what they have to be. Raises BackendError."""
        ends = {end.name: end.shape for end in (*self._session.get_inputs(), *self._session.get_outputs())}
        for name, last in (("frames", self._n_coeffs), ("scores", self._n_classes)):
            found = ends.get(name)
            if found is None or len(found) != 3 or found[-1] != last:
                raise BackendError(f"{self._what}: {name}: found {found}, wanted n x m x {last}")
        state = ends.get("state")
        if state is None or ends.get("next_state") != state or len(state) != 2 or not isinstance(state[1], int):
            raise BackendError(f"{self._what}: state: found {state}, wanted n x its size, as next_state")
        return state[1]

    def _check_against(self, whole: PatchModel, spec: ModelSpec) -> None:
        """The same frames, whole and step by step, give the same scores. Raises BackendError."""
        m = spec.n_frames + 2
        frames = np.random.default_rng(0).normal(0, 3, (1, m, spec.n_coeffs)).astype(np.float32)
        scores = self.step(frames, np.zeros((1, self.state_size), np.float32), np.zeros(1, np.int64))
        for end in range(spec.n_frames, m + 1):
            wanted = whole.infer(frames[:, end - spec.n_frames : end])
            worst = float(np.abs(scores[0, end - 1] - wanted[0]).max())
            if not worst <= _TOLERANCE:
                raise BackendError(
                    f"{self._what}: found scores {worst:.2g} away from the whole file's, wanted the same"
                )
