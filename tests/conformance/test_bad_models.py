"""Files that no backend may load: each is refused when opened, in one line that says what, found and wanted."""

from __future__ import annotations

import contextlib
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from kws_models.export.tflite_file import TfliteModel
from kws_serve.backends import model_bytes, open_backend
from kws_serve.backends.onnx_file import OnnxFile
from kws_serve.backends.protobuf_wire import NotOnnx, written
from kws_serve.backends.tflite import LIBRARIES
from kws_serve.manifest.spec import ModelSpec
from kws_serve.messages import BackendError
from tests.conformance.test_scores import RUNNING
from tests.support.tiny_classifiers import BUILDERS, Tiny, onnx_bytes, some_patches, spec_of, tflite_bytes


def refusal(backend: str, spec: ModelSpec) -> str:
    """The one line with which `backend` refuses `spec`."""
    with pytest.raises(BackendError) as refused:
        open_backend(backend, spec)
    line = str(refused.value)
    assert "\n" not in line
    assert len(line) < 500
    assert "Traceback" not in line
    assert "found" in line
    assert "wanted" in line or "refuses" in line
    return line


@pytest.mark.parametrize("backend", RUNNING)
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        pytest.param(lambda data: data[: len(data) // 2], "", id="truncated"),
        pytest.param(lambda data: data[:40], "", id="cut to its head"),
        pytest.param(lambda data: b"", "", id="empty"),
        pytest.param(lambda data: b"this is a text file, no model\n" * 40, "", id="text"),
        pytest.param(lambda data: pickle.dumps({"weights": [1.0, 2.0]}), "", id="pickle"),
        pytest.param(lambda data: bytes(2000), "", id="zeros"),
    ],
)
def test_a_file_that_is_no_model(backend: str, spoil: Callable[[bytes], bytes], says: str, tmp_path: Path) -> None:
    data = spoil(BUILDERS[backend](Tiny()))
    assert f"model.{backend}" in refusal(backend, spec_of(tmp_path, Tiny(), {backend: data}))


@pytest.mark.parametrize("backend", RUNNING)
def test_a_file_that_changed_since_its_digest_was_written(backend: str, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, Tiny(), {backend: BUILDERS[backend](Tiny())})
    spec.files[backend].path.write_bytes(BUILDERS[backend](Tiny(seed=2)))
    assert f"wanted {spec.files[backend].sha256} (model.json)" in refusal(backend, spec)


@pytest.mark.parametrize("backend", RUNNING)
def test_a_missing_file_a_folder_and_no_entry(backend: str, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, Tiny(), {backend: BUILDERS[backend](Tiny())})
    path = spec.files[backend].path
    path.unlink()
    assert "No such file" in refusal(backend, spec)
    path.mkdir()
    assert "Is a directory" in refusal(backend, spec)
    assert refusal(backend, spec_of(tmp_path, Tiny(), {})).endswith(f"files: found none, wanted {backend}")


@pytest.mark.parametrize("backend", RUNNING)
def test_a_file_over_the_size_cap(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(tmp_path, Tiny(), {backend: BUILDERS[backend](Tiny())})
    size = spec.files[backend].path.stat().st_size
    monkeypatch.setattr(model_bytes, "MAX_MODEL_BYTES", size)
    open_backend(backend, spec).close()
    monkeypatch.setattr(model_bytes, "MAX_MODEL_BYTES", size - 1)
    assert f"found more than {size - 1} bytes" in refusal(backend, spec)


@pytest.mark.parametrize("backend", RUNNING)
@pytest.mark.parametrize("batch", [None, 1])
def test_a_manifest_that_does_not_fit_the_file(backend: str, batch: int | None, tmp_path: Path) -> None:
    tiny = Tiny(batch=batch)
    files = {backend: BUILDERS[backend](tiny)}
    assert "x 3 (labels)" in refusal(backend, spec_of(tmp_path, tiny, files, labels=tuple("abc")))
    assert "wanted N x 6 x 3 (NTF)" in refusal(backend, spec_of(tmp_path, tiny, files, n_frames=6))
    other_axes = Tiny(axes="NCT", batch=batch)
    assert "wanted N x 3 x 5 (NCT)" in refusal(backend, spec_of(tmp_path, other_axes, files))
    assert "wanted N x 1 x 5 x 3 (NCTF)" in refusal(backend, spec_of(tmp_path, Tiny(axes="NCTF"), files))


@pytest.mark.parametrize("backend", RUNNING)
def test_scores_that_are_not_finite(backend: str, tmp_path: Path) -> None:
    tiny = Tiny(output="logits")
    tiny.bias[0] = np.nan
    spec = spec_of(tmp_path, tiny, {backend: BUILDERS[backend](tiny)})
    assert "self-test: found scores that are not finite" in refusal(backend, spec)


def with_external_data(data: bytes, location: str, where: str) -> bytes:
    """The model with its weights told to lie in file `location`: of the graph, a Constant node, or a subgraph."""
    model = onnx.load_from_string(data)
    weights = next(t for t in model.graph.initializer if t.name == "w")
    weights.ClearField("float_data")
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=location)
    if where == "constant":
        model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=weights))
        model.graph.initializer.remove(weights)
    elif where == "subgraph":
        inner = helper.make_graph([helper.make_node("Identity", ["w"], ["v"])], "inner", [], [], [weights])
        model.graph.node.add(op_type="If").attribute.append(helper.make_attribute("then_branch", inner))
    spoilt: bytes = model.SerializeToString()
    return spoilt


@pytest.mark.parametrize("where", ["initializer", "constant", "subgraph"])
@pytest.mark.parametrize("location", ["w.bin", "../w.bin", "/etc/passwd", ""])
def test_external_data_is_refused(location: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the file exists and fits: ONNX Runtime would load it, relative to the current folder."""
    tiny = Tiny()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.bin").write_bytes(np.ascontiguousarray(tiny.flat_weights.T).tobytes())
    spoilt = with_external_data(onnx_bytes(tiny), location, where)
    line = refusal("onnx", spec_of(tmp_path, tiny, {"onnx": spoilt}))
    assert line.endswith("found external data of tensor 'w', wanted all data inside the file")


def test_integer_onnx_input_needs_a_known_scale(tmp_path: Path) -> None:
    model = onnx.load_from_string(onnx_bytes(Tiny(dtype="int8")))
    model.graph.node[0].CopyFrom(helper.make_node("Cast", ["x"], ["x_real"], to=TensorProto.FLOAT))
    spec = spec_of(tmp_path, Tiny(), {"onnx": model.SerializeToString()})
    assert "inputs: found tensor(int8) of unknown scale, wanted a QuantizeLinear or Deq" in refusal("onnx", spec)


@pytest.mark.parametrize("form", ["raw", "list", "constant node", "behind a transpose", "no zero point"])
def test_scale_and_zero_point_are_found_however_written(form: str) -> None:
    model = onnx.load_from_string(onnx_bytes(Tiny(dtype="int8")))
    graph = model.graph
    scale = next(t for t in graph.initializer if t.name == "x_scale")
    zero = next(t for t in graph.initializer if t.name == "x_zero")
    if form == "raw":
        scale.CopyFrom(helper.make_tensor("x_scale", TensorProto.FLOAT, [], np.float32(1 / 32).tobytes(), raw=True))
        zero.CopyFrom(helper.make_tensor("x_zero", TensorProto.INT8, [], np.int8(-5).tobytes(), raw=True))
    elif form == "constant node":
        graph.node.insert(0, helper.make_node("Constant", [], ["x_scale"], value=scale))
        graph.initializer.remove(scale)
    elif form == "behind a transpose":
        graph.node.insert(0, helper.make_node("Transpose", ["x"], ["x_turned"], perm=[0, 2, 1]))
        graph.node[1].input[0] = "x_turned"
    elif form == "no zero point":
        del graph.node[0].input[2]
    found = OnnxFile(model.SerializeToString())
    assert found.input_quantisation("x") == (1 / 32, 0 if form == "no zero point" else -5)
    assert found.output_quantisation("y") == (1 / 256, -128)
    assert found.input_quantisation("nobody") is None


@pytest.mark.parametrize("backend", RUNNING)
def test_two_inputs_or_outputs(backend: str, tmp_path: Path) -> None:
    if backend == "onnx":
        model = onnx.load_from_string(onnx_bytes(Tiny()))
        model.graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 4]))
        data = model.SerializeToString()
    else:
        two = TfliteModel()
        x = two.tensor("x", (None, 5, 3), "float32")
        y, z = two.tensor("y", (None, 5, 3), "float32"), two.tensor("z", (None, 5, 3), "float32")
        two.op("RELU", [x], [y])
        two.op("RELU", [x], [z])
        data = two.to_bytes([x], [y, z])
    assert "outputs: found 2, wanted one" in refusal(backend, spec_of(tmp_path, Tiny(), {backend: data}))


def test_a_missing_runtime_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(tmp_path, Tiny(), {"tflite": tflite_bytes(Tiny())})
    for library in LIBRARIES:
        monkeypatch.setitem(sys.modules, library, None)  # how Python marks "not there"
    assert refusal("tflite", spec).endswith('wanted: pip install "kws-serve[tflite]"')


def test_the_second_library_serves_where_the_first_cannot_construct(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library that imports but breaks at the first Interpreter, as tflite-runtime does under NumPy 2."""
    real = sys.modules.get(LIBRARIES[0]) or __import__(LIBRARIES[0], fromlist=["Interpreter"])
    broken = types.ModuleType(LIBRARIES[0])

    def interpreter(**settings: Any) -> None:
        raise ImportError("numpy.core.multiarray failed to import")

    broken.Interpreter = interpreter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, LIBRARIES[0], broken)
    monkeypatch.setitem(sys.modules, LIBRARIES[1].split(".")[0], types.ModuleType("tflite_runtime"))
    monkeypatch.setitem(sys.modules, LIBRARIES[1], real)
    spec = spec_of(tmp_path, Tiny(), {"tflite": tflite_bytes(Tiny())})
    assert open_backend("tflite", spec).infer(some_patches(2)).shape == (2, 4)
    monkeypatch.setitem(sys.modules, LIBRARIES[1], None)
    assert refusal("tflite", spec).endswith('wanted: pip install "kws-serve[tflite]"')


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_mutated_onnx_bytes_never_break_the_reader(data: st.DataObject) -> None:
    """Any bytes: an OnnxFile or NotOnnx."""
    original = onnx_bytes(Tiny(dtype="int8"))
    spoilt = bytearray(original[: data.draw(st.integers(0, len(original)))])
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(original) - 1), st.integers(0, 255)), max_size=8)):
        if at < len(spoilt):
            spoilt[at] = value
    with contextlib.suppress(NotOnnx):
        OnnxFile(bytes(spoilt)).input_quantisation("x")


def test_nodes_that_feed_each_other_do_not_hang_the_reader() -> None:
    model = onnx.load_from_string(onnx_bytes(Tiny(dtype="int8")))
    model.graph.node.insert(0, helper.make_node("Identity", ["x"], ["z"]))
    model.graph.node.insert(1, helper.make_node("Identity", ["z"], ["x"]))
    assert OnnxFile(model.SerializeToString()).input_quantisation("x") is None


@pytest.mark.parametrize(
    "field",
    [
        bytes([0xEA, 0x80, 0x80, 0x80, 0x10, 0]),  # external_data (13): its tag, and 2**32
        bytes([0xF0, 0x80, 0x80, 0x80, 0x10, 1]),  # data_location (14) = EXTERNAL, likewise
        bytes([0x70, 0x81, 0x80, 0x80, 0x80, 0x10]),  # data_location = 2**32 + 1, which is 1 in 32 bits
        bytes([0x70, 2]),  # a location that nobody knows yet
    ],
    ids=["external_data", "data_location", "of 33 bits", "unknown"],
)
def test_external_data_in_other_spellings_is_refused(field: bytes) -> None:
    """Readers that keep 32 bits of a number take these for what they are."""
    tensor = written(8, "w") + field
    with pytest.raises(NotOnnx, match=r"wanted all data inside the file|of more than 32 bits"):
        OnnxFile(written(7, written(5, tensor)))
