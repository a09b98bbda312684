"""Graph without batch normalisation -> TFLite, float32 or int8. Maps are (n, time, frequency, channels): axes NTFC.

A ReLU is fused into the convolution, linear layer or sum before it. A graph whose height is mel (NCFT) is turned: its
kernels are transposed, so that time comes first in the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kws_models.export.tflite_file import Quantisation, TfliteModel
from kws_models.zoo.graph import (
    Add,
    Conv,
    Flatten,
    Graph,
    Linear,
    MapMean,
    MaxPool,
    Node,
    Pads,
    Relu,
    Scale,
    Sigmoid,
    Softmax,
    Weights,
    WidthMean,
    same_pads,
)

Ranges = dict[str, tuple[float, float]]  # of each map: least and greatest value to represent
_SHARES = Quantisation.of(1 / 256, -128)  # softmax and logistic outputs: TFLite fixes these


@dataclass
class _Writer:
    """The file under way: the tensor of each map by name."""

    graph: Graph
    weights: Weights
    ranges: Ranges | None  # None: float32
    model: TfliteModel
    tensors: dict[str, int]
    quantisations: dict[str, Quantisation]
    float_maps: frozenset[str] = frozenset()  # of an int8 file: maps that stay float32

    @property
    def turned(self) -> bool:
        return self.graph.axes == "NCFT"

    def map_shape(self, name: str) -> tuple[int | None, ...]:
        shape = self.graph.shapes[name]
        if len(shape) == 1:
            return (None, shape[0])
        channels, height, width = shape
        return (None, width, height, channels) if self.turned else (None, height, width, channels)

    def add_map(self, name: str, shape: tuple[int | None, ...], quantisation: Quantisation | None) -> int:
        integer = self.ranges is not None and name not in self.float_maps
        dtype = "int8" if integer else "float32"
        self.tensors[name] = self.model.tensor(name, shape, dtype, quantisation if integer else None)
        if integer and quantisation is not None:
            self.quantisations[name] = quantisation
        return self.tensors[name]

    def output(self, node: Node, name: str) -> int:
        """The tensor of the map that `node` (with a fused ReLU: `name`) makes."""
        quantisation = None
        if self.ranges is not None:
            fixed = isinstance(node, Softmax | Sigmoid)
            quantisation = _SHARES if fixed else quantisation_of(*self.ranges[name])
        return self.add_map(name, self.map_shape(name), quantisation)


def tflite_bytes(graph: Graph, weights: Weights, ranges: Ranges | None = None) -> bytes:
    """The file; int8 where `ranges` gives every map's range ("input" and each node), else float32."""
    kept = float_maps(graph) if ranges else frozenset()
    writer = _Writer(graph, weights, ranges, TfliteModel(graph.name), {}, {}, kept)
    writer.add_map("input", writer.map_shape("input"), quantisation_of(*ranges["input"]) if ranges else None)
    fused = fused_relus(graph)
    for node in graph.nodes:
        if isinstance(node, Relu) and node.name in fused.values():
            continue
        name = fused.get(node.name, node.name)
        _write(writer, node, name, "relu" if name != node.name else None)
        if name in kept:
            _quantised(writer, name)
    return writer.model.to_bytes([writer.tensors["input"]], [writer.tensors[graph.nodes[-1].name]])


def float_maps(graph: Graph) -> frozenset[str]:
    """Raw samples and the first convolution stay float32: eight bits of a waveform lose quiet speech."""
    if graph.axes != "NCT":
        return frozenset()
    first = graph.nodes[0].name
    return frozenset({"input", fused_relus(graph).get(first, first)})


def _quantised(writer: _Writer, name: str) -> None:
    """The float map again as int8, which the layers after it read."""
    source, shape = writer.tensors[name], writer.map_shape(name)
    assert writer.ranges is not None
    quantisation = quantisation_of(*writer.ranges[name])
    writer.quantisations[name] = quantisation
    writer.tensors[name] = writer.model.tensor(f"{name}_int8", shape, "int8", quantisation)
    writer.model.op("QUANTIZE", [source], [writer.tensors[name]])


def fused_relus(graph: Graph) -> dict[str, str]:
    """Node -> the ReLU that alone reads it, for the layers that TFLite fuses one into."""
    fused = {}
    for node in graph.nodes:
        readers = graph.readers(node.name)
        if isinstance(node, Conv | Linear | Add) and len(readers) == 1 and isinstance(readers[0], Relu):
            fused[node.name] = readers[0].name
    return fused


def quantisation_of(low: float, high: float) -> Quantisation:
    """int8 over [low, high] widened to hold 0, which is then represented exactly.

    A map that hardly varies (a unit that never fires) gets a range that runtimes can still divide by.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32(max(high - low, 1e-2) / 255.0))
    return Quantisation.of(scale, int(np.clip(round(-128 - low / scale), -128, 127)))


def _write(writer: _Writer, node: Node, name: str, activation: str | None) -> None:
    inputs = [writer.tensors[i] for i in node.inputs]
    model = writer.model
    match node:
        case Conv():
            _write_conv(writer, node, name, activation)
        case Linear():
            weight, bias = _linear_constants(writer, node)
            model.op("FULLY_CONNECTED", [inputs[0], weight, bias], [writer.output(node, name)], activation=activation)
        case Relu():
            model.op("RELU", inputs, [writer.output(node, name)])
        case Sigmoid():
            model.op("LOGISTIC", inputs, [writer.output(node, name)])
        case Softmax():
            model.op("SOFTMAX", inputs, [writer.output(node, name)])
        case Add():
            model.op("ADD", inputs, [writer.output(node, name)], activation=activation)
        case Scale():
            gate = _reshaped(writer, node.inputs[1], f"{name}_gate_map", (None, 1, 1, writer.graph.shapes[name][0]))
            model.op("MUL", [inputs[0], gate], [writer.output(node, name)])
        case MapMean():
            axes = model.constant(f"{name}_axes", np.array([1, 2], np.int32))
            model.op("MEAN", [inputs[0], axes], [writer.output(node, name)])
        case WidthMean():
            _write_width_mean(writer, node, inputs[0])
        case MaxPool():
            _write_max_pool(writer, node)
        case Flatten():
            _reshaped(writer, node.inputs[0], name, writer.map_shape(name))
        case _:
            raise ValueError(
                f"{name}: no TFLite operator for {type(node).__name__}, wanted a graph without batch normalisation"
            )


def _write_conv(writer: _Writer, node: Conv, name: str, activation: str | None) -> None:
    _, height, width = writer.graph.input_shapes(node)[0]
    size, kernel, stride, pads = (height, width), node.kernel, node.stride, node.pads
    weight = np.asarray(writer.weights[f"{node.name}.weight"])  # (out, in, height, width)
    if writer.turned:
        size, kernel, stride, pads = size[::-1], kernel[::-1], stride[::-1], pads[::-1]
        weight = weight.transpose(0, 1, 3, 2)
    source, padding = _padded(writer, node, size, kernel, stride, pads)
    weight = weight.transpose(1, 2, 3, 0) if node.depthwise else weight.transpose(0, 2, 3, 1)
    weight_tensor, bias_tensor = _constants(writer, node, weight, channel_axis=3 if node.depthwise else 0)
    operator = "DEPTHWISE_CONV_2D" if node.depthwise else "CONV_2D"
    inputs, outputs = [source, weight_tensor, bias_tensor], [writer.output(node, name)]
    writer.model.op(operator, inputs, outputs, padding=padding, stride=stride, activation=activation)


def _padded(
    writer: _Writer, node: Conv, size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], pads: Pads
) -> tuple[int, str]:
    """The convolution's input and TFLite's padding; where neither SAME nor VALID fits, a PAD before it."""
    source = node.inputs[0]
    if pads == ((0, 0), (0, 0)):
        return writer.tensors[source], "VALID"
    if pads == same_pads(size, kernel, stride):
        return writer.tensors[source], "SAME"
    shape = tuple(n + sum(pad) for n, pad in zip(size, pads, strict=True))
    channels = writer.graph.shapes[source][0]
    padded = writer.add_map(f"{node.name}_padded", (None, *shape, channels), writer.quantisations.get(source))
    amounts = writer.model.constant(f"{node.name}_pads", np.array([(0, 0), *pads, (0, 0)], np.int32))
    writer.model.op("PAD", [writer.tensors[source], amounts], [padded])
    return padded, "VALID"


def _write_max_pool(writer: _Writer, node: MaxPool) -> None:
    """VALID; in ceil mode after a PAD at the far ends, for TensorFlow's SAME would share it between both ends.

    What is padded is 0, which cannot win: pools read what a ReLU gives.
    """
    source = node.inputs[0]
    channels, *size = writer.graph.shapes[source]
    _, *out = writer.graph.shapes[node.name]
    ends = [max(0, (n - 1) * s + k - size_) for n, s, k, size_ in zip(out, node.stride, node.kernel, size, strict=True)]
    tensor = writer.tensors[source]
    if any(ends):
        shape = (None, *(n + end for n, end in zip(size, ends, strict=True)), channels)
        padded = writer.add_map(f"{node.name}_padded", shape, writer.quantisations.get(source))
        pads = np.array([(0, 0), (0, ends[0]), (0, ends[1]), (0, 0)], np.int32)
        writer.model.op("PAD", [tensor, writer.model.constant(f"{node.name}_pads", pads)], [padded])
        tensor = padded
    output = writer.add_map(node.name, writer.map_shape(node.name), writer.quantisations.get(source))
    writer.model.op("MAX_POOL_2D", [tensor], [output], padding="VALID", stride=node.stride, size=node.kernel)


def _linear_constants(writer: _Writer, node: Linear) -> tuple[int, int]:
    """One scale for the whole weight matrix: older runtimes know no other for FULLY_CONNECTED."""
    weight = np.asarray(writer.weights[f"{node.name}.weight"])
    source = next((n for n in writer.graph.nodes if n.name == node.inputs[0]), None)
    if isinstance(source, Flatten):  # the file's vector is (height, width, channels), the graph's channels first
        channels, *_ = shape = writer.graph.input_shapes(source)[0]
        weight = weight.reshape(-1, *shape).transpose(0, 2, 3, 1).reshape(len(weight), -1)
    if isinstance(source, WidthMean):  # the file's vector is (height, channels), the graph's (channels, height)
        channels, height, _ = writer.graph.input_shapes(source)[0]
        weight = weight.reshape(-1, channels, height).transpose(0, 2, 1).reshape(len(weight), -1)
    return _constants(writer, node, weight, channel_axis=None)


def _constants(writer: _Writer, node: Conv | Linear, weight: Any, channel_axis: int | None) -> tuple[int, int]:
    """Weight (int8, symmetric) and bias (int32, scale = input x weight), or both float32."""
    name, model = node.name, writer.model
    bias = np.asarray(writer.weights.get(f"{name}.bias", np.zeros(node.channels, np.float32)))
    if node.inputs[0] not in writer.quantisations:
        return model.constant(f"{name}.weight", weight.astype(np.float32)), model.constant(f"{name}.bias", bias)
    axes = None if channel_axis is None else tuple(a for a in range(weight.ndim) if a != channel_axis)
    scale = np.maximum(np.abs(weight).max(axis=axes, keepdims=True) / 127.0, 1e-9).astype(np.float32)
    quantised = np.clip(np.rint(weight / scale), -127, 127).astype(np.int8)
    bias_scale = np.float64(writer.quantisations[node.inputs[0]].scales[0]) * scale.ravel().astype(np.float64)
    limit = 2**31 - 1
    quantised_bias = np.clip(np.rint(bias / bias_scale), -limit, limit).astype(np.int32)
    if channel_axis is None:
        of_weight, of_bias = Quantisation.of(float(scale.ravel()[0])), Quantisation.of(float(bias_scale[0]))
    else:
        of_weight = Quantisation.per_channel(scale, channel_axis)
        of_bias = Quantisation.per_channel(bias_scale, 0)
    return (
        model.constant(f"{name}.weight", quantised, of_weight),
        model.constant(f"{name}.bias", quantised_bias, of_bias),
    )


def _write_width_mean(writer: _Writer, node: WidthMean, source: int) -> None:
    """Mean over time, which is axis 1 of a turned map and axis 2 of another, then (height, channels) as one vector."""
    channels, height, _ = writer.graph.input_shapes(node)[0]
    quantisation = quantisation_of(*writer.ranges[node.name]) if writer.ranges else None
    mean = f"{node.name}_mean"
    tensor = writer.add_map(mean, (None, height, channels), quantisation)
    axes = writer.model.constant(f"{node.name}_axes", np.array([1 if writer.turned else 2], np.int32))
    writer.model.op("MEAN", [source, axes], [tensor])
    _reshaped(writer, mean, node.name, (None, height * channels))


def _reshaped(writer: _Writer, source: str, name: str, shape: tuple[int | None, ...]) -> int:
    tensor = writer.add_map(name, shape, writer.quantisations.get(source))
    wanted = writer.model.constant(f"{name}_shape", np.array([-1 if d is None else d for d in shape], np.int32))
    writer.model.op("RESHAPE", [writer.tensors[source], wanted], [tensor])
    return tensor
