"""int8 TFLite files with random weights, in which every supported operator and edge occurs."""

from __future__ import annotations

from typing import Any

import numpy as np

from kws_models.export.tflite_file import Quantisation, TfliteModel

SHARES = Quantisation.of(1 / 256, -128)


class Growing:
    """A model under way: each method adds a layer to the last map."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int, int]) -> None:
        self.rng, self.model = rng, TfliteModel("random")
        self.scale, self.zero = self.quantisation()
        self.shape = shape
        self.last = self.input = self.map(shape, self.scale, self.zero)

    def quantisation(self) -> tuple[float, int]:
        return float(np.float32(self.rng.uniform(0.01, 0.2))), int(self.rng.integers(-128, 128))

    def map(self, shape: tuple[int, ...], scale: float, zero: int) -> int:
        n = len(self.model._graph.tensors)
        return self.model.tensor(f"m{n}", (1, *shape), "int8", Quantisation.of(scale, zero))

    def constants(self, weights_shape: tuple[int, ...], axis: int, n: int, per_channel: bool = True) -> tuple[int, int]:
        scales = self.rng.uniform(0.001, 0.02, n if per_channel else 1).astype(np.float32)
        weights = self.rng.integers(-127, 128, weights_shape).astype(np.int8)
        bias = self.rng.integers(-5000, 5000, n).astype(np.int32)
        if per_channel:
            of_weights, of_bias = (
                Quantisation.per_channel(scales, axis),
                Quantisation.per_channel(scales * self.scale, 0),
            )
        else:
            of_weights, of_bias = Quantisation.of(scales[0]), Quantisation.of(scales[0] * self.scale)
        return self.model.constant("w", weights, of_weights), self.model.constant("b", bias, of_bias)

    def done(self, output: int, shape: tuple[int, int, int], scale: float, zero: int) -> None:
        self.last, self.shape, self.scale, self.zero = output, shape, scale, zero

    def conv(
        self, out: int, kernel: tuple[int, int], stride: tuple[int, int], padding: str, activation: str | None
    ) -> None:
        weights, bias = self.constants((out, *kernel, self.shape[2]), 0, out)
        self._window("CONV_2D", [weights, bias], out, kernel, stride, padding, activation)

    def depthwise(
        self,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        padding: str,
        activation: str | None,
        multiplier: int = 1,
    ) -> None:
        out = self.shape[2] * multiplier
        weights, bias = self.constants((1, *kernel, out), 3, out)
        more = {"depth_multiplier": multiplier}
        self._window("DEPTHWISE_CONV_2D", [weights, bias], out, kernel, stride, padding, activation, **more)

    def _window(
        self, operator: str, constants: list[int], out: int, kernel: tuple[int, int], stride: tuple[int, int],
        padding: str, activation: str | None, **more: Any,
    ) -> None:  # fmt: skip
        size = [
            -(-n // s) if padding == "SAME" else (n - k) // s + 1
            for n, k, s in zip(self.shape, kernel, stride, strict=False)
        ]
        shape, (scale, zero) = (size[0], size[1], out), self.quantisation()
        output = self.map(shape, scale, zero)
        self.model.op(
            operator, [self.last, *constants], [output], padding=padding, stride=stride, activation=activation, **more
        )
        self.done(output, shape, scale, zero)

    def average_pool(self, kernel: tuple[int, int], stride: tuple[int, int], padding: str) -> None:
        size = [
            -(-n // s) if padding == "SAME" else (n - k) // s + 1
            for n, k, s in zip(self.shape, kernel, stride, strict=False)
        ]
        shape = (size[0], size[1], self.shape[2])
        output = self.map(shape, self.scale, self.zero)
        self.model.op("AVERAGE_POOL_2D", [self.last], [output], padding=padding, stride=stride, size=kernel)
        self.done(output, shape, self.scale, self.zero)

    def padded_conv(self, out: int, pads: tuple[int, int, int, int]) -> None:
        top, bottom, left, right = pads
        shape = (self.shape[0] + top + bottom, self.shape[1] + left + right, self.shape[2])
        padded = self.map(shape, self.scale, self.zero)
        amounts = self.model.constant("p", np.array([(0, 0), (top, bottom), (left, right), (0, 0)], np.int32))
        self.model.op("PAD", [self.last, amounts], [padded])
        self.last, self.shape = padded, shape
        self.conv(out, (3, 3), (2, 2), "VALID", "relu")

    def gate(self) -> None:
        """Squeeze and excite: mean, linear, logistic, multiply; then add to what was."""
        before, shape, scale, zero = self.last, self.shape, self.scale, self.zero
        self.mean((1, 2))
        self.linear(shape[2])
        gate = self.model.tensor(f"g{self.last}", (1, shape[2]), "int8", SHARES)
        self.model.op("LOGISTIC", [self.last], [gate])
        turned = self.model.tensor(f"h{self.last}", (1, 1, 1, shape[2]), "int8", SHARES)
        wanted = self.model.constant("s", np.array([-1, 1, 1, shape[2]], np.int32))
        self.model.op("RESHAPE", [gate, wanted], [turned])
        product_scale, product_zero = self.quantisation()
        product = self.map(shape, product_scale, product_zero)
        self.model.op("MUL", [before, turned], [product])
        sum_scale, sum_zero = self.quantisation()
        total = self.map(shape, sum_scale, sum_zero)
        self.model.op("ADD", [product, before], [total], activation="relu")
        del scale, zero
        self.done(total, shape, sum_scale, sum_zero)

    def mean(self, axes: tuple[int, ...]) -> None:
        shape = tuple(n for i, n in enumerate(self.shape) if i + 1 not in axes)
        scale, zero = self.quantisation()
        output = self.map(shape, scale, zero)
        self.model.op("MEAN", [self.last, self.model.constant("a", np.array(axes, np.int32))], [output])
        self.done(output, (*(1,) * (3 - len(shape)), *shape), scale, zero)

    def linear(self, out: int, activation: str | None = None) -> None:
        n = int(np.prod(self.shape))
        flat = self.model.tensor(f"f{self.last}", (1, n), "int8", Quantisation.of(self.scale, self.zero))
        self.model.op("RESHAPE", [self.last, self.model.constant("s", np.array([-1, n], np.int32))], [flat])
        weights, bias = self.constants((out, n), 0, out, per_channel=False)
        scale, zero = self.quantisation()
        output = self.map((out,), scale, zero)
        self.model.op("FULLY_CONNECTED", [flat, weights, bias], [output], activation=activation)
        self.done(output, (1, 1, out), scale, zero)

    def softmax(self) -> int:
        output = self.model.tensor("scores", (1, self.shape[2]), "int8", SHARES)
        self.model.op("SOFTMAX", [self.last], [output])
        return output


def keyword_like(seed: int) -> tuple[TfliteModel, list[int], list[int]]:
    """A DS-CNN in small, its edges drawn from `seed`."""
    rng = np.random.default_rng(seed)
    growing = Growing(rng, (int(rng.integers(9, 20)), int(rng.integers(7, 12)), int(rng.integers(1, 4))))
    activations: list[str | None] = [None, "relu", "relu6"]
    kernel = (int(rng.integers(1, 6)), int(rng.integers(1, 5)))
    growing.conv(
        int(rng.integers(3, 10)), kernel, (int(rng.integers(1, 3)), 1), str(rng.choice(["SAME", "VALID"])), "relu"
    )
    growing.depthwise(
        (3, 3), (int(rng.integers(1, 3)), 1), "SAME", activations[rng.integers(3)], int(rng.integers(1, 3))
    )
    growing.conv(int(rng.integers(2, 12)), (1, 1), (1, 1), "SAME", activations[rng.integers(3)])
    if rng.random() < 0.5:
        growing.padded_conv(int(rng.integers(2, 9)), (1, 0, 0, 1) if rng.random() < 0.5 else (1, 1, 1, 1))
    if rng.random() < 0.5:
        growing.depthwise((2, 3), (1, 1), "SAME", "relu6")
    if rng.random() < 0.6:
        growing.gate()
    match int(rng.integers(3)):
        case 0:
            growing.average_pool(
                (2, 2), (2, 2), str(rng.choice(["SAME", "VALID"])) if min(growing.shape[:2]) > 1 else "SAME"
            )
        case 1:
            growing.mean((1, 2))
        case _:
            growing.mean((int(rng.integers(1, 3)),))
    growing.linear(int(rng.integers(2, 12)), activations[rng.integers(3)])
    growing.linear(int(rng.integers(2, 12)))
    return growing.model, [growing.input], [growing.softmax()]
