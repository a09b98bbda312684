"""One declarative graph per architecture: data, from which the torch module, `describe`, the quantiser and the
exporters are made. Nothing here knows torch, ONNX or TFLite.

Shapes leave the batch axis out: a map is (channels, height, width), a vector is (channels,). What height and width
mean (time, mel) is the graph's `axes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Shape: TypeAlias = tuple[int, ...]
Pads: TypeAlias = tuple[tuple[int, int], tuple[int, int]]  # ((top, bottom), (left, right))
Weights: TypeAlias = Mapping[str, npt.NDArray[np.float32]]  # "conv1.weight", "conv1.bias", "conv1_norm.mean", ...


@dataclass(frozen=True, slots=True)
class Node:
    """One layer: its output is known by `name`."""

    name: str
    inputs: tuple[str, ...]

    def output_shape(self, shapes: list[Shape]) -> Shape:
        """Shape of the output for the inputs' `shapes`; the first one's unless the layer says otherwise."""
        return shapes[0]

    def weight_shapes(self, shapes: list[Shape]) -> dict[str, Shape]:
        """Trainable arrays by short name, e.g. {"weight": (64, 1, 10, 4)}."""
        return {}


@dataclass(frozen=True, slots=True)
class Conv(Node):
    """2-D convolution, weight (channels, channels_in or 1 if depthwise, kernel height, kernel width)."""

    channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    pads: Pads = ((0, 0), (0, 0))
    depthwise: bool = False
    bias: bool = False

    def output_shape(self, shapes: list[Shape]) -> Shape:
        _, *size = shapes[0]
        out = [
            (length + sum(pad) - kernel) // stride + 1
            for length, pad, kernel, stride in zip(size, self.pads, self.kernel, self.stride, strict=True)
        ]
        return (self.channels, *out)

    def weight_shapes(self, shapes: list[Shape]) -> dict[str, Shape]:
        channels_in = shapes[0][0]
        if self.depthwise and channels_in != self.channels:
            raise ValueError(f"{self.name}: found {self.channels} channels, wanted the input's {channels_in}")
        weight: Shape = (self.channels, 1 if self.depthwise else channels_in, *self.kernel)
        return {"weight": weight} | ({"bias": (self.channels,)} if self.bias else {})


@dataclass(frozen=True, slots=True)
class Linear(Node):
    """Vector (channels_in,) -> (channels,); weight (channels, channels_in)."""

    channels: int
    bias: bool = True

    def output_shape(self, shapes: list[Shape]) -> Shape:
        return (self.channels,)

    def weight_shapes(self, shapes: list[Shape]) -> dict[str, Shape]:
        return {"weight": (self.channels, shapes[0][0])} | ({"bias": (self.channels,)} if self.bias else {})


@dataclass(frozen=True, slots=True)
class BatchNorm(Node):
    """Per channel; beside weight and bias it keeps the untrained `mean` and `variance`."""

    epsilon: float = 1e-5

    def weight_shapes(self, shapes: list[Shape]) -> dict[str, Shape]:
        return {"weight": shapes[0][:1], "bias": shapes[0][:1]}


@dataclass(frozen=True, slots=True)
class Relu(Node):
    """max(x, 0)."""


@dataclass(frozen=True, slots=True)
class Sigmoid(Node):
    """1 / (1 + exp(-x))."""


@dataclass(frozen=True, slots=True)
class Softmax(Node):
    """Over a vector."""


@dataclass(frozen=True, slots=True)
class Add(Node):
    """Sum of two maps of one shape."""


@dataclass(frozen=True, slots=True)
class Scale(Node):
    """A map (channels, height, width) times a vector (channels,)."""


@dataclass(frozen=True, slots=True)
class MapMean(Node):
    """Map -> vector (channels,): the mean over the whole map."""

    def output_shape(self, shapes: list[Shape]) -> Shape:
        return shapes[0][:1]


@dataclass(frozen=True, slots=True)
class WidthMean(Node):
    """Map -> vector (channels * height,): the mean over width, channel by channel."""

    def output_shape(self, shapes: list[Shape]) -> Shape:
        return (shapes[0][0] * shapes[0][1],)


@dataclass(frozen=True, slots=True)
class MaxPool(Node):
    """The largest value of each window; `ceil`: a window that the edge cuts counts too (TensorFlow's SAME)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    ceil: bool = False

    def output_shape(self, shapes: list[Shape]) -> Shape:
        channels, *size = shapes[0]
        rounded = [s - 1 if self.ceil else 0 for s in self.stride]
        out = [(n - k + r) // s + 1 for n, k, s, r in zip(size, self.kernel, self.stride, rounded, strict=True)]
        return (channels, *out)


@dataclass(frozen=True, slots=True)
class Flatten(Node):
    """Map -> vector (channels * height * width,), channel by channel."""

    def output_shape(self, shapes: list[Shape]) -> Shape:
        channels, height, width = shapes[0]
        return (channels * height * width,)


@dataclass(frozen=True)
class Graph:
    """Layers in an order in which each one's inputs come first; the last one is the output."""

    name: str
    axes: Literal["NCTF", "NCFT", "NCT"]  # what (1, height, width) of the input means; NCT: samples, width 1
    input_shape: Shape  # (1, height, width)
    nodes: tuple[Node, ...]
    shapes: dict[str, Shape] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        shapes: dict[str, Shape] = {"input": self.input_shape}
        for node in self.nodes:
            shapes[node.name] = node.output_shape([shapes[name] for name in node.inputs])
        object.__setattr__(self, "shapes", shapes)

    def file_shape(self, name: str) -> Shape:
        """The map's shape as describe and the ONNX file have it: of samples without the width of 1."""
        shape = self.shapes[name]
        return shape[:-1] if self.axes == "NCT" and len(shape) == 3 else shape

    def input_shapes(self, node: Node) -> list[Shape]:
        """Shapes of the node's inputs."""
        return [self.shapes[name] for name in node.inputs]

    def weight_shapes(self, node: Node) -> dict[str, Shape]:
        """The node's trainable arrays."""
        return node.weight_shapes(self.input_shapes(node))

    def readers(self, name: str) -> list[Node]:
        """The nodes that read `name`."""
        return [node for node in self.nodes if name in node.inputs]


def same_pads(size: Shape, kernel: tuple[int, int], stride: tuple[int, int]) -> Pads:
    """TensorFlow's SAME: out = ceil(L / s); total = (out - 1) * s + k - L; left = total // 2."""
    #  L = 5, k = 4, s = 2:  out = 3, total = 2 * 2 + 4 - 5 = 3:  one before, two after
    #      0|x x x x x|0 0
    #      [a a a a]
    #          [b b b b]
    #              [c c c c]
    totals = [max(0, (-(-n // s) - 1) * s + k - n) for n, k, s in zip(size, kernel, stride, strict=True)]
    (top, bottom), (left, right) = ((total // 2, total - total // 2) for total in totals)
    return (top, bottom), (left, right)
