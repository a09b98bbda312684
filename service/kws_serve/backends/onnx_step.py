"""Step files (`kws-models export --step`): ONNX that goes on in time, beside the model's whole-patch file."""

from __future__ import annotations

from typing import Any

import numpy as np

from kws_serve.backends.contract import new_states
from kws_serve.backends.model_bytes import one_line
from kws_serve.backends.patch_model import PatchModel, as_scores, next_size
from kws_serve.manifest.spec import FileSpec, ModelSpec
from kws_serve.messages import BackendError, Float32Array, Int64Array

_TOLERANCE = 1e-4
_BATCH_SIZES = (1, 4, 16)  # more at once is no faster, and keeps more memory
PAST, NEXT = "_past", "_next"
"""Endings of the inputs that a call gives and of the outputs that it leaves for the next one."""


class OnnxStep:
    """A streaming model that computes only what new frames add; whole patches go through another file."""

    name = "onnx"

    def __init__(self, spec: ModelSpec, file: FileSpec, session: Any, whole: PatchModel) -> None:
        """Check the file against the manifest and against `whole`. Raises BackendError."""
        self._what = f"backend onnx: model {spec.name}: {file.path.name}"
        self._session: Any = session
        self._whole = whole
        self.file = whole.file
        self._output = file.output
        self._n_coeffs, self._n_classes = spec.n_coeffs, len(spec.labels)
        self._layers, self.state_shapes = self._state()
        self._outputs = ["scores", *(layer + NEXT for layer in self._layers)]
        self._batches = {size: new_states(self.state_shapes, size) for size in _BATCH_SIZES}
        self._check_against(whole, spec)

    def infer(self, patches: Float32Array) -> Float32Array:
        """Scores (n, n_classes) of whole patches (n, n_frames, n_coeffs)."""
        return self._whole.infer(patches)

    def step(self, frames: Float32Array, states: list[Float32Array], slots: Int64Array) -> Float32Array:
        """Scores (n, m, n_classes) of m new frames of each stream; the states of `slots` move on in place."""
        n, m, _ = frames.shape
        scores = np.empty((n, m, self._n_classes), np.float32)
        first = 0
        while first < n:
            size = next_size(n - first, _BATCH_SIZES)
            mine = slots[first : first + size]
            k = len(mine)
            batch, pasts = frames[first : first + k], self._batches[size]
            if k < size:
                batch = np.concatenate([batch, np.zeros((size - k, m, self._n_coeffs), np.float32)])
            for state, past in zip(states, pasts, strict=True):
                np.take(state, mine, axis=0, out=past[:k], mode="clip")  # "raise" would copy
            found, *nexts = self._run(batch, pasts)
            scores[first : first + k] = found[:k]
            for state, kept in zip(states, nexts, strict=True):
                state[mine] = kept[:k]
            first += size
        return as_scores(scores.reshape(-1, self._n_classes), self._output).reshape(scores.shape)

    def close(self) -> None:
        """Close both sessions."""
        self._session = None
        self._whole.close()

    def _run(self, frames: Float32Array, pasts: list[Float32Array]) -> list[Float32Array]:
        """Scores and what the layers keep."""
        if self._session is None:
            raise BackendError(f"{self._what}: found a closed backend, wanted an open one")
        fed = {layer + PAST: past for layer, past in zip(self._layers, pasts, strict=True)}
        try:
            found: list[Float32Array] = self._session.run(self._outputs, {"frames": frames, **fed})
        except Exception as error:
            raise BackendError(f"{self._what}: inference failed: {one_line(error)}") from error
        return found

    def _state(self) -> tuple[list[str], list[tuple[int, ...]]]:
        """The layers that look back, and the shape of what each keeps of a stream. Raises BackendError."""
        inputs = {end.name: end.shape for end in self._session.get_inputs()}
        outputs = {end.name: end.shape for end in self._session.get_outputs()}
        for ends, name, last in ((inputs, "frames", self._n_coeffs), (outputs, "scores", self._n_classes)):
            found = ends.get(name)
            if found is None or len(found) != 3 or found[-1] != last:
                raise BackendError(f"{self._what}: {name}: found {found}, wanted n x m x {last}")
        layers = [name.removesuffix(PAST) for name in inputs if name != "frames"]
        for layer in layers:
            past, kept = inputs.get(layer + PAST), outputs.get(layer + NEXT)
            if past is None or past != kept or not all(isinstance(d, int) and d > 0 for d in past[1:]):
                found = f"input {past} and output {kept}"
                raise BackendError(f"{self._what}: {layer}: found {found}, wanted {PAST} and {NEXT} of one shape")
        return layers, [tuple(inputs[layer + PAST][1:]) for layer in layers]

    def _check_against(self, whole: PatchModel, spec: ModelSpec) -> None:
        """The same frames, whole and step by step, give the same scores. Raises BackendError."""
        m = spec.n_frames + 2
        frames = 4.0 * np.sin(np.arange(m * spec.n_coeffs, dtype=np.float32) ** 1.5).reshape(1, m, spec.n_coeffs)
        scores = self.step(frames, new_states(self.state_shapes, 1), np.zeros(1, np.int64))
        for end in range(spec.n_frames, m + 1):
            wanted = whole.infer(frames[:, end - spec.n_frames : end])
            worst = float(np.abs(scores[0, end - 1] - wanted[0]).max())
            if not worst <= _TOLERANCE:
                raise BackendError(
                    f"{self._what}: found scores {worst:.2g} away from the whole file's, wanted the same"
                )
