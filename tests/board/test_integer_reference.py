"""The NumPy reference is TFLite's reference kernels, bit by bit: on the shipped models and on random ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kws_board.compiler import compile_tflite
from kws_board.errors import BoardError, ModelUnsupported
from kws_board.fixed_point import requantised, requantised_once
from kws_board.integer_model import quantised_multiplier
from kws_board.integer_ops import run
from kws_models.export.tflite_file import Quantisation, TfliteModel
from kws_serve.manifest.folder import shipped_models_dir
from tests.support import tflite_reference
from tests.support.random_tflite import keyword_like

FOLDERS = sorted(p.parent for p in shipped_models_dir().glob("*/model.json"))


def on_board(folder: Path) -> bool:
    """Raw-waveform models keep a float first layer: no board image."""
    return json.loads((folder / "model.json").read_text())["front_end"]["kind"] != "raw"


BOARD_MODELS = [folder for folder in FOLDERS if on_board(folder)]


def random_patches(size: int, n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(-128, 128, (n, size), dtype=np.int8)


def count_of(folder: Path) -> int:
    return 3 if folder.name == "dscnn-l" else 50


@pytest.mark.parametrize("folder", BOARD_MODELS, ids=lambda f: f.name)
def test_shipped_models(folder: Path) -> None:
    content = (folder / "model.int8.tflite").read_bytes()
    model = compile_tflite(content, folder.name).model
    patches = random_patches(model.input.size, count_of(folder))
    np.testing.assert_array_equal(run(model, patches), tflite_reference.run(content, patches))


def test_a_model_with_float_layers_is_refused() -> None:
    for folder in set(FOLDERS) - set(BOARD_MODELS):
        with pytest.raises(BoardError, match="FLOAT32"):
            compile_tflite((folder / "model.int8.tflite").read_bytes(), folder.name)


@pytest.mark.parametrize("seed", range(60))
def test_random_models(seed: int) -> None:
    model, inputs, outputs = keyword_like(seed)
    content = model.to_bytes(inputs, outputs)
    read = compile_tflite(content, f"random {seed}").model
    patches = random_patches(read.input.size, 4, seed)
    np.testing.assert_array_equal(run(read, patches), tflite_reference.run(content, patches))


def test_requantisation_rounds_as_the_kernels_do() -> None:
    half, shift = quantised_multiplier(0.5)
    assert (half, shift) == (1 << 30, 0)
    np.testing.assert_array_equal(requantised([3, -3, 5, -5], half, shift), [2, -1, 3, -2])
    np.testing.assert_array_equal(requantised([6, -6, 10, -10], *quantised_multiplier(0.25)), [2, -2, 3, -3])
    np.testing.assert_array_equal(requantised_once([6, -6, 10, -10], *quantised_multiplier(0.25)), [2, -1, 3, -2])
    assert quantised_multiplier(0.0) == (0, 0)
    assert quantised_multiplier(2.0**-40) == (0, 0)
    with pytest.raises(ValueError, match="scale"):
        quantised_multiplier(float("nan"))


def test_every_fault_of_a_model_is_told() -> None:
    model = TfliteModel()
    source = model.tensor("x", (1, 4, 4, 2), "int8", Quantisation.of(0.1, 0))
    pooled = model.tensor("p", (1, 2, 2, 2), "int8", Quantisation.of(0.1, 0))
    model.op("MAX_POOL_2D", [source], [pooled], stride=(2, 2), size=(2, 2), padding="VALID")
    real = model.tensor("y", (1, 2, 2, 2), "float32")
    model.op("DEQUANTIZE", [pooled], [real])
    with pytest.raises(ModelUnsupported) as refused:
        compile_tflite(model.to_bytes([source], [real]), "mine")
    assert [line.split(":")[0] for line in refused.value.faults[:2]] == [
        "operator 0 MAX_POOL_2D", "operator 1 DEQUANTIZE",
    ]  # fmt: skip
    assert "supported: CONV_2D" in refused.value.faults[-1]


@pytest.mark.parametrize("seed", range(300))
def test_a_damaged_file_is_refused_in_one_line(seed: int) -> None:
    rng = np.random.default_rng(seed)
    content = bytearray((FOLDERS[0].parent / "dscnn-s" / "model.int8.tflite").read_bytes())
    if seed % 3 == 0:
        del content[int(rng.integers(8, len(content))) :]
    for _ in range(int(rng.integers(1, 30))):
        content[int(rng.integers(8, len(content)))] = int(rng.integers(0, 256))
    try:
        image = compile_tflite(bytes(content), "damaged")
    except (BoardError, ModelUnsupported) as error:
        assert "\n" not in str(error)
    else:  # only weights or names were hit
        assert run(image.model, random_patches(image.model.input.size, 1)).shape[0] == 1
