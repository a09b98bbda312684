"""Tiny classifiers in every file format, and what they must answer, in NumPy.

Every file computes activation(weights . patch + bias): the weights are laid out for the file's axes, so the answer
depends on each value of the patch standing where the manifest says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from kws_models.export.tflite_file import Quantisation, TfliteModel
from kws_serve.manifest.spec import Axes, FileSpec, FrontEndSpec, MelSpec, ModelSpec, Output

N_FRAMES, N_COEFFS, N_CLASSES = 5, 3, 4
SHAPES: dict[Axes, tuple[int, ...]] = {
    "NTF": (5, 3),
    "NTFC": (5, 3, 1),
    "NCTF": (1, 5, 3),
    "NCFT": (1, 3, 5),
    "NCT": (3, 5),
}
INPUT_SCALE = 1 / 32
INPUT_ZERO = {"float32": 0, "int8": -5, "uint8": 120, "int16": 0}
LOGITS_SCALE = 1 / 16
ONNX_TYPES = {"float32": TensorProto.FLOAT, "int8": TensorProto.INT8, "uint8": TensorProto.UINT8}


@dataclass(frozen=True)
class Tiny:
    """What a tiny classifier looks like from outside."""

    axes: Axes = "NTF"
    output: Output = "softmax"
    dtype: str = "float32"
    batch: int | None = None  # None: free
    seed: int = 1
    stuck: bool = False  # the file calls its batch free but reshapes to a batch of 1, as some exporters write it
    weights: Any = field(init=False, repr=False, compare=False)  # (N_CLASSES, N_FRAMES, N_COEFFS), multiples of 1/64
    bias: Any = field(init=False, repr=False, compare=False)  # (N_CLASSES,)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        whole = rng.integers(-63, 64, (N_CLASSES, N_FRAMES, N_COEFFS))
        object.__setattr__(self, "weights", (whole / 64).astype(np.float32))
        object.__setattr__(self, "bias", (rng.integers(-64, 64, N_CLASSES) / 64).astype(np.float32))

    @property
    def reshape_batch(self) -> int:
        """The batch that the file reshapes to."""
        return 1 if self.stuck else self.batch or -1

    @property
    def flat_weights(self) -> Any:
        """Weights (N_CLASSES, values) in the order in which the file's input holds the patch."""
        turned = self.weights.transpose(0, 2, 1) if self.axes in ("NCFT", "NCT") else self.weights
        return np.ascontiguousarray(turned.reshape(N_CLASSES, -1))

    @property
    def output_quantisation(self) -> tuple[float, int]:
        """Scale and zero point of the file's output."""
        zero = 128 if self.dtype == "uint8" else 0
        return (LOGITS_SCALE, zero) if self.output == "logits" else (1 / 256, zero - 128)


def expected(tiny: Tiny, patches: Any) -> Any:
    """Scores (n, N_CLASSES) in float64, the input quantised as the file asks."""
    real = patches.astype(np.float64)
    if tiny.dtype != "float32":
        limits, zero = np.iinfo(tiny.dtype), INPUT_ZERO[tiny.dtype]
        real = (np.clip(np.rint(real / INPUT_SCALE) + zero, limits.min, limits.max) - zero) * INPUT_SCALE
    logits = np.einsum("ntf,ctf->nc", real, tiny.weights) + tiny.bias
    if tiny.output == "sigmoid":
        return 1 / (1 + np.exp(-logits))
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def onnx_bytes(tiny: Tiny) -> bytes:
    """The classifier as ONNX; integer ones with quantise and dequantise nodes at both ends."""
    whole, batch = tiny.dtype != "float32", tiny.batch or "n"
    code = {"float32": TensorProto.FLOAT, "int8": TensorProto.INT8, "uint8": TensorProto.UINT8}[tiny.dtype]
    constants = [
        helper.make_tensor("w", TensorProto.FLOAT, [N_FRAMES * N_COEFFS, N_CLASSES], tiny.flat_weights.T.ravel()),
        helper.make_tensor("b", TensorProto.FLOAT, [N_CLASSES], tiny.bias),
        helper.make_tensor("flat", TensorProto.INT64, [2], [tiny.reshape_batch, N_FRAMES * N_COEFFS]),
    ]
    nodes = [
        helper.make_node("Reshape", ["x_real", "flat"], ["x_flat"]),
        helper.make_node("MatMul", ["x_flat", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["logits"]),
        helper.make_node(
            {"softmax": "Softmax", "sigmoid": "Sigmoid", "logits": "Identity"}[tiny.output], ["logits"], ["y_real"]
        ),
    ]
    if whole:
        ends = {"x": (INPUT_SCALE, INPUT_ZERO[tiny.dtype]), "y": tiny.output_quantisation}
        for name, (scale, zero) in ends.items():
            constants.append(helper.make_tensor(f"{name}_scale", TensorProto.FLOAT, [], [scale]))
            constants.append(helper.make_tensor(f"{name}_zero", code, [], [zero]))
        nodes.insert(0, helper.make_node("DequantizeLinear", ["x", "x_scale", "x_zero"], ["x_real"]))
        nodes.append(helper.make_node("QuantizeLinear", ["y_real", "y_scale", "y_zero"], ["y"]))
    first, last = ("x", "y") if whole else ("x_real", "y_real")
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(first, code, [batch, *SHAPES[tiny.axes]])],
        [helper.make_tensor_value_info(last, code, [batch, N_CLASSES])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def tflite_bytes(tiny: Tiny) -> bytes:
    """The classifier as TFLite; uint8 ones compute in int8 between two QUANTIZE operators, as converters write them."""
    model, whole = TfliteModel("tiny"), tiny.dtype != "float32"
    inner = "int8" if whole else "float32"
    values = N_FRAMES * N_COEFFS

    def q(scale: float, zero: int) -> Quantisation | None:
        return Quantisation.of(scale, zero) if whole else None

    shape = (tiny.batch, *SHAPES[tiny.axes])
    x = model.tensor("x", shape, tiny.dtype, q(INPUT_SCALE, INPUT_ZERO[tiny.dtype]))
    end = x
    if tiny.dtype == "uint8":
        end = model.tensor("x_int8", shape, "int8", q(INPUT_SCALE, INPUT_ZERO["uint8"] - 128))
        model.op("QUANTIZE", [x], [end])
    zero = INPUT_ZERO[tiny.dtype] - (128 if tiny.dtype == "uint8" else 0)
    flat = model.tensor("x_flat", (tiny.batch, values), inner, q(INPUT_SCALE, zero))
    model.op("RESHAPE", [end, model.constant("flat", np.array([tiny.reshape_batch, values], np.int32))], [flat])
    w, b = tiny.flat_weights, tiny.bias
    if whole:
        w, b = np.rint(w * 64).astype(np.int8), np.rint(b * 64 / INPUT_SCALE).astype(np.int32)
    inputs = [flat, model.constant("w", w, q(1 / 64, 0)), model.constant("b", b, q(INPUT_SCALE / 64, 0))]
    end = model.tensor("logits", (tiny.batch, N_CLASSES), inner, q(LOGITS_SCALE, 0))
    model.op("FULLY_CONNECTED", inputs, [end])
    if tiny.output != "logits":
        scores = model.tensor("scores", (tiny.batch, N_CLASSES), inner, q(1 / 256, -128))
        model.op({"softmax": "SOFTMAX", "sigmoid": "LOGISTIC"}[tiny.output], [end], [scores])
        end = scores
    if tiny.dtype == "uint8":
        y = model.tensor("y", (tiny.batch, N_CLASSES), "uint8", q(*tiny.output_quantisation))
        model.op("QUANTIZE", [end], [y])
        end = y
    return model.to_bytes([x], [end])


BUILDERS: dict[str, Callable[[Tiny], bytes]] = {"onnx": onnx_bytes, "tflite": tflite_bytes}
"""By file kind of the manifest."""


def spec_of(folder: Path, tiny: Tiny, files: dict[str, bytes], **changed: Any) -> ModelSpec:
    """Write `files` (kind -> bytes) into `folder` and describe them; `changed` replaces fields of the spec."""
    found = {}
    for kind, data in files.items():
        path = folder / f"model.{kind}"
        path.write_bytes(data)
        found[kind] = FileSpec(path, hashlib.sha256(data).hexdigest(), tiny.axes, tiny.output)
    fields: dict[str, Any] = {
        "name": "tiny",
        "version": "1.0.0",
        "task": "keyword",
        "labels": tuple("abcd"),
        "rest_labels": frozenset("a"),
        "front_end": FrontEndSpec("fbank", 16000, 400, 160, fft_size=512, mel=MelSpec(N_COEFFS, 20, 4000)),
        "n_frames": N_FRAMES,
        "patch_hop_ms": 10.0,
        "files": found,
        "detection": {},
        "folder": folder,
    }
    return ModelSpec(**{**fields, **changed})


def some_patches(n: int, seed: int = 0) -> Any:
    """Patches (n, N_FRAMES, N_COEFFS) whose logits do not leave the tiny files' integer range."""
    return np.random.default_rng(seed).standard_normal((n, N_FRAMES, N_COEFFS)).astype(np.float32)
