"""Outputs that are not what the manifest says: refused as the file is opened, by what several patches give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from kws_serve.backends import open_backend
from kws_serve.backends.declared_output import output_fault
from kws_serve.messages import BackendError
from tests.conformance.test_scores import RUNNING
from tests.support.tiny_classifiers import BUILDERS, Tiny, onnx_bytes, some_patches, spec_of

OTHERS = [
    ("softmax", "logits", "are they scores already (output: softmax)"),
    ("logits", "softmax", "is output logits?"),
    ("sigmoid", "softmax", "is output sigmoid, or logits?"),
    ("sigmoid", "logits", "are they scores already (output: sigmoid)"),
    ("logits", "sigmoid", "is output logits?"),
]


@pytest.mark.parametrize("backend", RUNNING)
@pytest.mark.parametrize("batch", [None, 1])
@pytest.mark.parametrize(("gives", "declared", "says"), OTHERS)
def test_an_output_that_is_another_is_refused(
    backend: str, batch: int | None, gives: str, declared: str, says: str, tmp_path: Path
) -> None:
    tiny = Tiny(output=gives, batch=batch)  # type: ignore[arg-type]
    data = BUILDERS[backend](tiny)
    open_backend(backend, spec_of(tmp_path, tiny, {backend: data})).close()
    with pytest.raises(BackendError, match="self-test") as refused:
        open_backend(backend, spec_of(tmp_path, replace(tiny, output=declared), {backend: data}))  # type: ignore[arg-type]
    assert says in str(refused.value) and "\n" not in str(refused.value)


def scaled(data: bytes, by: float) -> bytes:
    """The model with its output times a number."""
    model = onnx.load_from_string(data)
    last = model.graph.node[-1]
    name = last.output[0]
    last.output[0] = "unscaled"
    model.graph.initializer.append(helper.make_tensor("by", TensorProto.FLOAT, [], [by]))
    model.graph.node.append(helper.make_node("Mul", ["unscaled", "by"], [name]))
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("declared", ["softmax", "sigmoid", "logits"])
def test_percents_are_refused_however_declared(declared: str, tmp_path: Path) -> None:
    data = scaled(onnx_bytes(Tiny()), 100.0)
    with pytest.raises(BackendError, match=r"percents|in a unit of their own"):
        open_backend("onnx", spec_of(tmp_path, Tiny(output=declared), {"onnx": data}))  # type: ignore[arg-type]


def softmax_over(data: bytes, axis: int) -> bytes:
    """The model with its softmax along another axis."""
    model = onnx.load_from_string(data)
    node = next(n for n in model.graph.node if n.op_type == "Softmax")
    node.attribute.append(helper.make_attribute("axis", axis))
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("batch", [None, 1])
def test_a_softmax_over_the_batch_is_refused(batch: int | None, tmp_path: Path) -> None:
    tiny = Tiny(batch=batch)
    with pytest.raises(BackendError, match="sums are 4 to 4, wanted"):
        open_backend("onnx", spec_of(tmp_path, tiny, {"onnx": softmax_over(onnx_bytes(tiny), 0)}))


def across(data: bytes) -> bytes:
    """The model with each patch's scores taking from the patches beside it: the batch on the last axis."""
    model = onnx.load_from_string(data)
    last = model.graph.node[-1]
    name = last.output[0]
    last.output[0] = "upright"
    model.graph.node.append(helper.make_node("Transpose", ["upright"], ["turned"], perm=[1, 0]))
    model.graph.initializer.append(helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 4]))
    model.graph.node.append(helper.make_node("Reshape", ["turned", "shape"], [name]))
    return bytes(model.SerializeToString())


def test_scores_that_mix_patches_are_computed_one_by_one_or_refused(tmp_path: Path) -> None:
    patches = some_patches(9)
    free = Tiny()
    wanted = open_backend("onnx", spec_of(tmp_path, free, {"onnx": onnx_bytes(free)})).infer(patches)
    backend = open_backend("onnx", spec_of(tmp_path, free, {"onnx": across(onnx_bytes(free))}))
    np.testing.assert_allclose(backend.infer(patches), wanted, atol=1e-5)
    fixed = Tiny(batch=4)
    with pytest.raises(BackendError, match="self-test"):
        open_backend("onnx", spec_of(tmp_path, fixed, {"onnx": across(onnx_bytes(fixed))}))


@given(st.integers(2, 1200), st.integers(0, 100), st.floats(0.05, 30))
def test_true_outputs_are_taken(n_classes: int, seed: int, spread: float) -> None:
    logits = np.random.default_rng(seed).normal(0, spread, (5, n_classes)).astype(np.float32)
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    softmax = (e / e.sum(axis=1, keepdims=True)).astype(np.float32)
    assert output_fault(softmax, "softmax") == ""
    assert output_fault(np.rint(softmax * 256) / np.float32(256), "softmax", 1 / 256) == ""
    assert output_fault(np.float32(1) / (1 + np.exp(-np.clip(logits, -80, 80))), "sigmoid") == ""
    assert output_fault(np.log(softmax + np.float32(1e-30)), "logits") == "", "the softmax of log-softmax is softmax"
    if logits.min() < 0:
        assert output_fault(logits, "logits") == ""
