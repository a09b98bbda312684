"""Integer files, as ONNX Runtime's quantiser and ours write them: right kernels pass, wrong ones do not."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from kws_models.evaluation.check import synthetic_patches
from kws_models.export.onnx_file import read_weights
from kws_models.export.qdq_file import qdq_bytes
from kws_models.export.quantiser import collect_maps
from kws_models.export.tflite_writer import tflite_bytes
from kws_models.zoo.absorbing import absorb
from kws_models.zoo.architectures import ARCHITECTURES
from kws_serve.backends import open_backend
from kws_serve.backends.onnx import OnnxRuntime
from kws_serve.backends.onnx_file import OnnxFile
from kws_serve.backends.onnx_reference import float_reference, is_integer
from kws_serve.backends.onnx_session import new_session
from kws_serve.backends.patch_model import PatchModel
from kws_serve.backends.self_test import TOLERANCE, difference, trial_patches
from kws_serve.backends.tflite import TfliteRuntime
from kws_serve.manifest.folder import find_model, shipped_models_dir
from kws_serve.manifest.spec import FileSpec, ModelSpec
from kws_serve.messages import BackendError
from tests.support import tiny_classifiers
from tests.support.random_model import random_weights
from tests.support.tiny_classifiers import Tiny, some_patches

OPERATORS = {
    "our pairs": {"QuantizeLinear", "DequantizeLinear"},
    "pairs": {"QuantizeLinear", "DequantizeLinear"},
    "operators": {"QLinearConv", "QGemm"},
    "dynamic": {"ConvInteger", "MatMulInteger"},
    "tiny operators": {"QLinearMatMul"},
}
"""Kind of file -> what it must hold, else the test says nothing about it."""


class Reader(CalibrationDataReader):
    def __init__(self, name: str, maps: np.ndarray) -> None:
        self._left = iter([{name: maps[i : i + 1]} for i in range(len(maps))])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._left, None)


def quantised(folder: Path, kind: str, content: bytes, name: str, maps: np.ndarray) -> bytes:
    """The float file in integers, by ONNX Runtime's quantiser."""
    source, target = folder / "float.onnx", folder / "integer.onnx"
    source.write_bytes(content)
    if kind == "dynamic":
        quantize_dynamic(source, target, weight_type=QuantType.QInt8)
    else:
        written = QuantFormat.QDQ if kind == "pairs" else QuantFormat.QOperator
        types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        quantize_static(source, target, Reader(name, maps), quant_format=written, per_channel=True, **types)
    return target.read_bytes()


def described(folder: Path, spec: ModelSpec, data: bytes) -> ModelSpec:
    path = folder / "model.onnx"
    path.write_bytes(data)
    old = spec.files["onnx"]
    return replace(spec, files={"onnx": FileSpec(path, hashlib.sha256(data).hexdigest(), old.axes, old.output)})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelSpec]:
    """One model of each kind: the shipped weights, calibrated on tones and noise."""
    shipped = find_model("dscnn-s", [shipped_models_dir()])
    content = of(shipped)
    graph, _ = absorb(ARCHITECTURES["dscnn-s"].graph, random_weights(ARCHITECTURES["dscnn-s"].graph))
    weights = read_weights(shipped.files["onnx"].path)
    patches = synthetic_patches(shipped)
    maps = collect_maps(graph, weights, patches[:, None])
    ranges = {name: (float(values.min()), float(values.max())) for name, values in maps.items()}
    found = {"our pairs": qdq_bytes(graph, weights, ranges)}
    for kind in ("pairs", "operators", "dynamic"):
        found[kind] = quantised(tmp_path_factory.mktemp("q"), kind, content, "input", patches[:, None])
    specs = {kind: described(tmp_path_factory.mktemp("m"), shipped, data) for kind, data in found.items()}
    folder = tmp_path_factory.mktemp("tiny")
    content = tiny_classifiers.onnx_bytes(Tiny())
    tiny = tiny_classifiers.spec_of(folder, Tiny(), {"onnx": content})
    specs["tiny operators"] = described(folder, tiny, quantised(folder, "", content, "x_real", 4 * some_patches(24)))
    return specs


def runtime(spec: ModelSpec, data: bytes, **options: bool) -> OnnxRuntime:
    return OnnxRuntime(new_session(data, **options), OnnxFile(data), "test")


def of(spec: ModelSpec) -> bytes:
    return spec.files["onnx"].path.read_bytes()


def opened(spec: ModelSpec, data: bytes, **options: bool) -> PatchModel:
    return PatchModel("onnx", spec, spec.files["onnx"], runtime(spec, data, **options))


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the service logged."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("kws_serve")]


@pytest.mark.parametrize("kind", OPERATORS)
def test_right_kernels_pass(kind: str, files: dict[str, ModelSpec], caplog: pytest.LogCaptureFixture) -> None:
    spec = files[kind]
    assert {node.op_type for node in onnx.load_from_string(of(spec)).graph.node} >= OPERATORS[kind]
    with caplog.at_level(logging.WARNING):
        open_backend("onnx", spec).close()
    assert told(caplog) == [], "compared, not given up"


@pytest.mark.parametrize("kind", OPERATORS)
def test_the_reference_multiplies_in_float_and_gives_the_files_scores(kind: str, files: dict[str, ModelSpec]) -> None:
    spec = files[kind]
    data = float_reference(OnnxFile(of(spec)))
    onnx.checker.check_model(onnx.load_from_string(data))
    products = {"QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger"}
    assert not {node.op_type for node in onnx.load_from_string(data).graph.node} & products
    patches = 2 * np.random.default_rng(5).standard_normal((16, spec.n_frames, spec.n_coeffs)).astype(np.float32)
    reference = opened(spec, data, optimised=False)
    apart = np.abs(opened(spec, of(spec)).infer(patches) - reference.infer(patches)).max(axis=1)
    assert np.median(apart) <= 4.01 / 256  # steps of the output: each layer may round the other way


@pytest.mark.parametrize("kind", OPERATORS)
def test_wrong_products_are_refused_in_one_line(kind: str, files: dict[str, ModelSpec]) -> None:
    """The file's weights saturate where wrong kernels' sums would: the largest are cut to half."""
    spec = files[kind]
    model = onnx.load_from_string(of(spec))
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.INT8 and len(tensor.dims) > 1:
            tensor.raw_data = np.clip(onnx.numpy_helper.to_array(tensor), -64, 64).tobytes()
    reference = runtime(spec, float_reference(OnnxFile(of(spec))), optimised=False)
    wrong = opened(spec, model.SerializeToString())
    with pytest.raises(BackendError) as refused:
        wrong.compare(reference, "the same file computed in float")
    line = str(refused.value)
    assert "\n" not in line and line.startswith(
        f"backend onnx: model {spec.name}: model.onnx: self-test: found scores 0."
    )
    assert "away from the same file computed in float, wanted at most 0." in line


def saturates() -> bool:
    """Whether this processor's products of uint8 and int8 stick at 32767 unless told otherwise."""
    ends = [helper.make_tensor_value_info("a", TensorProto.UINT8, [8, 64])]
    weights = helper.make_tensor("b", TensorProto.INT8, [64, 16], np.full(64 * 16, 127, np.int8))
    outputs = [helper.make_tensor_value_info("y", TensorProto.INT32, [8, 16])]
    graph = helper.make_graph([helper.make_node("MatMulInteger", ["a", "b"], ["y"])], "g", ends, outputs, [weights])
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    for exact in (True, False):
        (found,) = new_session(data, exact=exact).run(None, {"a": np.full((8, 64), 255, np.uint8)})
        wrong = bool((found != 64 * 255 * 127).any())
        assert not (exact and wrong), "the option makes products exact"
    return wrong


@pytest.mark.parametrize("kind", ["our pairs", "pairs", "operators"])
def test_kernels_that_saturate_are_refused_where_they_do(kind: str, files: dict[str, ModelSpec]) -> None:
    spec = files[kind]
    reference = runtime(spec, float_reference(OnnxFile(of(spec))), optimised=False)
    tested = opened(spec, of(spec), exact=False)
    if saturates():
        with pytest.raises(BackendError, match="wrong on this processor"):
            tested.compare(reference, "the same file computed in float")
    else:
        tested.compare(reference, "the same file computed in float")


def test_a_model_on_a_cliff_is_not_refused(files: dict[str, ModelSpec]) -> None:
    """Features that are 0.1 % larger move its scores as much as other rounding does: it is no sign of wrong kernels."""

    def steep(patches: np.ndarray) -> np.ndarray:
        right = patches.mean(axis=(1, 2)) > level
        return np.stack([right, ~right], axis=1).astype(np.float32)

    patches = trial_patches(files["our pairs"])[:1]
    level = float(patches.mean()) + 1e-4 * abs(float(patches.mean()))
    found, most = difference(lambda p: 1 - steep(p), steep, patches)
    assert found == 1.0 and most == pytest.approx(TOLERANCE + (2.0 if patches.mean() > 0 else 0.0))


def test_float_files_are_not_compared(files: dict[str, ModelSpec]) -> None:
    assert not is_integer(OnnxFile(tiny_classifiers.onnx_bytes(Tiny())))
    assert all(is_integer(OnnxFile(of(spec))) for spec in files.values())


def test_a_product_that_has_no_reference_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Weights that are computed, not kept: the file runs, and the log says what was not checked."""
    content = tiny_classifiers.onnx_bytes(Tiny())
    spec = tiny_classifiers.spec_of(tmp_path, Tiny(), {"onnx": content})
    model = onnx.load_from_string(quantised(tmp_path, "dynamic", content, "x_real", some_patches(4)))
    (product,) = (node for node in model.graph.node if node.op_type == "MatMulInteger")
    weights = product.input[1]
    model.graph.node.insert(0, helper.make_node("Identity", [weights], ["computed"]))
    product.input[1] = "computed"
    with caplog.at_level(logging.WARNING):
        open_backend("onnx", described(tmp_path, spec, model.SerializeToString())).close()
    (line,) = told(caplog)
    assert line.endswith("integer kernels not checked against float ones: found no constant 'computed'")


def test_tflite_kernels_are_compared_too() -> None:
    spec = find_model("dscnn-s", [shipped_models_dir()])
    open_backend("tflite", spec).close()
    file = spec.files["tflite"]
    model = PatchModel("tflite", spec, file, TfliteRuntime(file.path.read_bytes(), 1, "test"))
    graph, weights = absorb(ARCHITECTURES["dscnn-s"].graph, random_weights(ARCHITECTURES["dscnn-s"].graph))
    with pytest.raises(BackendError, match=r"model\.int8\.tflite: self-test: found scores 0\.\d+ away from"):
        model.compare(TfliteRuntime(tflite_bytes(graph, weights), 1, "test", plain=True), "TFLite's own kernels")
