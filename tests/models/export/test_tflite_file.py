"""Files written by `tflite_file` run in the interpreter and compute what NumPy computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.lib.stride_tricks import sliding_window_view

from kws_models.export.tflite_file import OPERATORS, Quantisation, TfliteModel

RNG = np.random.default_rng(3)
MAP = RNG.standard_normal((3, 7, 6, 4)).astype(np.float32)


def run(data: bytes, x: Any) -> Any:
    """The output of the file for batch `x`, on the reference kernels."""
    interpreter = Interpreter(model_content=data, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(given["index"], x.shape, strict=True)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(result["index"])


def one_operator(operator: str, shape: tuple[int | None, ...], constants: list[Any], **options: Any) -> bytes:
    """A float model of one operator on the map."""
    model = TfliteModel()
    x = model.tensor("x", (None, *MAP.shape[1:]), "float32")
    y = model.tensor("y", shape, "float32")
    inputs = [x, *(model.constant(f"c{i}", c) for i, c in enumerate(constants))]
    model.op(operator, inputs, [y], **options)
    return model.to_bytes([x], [y])


def windows(x: Any, size: tuple[int, int], stride: tuple[int, int], padding: str, fill: float = 0.0) -> Any:
    """(n, out height, out width, channels, height, width), padded as TensorFlow's SAME or not at all."""
    if padding == "SAME":
        pads = []
        for length, k, s in zip(x.shape[1:3], size, stride, strict=True):
            total = max(0, (-(-length // s) - 1) * s + k - length)
            pads.append((total // 2, total - total // 2))
        x = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=fill)
    return sliding_window_view(x, size, axis=(1, 2))[:, :: stride[0], :: stride[1]]


W_CONV = RNG.standard_normal((5, 3, 2, 4)).astype(np.float32)
W_DEPTHWISE = RNG.standard_normal((1, 3, 2, 4)).astype(np.float32)
W_DENSE = RNG.standard_normal((5, 168)).astype(np.float32)
BIAS5, BIAS4 = RNG.standard_normal(5).astype(np.float32), RNG.standard_normal(4).astype(np.float32)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("stride", [(1, 1), (2, 1), (2, 2)])
@pytest.mark.parametrize("operator", ["CONV_2D", "DEPTHWISE_CONV_2D", "AVERAGE_POOL_2D", "MAX_POOL_2D"])
def test_windowed_operators(operator: str, stride: tuple[int, int], padding: str) -> None:
    seen = windows(MAP, (3, 2), stride, padding, fill=-np.inf if operator == "MAX_POOL_2D" else 0.0)
    if operator == "CONV_2D":
        wanted, constants = np.einsum("nhwcij,oijc->nhwo", seen, W_CONV) + BIAS5, [W_CONV, BIAS5]
    elif operator == "DEPTHWISE_CONV_2D":
        wanted, constants = np.einsum("nhwcij,ijc->nhwc", seen, W_DEPTHWISE[0]) + BIAS4, [W_DEPTHWISE, BIAS4]
    elif operator == "MAX_POOL_2D":
        wanted, constants = seen.max(axis=(-2, -1)), []
    else:  # the padding does not count
        n_real = windows(np.ones_like(MAP), (3, 2), stride, padding).sum(axis=(-2, -1))
        wanted, constants = seen.sum(axis=(-2, -1)) / n_real, []
    options: dict[str, Any] = {} if constants else {"size": (3, 2)}
    data = one_operator(operator, (None, *wanted.shape[1:]), constants, stride=stride, padding=padding, **options)
    np.testing.assert_allclose(run(data, MAP), wanted, atol=1e-5)


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


PLAIN: dict[str, tuple[Callable[[Any], Any], list[Any], dict[str, Any]]] = {
    "MEAN": (lambda x: x.mean(axis=(1, 2), keepdims=True), [np.array([1, 2], np.int32)], {"keep_dims": True}),
    "FULLY_CONNECTED": (lambda x: np.maximum(0, x.reshape(3, -1) @ W_DENSE.T + BIAS5), [W_DENSE, BIAS5],
                        {"activation": "relu"}),
    "SOFTMAX": (softmax, [], {}),
    "LOGISTIC": (lambda x: 1 / (1 + np.exp(-x)), [], {}),
    "RELU": (lambda x: np.maximum(0, x), [], {}),
    "ADD": (lambda x: x + BIAS4, [BIAS4], {}),
    "MUL": (lambda x: np.clip(x * BIAS4, 0, 6), [BIAS4], {"activation": "relu6"}),
    "RESHAPE": (lambda x: x.reshape(3, 168), [np.array([-1, 168], np.int32)], {}),
    "TRANSPOSE": (lambda x: x.transpose(0, 3, 2, 1), [np.array([0, 3, 2, 1], np.int32)], {}),
    "PAD": (lambda x: np.pad(x, ((0, 0), (1, 0), (0, 2), (0, 0))),
            [np.array([[0, 0], [1, 0], [0, 2], [0, 0]], np.int32)], {}),
}  # fmt: skip


@pytest.mark.parametrize("operator", PLAIN)
def test_plain_operators(operator: str) -> None:
    compute, constants, options = PLAIN[operator]
    wanted = compute(MAP)
    data = one_operator(operator, (None, *wanted.shape[1:]), constants, **options)
    np.testing.assert_allclose(run(data, MAP), wanted, atol=1e-5)


def test_concatenation() -> None:
    model = TfliteModel()
    x, y = model.tensor("x", (None, 3), "float32"), model.tensor("y", (None, 6), "float32")
    model.op("CONCATENATION", [x, x], [y])
    values = RNG.standard_normal((2, 3)).astype(np.float32)
    np.testing.assert_array_equal(run(model.to_bytes([x], [y]), values), np.concatenate([values, values], axis=1))


def test_every_operator_is_tested() -> None:
    windowed = {"CONV_2D", "DEPTHWISE_CONV_2D", "AVERAGE_POOL_2D", "MAX_POOL_2D"}
    assert set(OPERATORS) == windowed | set(PLAIN) | {"CONCATENATION", "QUANTIZE", "DEQUANTIZE"}


@pytest.mark.parametrize("operator", ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"])
def test_per_channel_weights(operator: str) -> None:
    """int8 between QUANTIZE and DEQUANTIZE; each channel has its own scale: wrong axes give other numbers."""
    axis = 3 if operator == "DEPTHWISE_CONV_2D" else 0
    shape = {"CONV_2D": (5, 3, 2, 4), "DEPTHWISE_CONV_2D": (1, 3, 2, 4), "FULLY_CONNECTED": (5, 168)}[operator]
    scales = 0.001 * 2.0 ** np.arange(shape[axis])
    q = RNG.integers(-127, 128, shape).astype(np.int8)
    real = (q * scales.reshape([-1 if i == axis else 1 for i in range(len(shape))])).astype(np.float32)
    bias = RNG.integers(-1000, 1000, shape[axis]).astype(np.int32)
    x_q = np.clip(np.rint(MAP / 0.03) + 4, -128, 127)
    x_real = ((x_q - 4) * 0.03).astype(np.float32)
    bias_real = bias * scales * 0.03
    if operator == "FULLY_CONNECTED":
        wanted = x_real.reshape(3, -1) @ real.T + bias_real
    elif operator == "CONV_2D":
        wanted = np.einsum("nhwcij,oijc->nhwo", windows(x_real, (3, 2), (1, 1), "SAME"), real) + bias_real
    else:
        wanted = np.einsum("nhwcij,ijc->nhwc", windows(x_real, (3, 2), (1, 1), "SAME"), real[0]) + bias_real
    step = float(np.abs(wanted).max() / 120)
    model = TfliteModel("per channel")
    x = model.tensor("x", (None, *MAP.shape[1:]), "float32")
    x_int8 = model.tensor("x_int8", (None, *MAP.shape[1:]), "int8", Quantisation.of(0.03, 4))
    w = model.constant("w", q, Quantisation.per_channel(scales, axis))
    b = model.constant("b", bias, Quantisation.per_channel(scales * 0.03, 0))
    y_int8 = model.tensor("y_int8", (None, *wanted.shape[1:]), "int8", Quantisation.of(step, -1))
    y = model.tensor("y", (None, *wanted.shape[1:]), "float32")
    model.op("QUANTIZE", [x], [x_int8])
    model.op(operator, [x_int8, w, b], [y_int8])
    model.op("DEQUANTIZE", [y_int8], [y])
    np.testing.assert_allclose(run(model.to_bytes([x], [y]), MAP), wanted, atol=step * 1.01)


def test_the_same_calls_give_the_same_aligned_bytes() -> None:
    first, second = (one_operator("CONV_2D", (None, 7, 6, 5), [W_CONV, BIAS5]) for _ in range(2))
    assert first == second
    for constant in (W_CONV, BIAS5):
        assert first.index(constant.tobytes()) % 16 == 0


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda m: m.op("CONV_9D", [0], [0]), "found 'CONV_9D', wanted one of CONV_2D"),
        (lambda m: m.op("SOFTMAX", [0], [0], gamma=1), "SOFTMAX: found option 'gamma', wanted one of"),
        (lambda m: m.op("SOFTMAX", [0], [7]), "SOFTMAX: found tensor 7"),
        (lambda m: m.op("AVERAGE_POOL_2D", [0], [0], padding="FULL"), "padding: found 'FULL'"),
        (lambda m: m.tensor("y", (None, 2), "float16"), "y: type: found float16"),
        (lambda m: m.constant("w", np.zeros(3)), "w: type: found float64"),
        (lambda m: m.constant("w", np.zeros((4, 2), np.int8), Quantisation.per_channel([1, 2, 3], 0)), "wanted 4"),
    ],
)
def test_mistakes_are_named(build: Callable[[TfliteModel], Any], says: str) -> None:
    model = TfliteModel()
    model.tensor("x", (None, 4, 4, 2), "float32")
    with pytest.raises(ValueError, match=says.replace("[", r"\[")):
        build(model)
