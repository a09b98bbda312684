"""What every runtime shares: layout of the patch, quantisation, fixed batch sizes, scores, the self-test.

A Runtime runs one tensor in, one tensor out, at a batch size it is told; PatchModel makes a Backend of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from kws_serve.backends.declared_output import output_fault
from kws_serve.backends.model_bytes import one_line
from kws_serve.backends.self_test import difference, trial_patches
from kws_serve.manifest.spec import Axes, FileSpec, ModelSpec, Output
from kws_serve.messages import BackendError, Float32Array

Tensor: TypeAlias = npt.NDArray[Any]

BATCH_SIZES = (1, 4, 16, 32)
"""No other batch size reaches a runtime."""

MAX_BATCH_VALUES = 1 << 16
"""Input values of one batch at most. A ResNetSE patch (24 x 192) costs twice as much in a batch of 16 as in one of
4, whose feature maps fit the cache, and 15 MiB more; DS-CNN patches (49 x 10) cost the same in both."""

MAX_COMPANY = 0.1
"""How far a score may move by the patches beside its own: a batch on another axis moves some by all there is."""

INPUT_TYPES = tuple(np.dtype(t) for t in (np.float32, np.int8, np.uint8, np.int16))


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A runtime's input or output, as the file tells. real = (q - zero_point) * scale; scale 0: real values."""

    shape: tuple[int | None, ...]  # batch first; None: any
    dtype: np.dtype[Any]
    scale: float = 0.0
    zero_point: int = 0


class Runtime(Protocol):
    """A loaded file: stateless, one input, one output."""

    input: TensorInfo
    output: TensorInfo

    def run(self, batch: Tensor) -> Tensor:
        """The output for one batch (size, ...) of the input's type. Raises whatever the library raises."""

    def close(self) -> None:
        """Free it."""


class PatchModel:
    """A Backend over a Runtime."""

    def __init__(self, name: str, spec: ModelSpec, file: FileSpec, runtime: Runtime) -> None:
        """Check the file against the manifest and self-test it. Raises BackendError."""
        self.name = name
        self._what = f"backend {name}: model {spec.name}"
        self.file = file
        self._spec = spec
        self._runtime: Runtime | None = runtime
        self._axes, self._kind = file.axes, file.output
        self._patch_shape = (spec.n_frames, spec.n_coeffs)
        self._n_classes = len(spec.labels)
        self._check_shapes(runtime)
        self._sizes = batch_sizes(runtime.input.shape[0], spec.n_frames * spec.n_coeffs)
        self._self_test()

    def infer(self, patches: Float32Array) -> Float32Array:
        """See Backend. A score that is not a number (from features that are not) is 0."""
        if patches.ndim != 3 or patches.shape[1:] != self._patch_shape:
            wanted = "n x {} x {}".format(*self._patch_shape)
            raise BackendError(f"{self._what}: patches: found {patches.shape}, wanted {wanted}")
        return self._scores(patches, self._runtime)

    def close(self) -> None:
        """Close the runtime; twice does no harm."""
        if self._runtime is not None:
            self._runtime.close()
            self._runtime = None

    def compare(self, reference: Runtime, named: str) -> None:
        """Refuse scores that are not those of `reference`, the same file in another way. Raises BackendError.

        `named`: what the reference is, for the refusal.
        """
        patches = trial_patches(self._spec)
        found, most = difference(self.infer, lambda patches: self._scores(patches, reference), patches)
        if not found <= most:
            raise BackendError(
                f"{self._what}: {self.file.path.name}: self-test: found scores {found:.2g} away from {named}, wanted "
                f"at most {most:.2g}: integer kernels are wrong on this processor; use a float file or another "
                "--backend"
            )

    def _scores(self, patches: Float32Array, runtime: Runtime | None) -> Float32Array:
        out = np.empty((len(patches), self._n_classes), np.float32)
        first = 0
        while first < len(patches):
            size = next_size(len(patches) - first, self._sizes)
            part = patches[first : first + size]
            out[first : first + size] = as_scores(self._run(part, size, runtime), self._kind)[: len(part)]
            first += size
        return out

    def _run(self, patches: Float32Array, size: int, runtime: Runtime | None) -> Float32Array:
        """Real outputs (size, n_classes) of at most `size` patches, padded with zeros."""
        if runtime is None:
            raise BackendError(f"{self._what}: found a closed backend, wanted an open one")
        if len(patches) < size:
            patches = np.concatenate([patches, np.zeros((size - len(patches), *self._patch_shape), np.float32)])
        try:
            raw = runtime.run(quantise(to_axes(patches, self._axes), runtime.input))
        except Exception as error:
            raise BackendError(f"{self._what}: inference failed: {one_line(error)}") from error
        if raw.size != size * self._n_classes:
            found = f"output {tuple(raw.shape)} for {size} patches"
            raise BackendError(f"{self._what}: found {found}, wanted {size} x {self._n_classes} (labels)")
        return dequantise(raw.reshape(size, self._n_classes), runtime.output)

    def _check_shapes(self, runtime: Runtime) -> None:
        """The file's input is one patch in the manifest's axes; its output one score a label."""
        wanted = to_axes(np.empty((1, *self._patch_shape), np.float32), self._axes).shape[1:]
        found = runtime.input.shape
        if len(found) != len(wanted) + 1 or any(f not in (None, w) for f, w in zip(found[1:], wanted, strict=True)):
            raise BackendError(
                f"{self._what}: input: found {shown(found)}, wanted {shown((None, *wanted))} ({self._axes})"
            )
        for what, tensor in (("input", runtime.input), ("output", runtime.output)):
            if tensor.dtype not in INPUT_TYPES:
                known = ", ".join(str(t) for t in INPUT_TYPES)
                raise BackendError(f"{self._what}: {what} type: found {tensor.dtype}, wanted one of {known}")
            if tensor.dtype != np.float32 and not (tensor.scale > 0 and np.isfinite(tensor.scale)):
                raise BackendError(f"{self._what}: {what} scale: found {tensor.scale}, wanted a number > 0 in the file")
        classes = [d for d in runtime.output.shape[1:] if d != 1]
        if classes and classes[-1] is not None and classes != [self._n_classes]:
            found_out = shown(runtime.output.shape)
            raise BackendError(f"{self._what}: output: found {found_out}, wanted N x {self._n_classes} (labels)")

    def _self_test(self) -> None:
        """Patches of several kinds through the model: the right shape, finite values, each patch's own, that are what
        the manifest declares; a file that cannot batch runs singly.
        """
        patches = np.concatenate([np.zeros((1, *self._patch_shape), np.float32), trial_patches(self._spec)])
        size = self._sizes[0]
        real = np.concatenate([self._run(patches[i : i + 1], size, self._runtime)[:1] for i in range(len(patches))])
        if not np.isfinite(real).all():
            raise BackendError(f"{self._what}: self-test: found scores that are not finite, wanted finite ones")
        output = self._runtime.output if self._runtime else None
        step = output.scale if output is not None and output.dtype != np.float32 else 0.0
        if fault := output_fault(real, self._kind, step):
            raise BackendError(f"{self._what}: {self.file.path.name}: output {self._kind}: self-test: found {fault}")
        if len(self._sizes) > 1:
            try:
                batchable = self._batches(patches[1:], real[1:], self._sizes[1])
            except BackendError:  # some exporters write batch 1 into a reshape and call the axis free
                batchable = False
            self._sizes = self._sizes if batchable else self._sizes[:1]
        elif size > 1 and not self._batches(patches[1:], real[1:], size):
            raise BackendError(
                f"{self._what}: {self.file.path.name}: self-test: found scores of a patch that depend on the patches "
                "beside it, wanted the batch on the first axis of input and output"
            )

    def _batches(self, patches: Float32Array, real: Float32Array, size: int) -> bool:
        """Whether patches that differ give side by side what each gives alone, but for what scales that are found anew
        for each batch (DynamicQuantizeLinear) change.
        """
        n = min(size, len(patches))
        beside = as_scores(self._run(patches[:n], size, self._runtime)[:n], self._kind)
        return bool(np.abs(beside - as_scores(real[:n], self._kind)).max() <= MAX_COMPANY)


def batch_sizes(fixed: int | None, patch_values: int) -> tuple[int, ...]:
    """The batch sizes to use for a file with this batch (None: any) and this many values a patch."""
    if fixed is not None:
        return (fixed,)
    return tuple(s for s in BATCH_SIZES if s == 1 or s * patch_values <= MAX_BATCH_VALUES)


def next_size(n: int, sizes: tuple[int, ...]) -> int:
    """The batch for the next of n >= 1 patches: the largest size that they fill by more than half."""
    return max((s for s in sizes if s < 2 * n), default=sizes[0])


def to_axes(patches: Float32Array, axes: Axes) -> Float32Array:
    """Patches (n, n_frames, n_coeffs) in the file's axes; C is the one channel, in NCT the coefficients."""
    if axes == "NTF":
        return patches
    if axes == "NTFC":
        return patches[..., np.newaxis]
    if axes == "NCTF":
        return patches[:, np.newaxis]
    turned = patches.transpose(0, 2, 1)
    return turned if axes == "NCT" else turned[:, np.newaxis]


def quantise(real: Float32Array, tensor: TensorInfo) -> Tensor:
    """`real` in the tensor's type: round half to even, clipped to its range; what is not a number is 0."""
    if tensor.dtype == np.float32:
        return np.ascontiguousarray(real, np.float32)
    limits = np.iinfo(tensor.dtype)
    with np.errstate(over="ignore"):
        q = np.rint(np.nan_to_num(real) / np.float32(tensor.scale)) + np.float32(tensor.zero_point)
    return np.ascontiguousarray(np.clip(q, limits.min, limits.max).astype(tensor.dtype))


def dequantise(raw: Tensor, tensor: TensorInfo) -> Float32Array:
    """Real values of an output tensor."""
    if tensor.dtype == np.float32:
        return raw
    return (raw.astype(np.float32) - np.float32(tensor.zero_point)) * np.float32(tensor.scale)


def as_scores(real: Float32Array, kind: Output) -> Float32Array:
    """Scores in [0, 1] of outputs (n, n_classes): softmax over logits, others clipped."""
    if kind == "logits":
        with np.errstate(invalid="ignore"):
            real = np.exp(real - real.max(axis=1, keepdims=True))
        real = real / real.sum(axis=1, keepdims=True)
    return np.fmin(np.fmax(real, 0.0), 1.0)  # fmax: what is not a number is 0


def shown(shape: tuple[int | None, ...]) -> str:
    """A shape as text: N x 1 x 49 x 10."""
    return " x ".join("N" if d is None else str(d) for d in shape)
