"""One graph, one function: float ONNX, float TFLite and int8 TFLite agree."""

from __future__ import annotations

import numpy as np
import pytest

from kws_models.export.integer_maps import fused_relus, quantisation_of
from kws_models.export.model_folder_writer import ONNX_FILE, TFLITE_FILE, ModelFacts, write_model_folder
from kws_models.export.onnx_file import onnx_bytes, read_weights
from kws_models.export.qdq_file import qdq_bytes
from kws_models.export.quantiser import quantise, run_tflite
from kws_models.export.tflite_writer import tflite_bytes
from kws_models.export.trained_model import DEFAULT_DETECTION
from kws_models.zoo.absorbing import absorb
from kws_models.zoo.architectures import ARCHITECTURES
from kws_models.zoo.graph import BatchNorm
from kws_serve.backends import open_backend
from kws_serve.manifest.folder import load_model
from tests.support.random_model import random_patches, random_weights, run_onnx

NAMES = ["dscnn-s", "resnetse"]
POOLED = ["cnn-trad-fpool3", "cnn1d-custom32-8", "cnn1d-ch64-3", "cnn1d-base-4conv-2fc", "cnn1d-vgg-4"]


@pytest.mark.parametrize("name", [*NAMES, "m2", *POOLED])
def test_float_files_agree_and_take_any_batch(name: str) -> None:
    graph, weights = absorb(ARCHITECTURES[name].graph, random_weights(ARCHITECTURES[name].graph))
    if name in POOLED:  # tens of thousands of values go into the last layer: no wild scores
        weights["linear.weight"] /= 20.0
    content = onnx_bytes(graph, weights)
    tflite = tflite_bytes(graph, weights)
    for n in (1, 3):
        patches = random_patches(graph, n)
        scores = run_onnx(content, graph, patches)
        assert scores.shape == (n, len(ARCHITECTURES[name].labels))
        np.testing.assert_allclose(scores.sum(1), 1.0, atol=1e-5)
        np.testing.assert_allclose(run_tflite(tflite, patches), scores, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_int8_stays_near_float(name: str) -> None:
    graph, weights = absorb(ARCHITECTURES[name].graph, random_weights(ARCHITECTURES[name].graph))
    patches = random_patches(graph, 32)
    quantised = quantise(graph, weights, patches)
    scores = run_onnx(onnx_bytes(graph, weights), graph, patches)
    difference = np.abs(run_tflite(quantised.content, patches) - scores)
    assert difference.mean() < 0.03
    assert (run_tflite(quantised.content, patches).argmax(1) == scores.argmax(1)).mean() > 0.8


@pytest.mark.parametrize("gain", [1.0, 0.03])
def test_raw_samples_stay_float_so_that_quiet_speech_is_heard(gain: float) -> None:
    graph, weights = absorb(
        ARCHITECTURES["cnn1d-custom32-8"].graph, random_weights(ARCHITECTURES["cnn1d-custom32-8"].graph)
    )
    patches = 0.1 * random_patches(graph, 48)
    quantised = quantise(graph, weights, patches)
    quiet = gain * patches[32:]
    scores = run_onnx(onnx_bytes(graph, weights), graph, quiet)
    difference = np.abs(run_tflite(quantised.content, quiet) - scores)
    assert difference.mean() < 0.01


@pytest.mark.parametrize("name", ["cnn1d-custom32-8", "m2"])
def test_the_service_runs_what_is_written(name: str, tmp_path) -> None:
    architecture = ARCHITECTURES[name]
    graph, weights = absorb(architecture.graph, random_weights(architecture.graph))
    patches = random_patches(graph, 5)
    files = {ONNX_FILE: onnx_bytes(graph, weights), TFLITE_FILE: quantise(graph, weights, patches).content}
    facts = ModelFacts("1.0.0", {"*": DEFAULT_DETECTION["keyword"]}, {})
    write_model_folder(tmp_path, architecture, files, facts)
    wanted = run_onnx(files[ONNX_FILE], graph, patches)
    for backend, tolerance in (("onnx", 1e-6), ("tflite", 0.1)):
        opened = open_backend(backend, load_model(tmp_path))
        np.testing.assert_allclose(opened.infer(patches), wanted, atol=tolerance)
        opened.close()


@pytest.mark.parametrize("name", NAMES)
def test_absorbing_leaves_no_norm_and_counts_right(name: str) -> None:
    graph = ARCHITECTURES[name].graph
    absorbed, weights = absorb(graph, random_weights(graph))
    assert not any(isinstance(node, BatchNorm) for node in absorbed.nodes)
    assert sum(array.size for array in weights.values()) == {"dscnn-s": 22_604, "resnetse": 60_330}[name]


def test_the_same_weights_give_the_same_bytes() -> None:
    graph, weights = absorb(ARCHITECTURES["dscnn-s"].graph, random_weights(ARCHITECTURES["dscnn-s"].graph))
    assert onnx_bytes(graph, weights) == onnx_bytes(graph, weights)
    assert tflite_bytes(graph, weights) == tflite_bytes(graph, weights)


def test_weights_are_read_back(tmp_path) -> None:
    graph, weights = absorb(ARCHITECTURES["resnetse"].graph, random_weights(ARCHITECTURES["resnetse"].graph))
    (tmp_path / "model.onnx").write_bytes(onnx_bytes(graph, weights))
    back = read_weights(tmp_path / "model.onnx")
    assert set(back) == set(weights)
    assert all(np.array_equal(back[name], weights[name]) for name in weights)


def test_relus_are_fused_only_where_nothing_else_reads() -> None:
    graph, _ = absorb(ARCHITECTURES["resnetse"].graph, random_weights(ARCHITECTURES["resnetse"].graph))
    fused = fused_relus(graph)
    assert fused["stage1_1_conv1"] == "stage1_1_relu1" and fused["stage1_1_add"] == "stage1_1_relu"
    assert "stage1_1_conv3" not in fused  # the squeeze and the scale both read it


@pytest.mark.parametrize(("low", "high"), [(-3.0, 5.0), (1.0, 5.0), (-4.0, -1.0), (0.0, 0.0)])
def test_zero_is_exact_in_every_quantisation(low: float, high: float) -> None:
    quantisation = quantisation_of(low, high)
    assert -128 <= quantisation.zero_points[0] <= 127 and quantisation.scales[0] > 0


@pytest.mark.parametrize("name", ["dscnn-s", "resnetse", "cnn1d-custom32-8"])
def test_qdq_onnx_rounds_as_the_int8_file(name: str) -> None:
    graph, weights = absorb(ARCHITECTURES[name].graph, random_weights(ARCHITECTURES[name].graph))
    patches = random_patches(graph, 24)
    quantised = quantise(graph, weights, patches)
    integer = run_tflite(quantised.content, patches)
    scores = run_onnx(qdq_bytes(graph, weights, quantised.ranges), graph, patches)
    plain = run_onnx(onnx_bytes(graph, weights), graph, patches)
    assert np.abs(scores - integer).mean() < 0.6 * np.abs(plain - integer).mean() + 1 / 256
    assert np.abs(scores - plain).max() > 0  # it does round
