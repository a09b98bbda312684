"""Graph without batch normalisation -> TFLite, float32 or int8. Maps are (n, time, frequency, channels): axes NTFC.

A ReLU is fused into the convolution, linear layer or sum before it. A graph whose height is mel (NCFT) is turned: its
kernels are transposed, so that time comes first in the file (tflite_maps.py has the picture).
"""

from __future__ import annotations

import numpy as np

from kws_models.export.integer_maps import Ranges, float_maps, fused_relus, quantisation_of
from kws_models.export.tflite_file import TfliteModel
from kws_models.export.tflite_maps import Writer
from kws_models.export.tflite_weights import constants, linear_constants
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


def tflite_bytes(graph: Graph, weights: Weights, ranges: Ranges | None = None) -> bytes:
    """The file; int8 where `ranges` gives every map's range ("input" and each node), else float32."""
    kept = float_maps(graph) if ranges else frozenset()
    writer = Writer(graph, weights, ranges, TfliteModel(graph.name), {}, {}, kept)
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


def _quantised(writer: Writer, name: str) -> None:
    """The float map again as int8, which the layers after it read."""
    source, shape = writer.tensors[name], writer.map_shape(name)
    assert writer.ranges is not None
    quantisation = quantisation_of(*writer.ranges[name])
    writer.quantisations[name] = quantisation
    writer.tensors[name] = writer.model.tensor(f"{name}_int8", shape, "int8", quantisation)
    writer.model.op("QUANTIZE", [source], [writer.tensors[name]])


def _write(writer: Writer, node: Node, name: str, activation: str | None) -> None:
    inputs = [writer.tensors[i] for i in node.inputs]
    model = writer.model
    match node:
        case Conv():
            _write_conv(writer, node, name, activation)
        case Linear():
            weight, bias = linear_constants(writer, node)
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
            gate = writer.reshaped(node.inputs[1], f"{name}_gate_map", (None, 1, 1, writer.graph.shapes[name][0]))
            model.op("MUL", [inputs[0], gate], [writer.output(node, name)])
        case MapMean():
            axes = model.constant(f"{name}_axes", np.array([1, 2], np.int32))
            model.op("MEAN", [inputs[0], axes], [writer.output(node, name)])
        case WidthMean():
            _write_width_mean(writer, node, inputs[0])
        case MaxPool():
            _write_max_pool(writer, node)
        case Flatten():
            writer.reshaped(node.inputs[0], name, writer.map_shape(name))
        case _:
            raise ValueError(
                f"{name}: no TFLite operator for {type(node).__name__}, wanted a graph without batch normalisation"
            )


def _write_conv(writer: Writer, node: Conv, name: str, activation: str | None) -> None:
    """A convolution; height and width of everything about it change places where the graph is turned."""
    # weight: graph (out, in, height, width); depthwise: in = 1
    #   CONV_2D            (out, height, width, in)
    #   DEPTHWISE_CONV_2D  (1, height, width, out)
    _, height, width = writer.graph.input_shapes(node)[0]
    size, kernel, stride, pads = (height, width), node.kernel, node.stride, node.pads
    weight = np.asarray(writer.weights[f"{node.name}.weight"])  # (out, in, height, width)
    if writer.turned:
        size, kernel, stride, pads = size[::-1], kernel[::-1], stride[::-1], pads[::-1]
        weight = weight.transpose(0, 1, 3, 2)
    source, padding = _padded(writer, node, size, kernel, stride, pads)
    weight = weight.transpose(1, 2, 3, 0) if node.depthwise else weight.transpose(0, 2, 3, 1)
    weight_tensor, bias_tensor = constants(writer, node, weight, channel_axis=3 if node.depthwise else 0)
    operator = "DEPTHWISE_CONV_2D" if node.depthwise else "CONV_2D"
    inputs, outputs = [source, weight_tensor, bias_tensor], [writer.output(node, name)]
    writer.model.op(operator, inputs, outputs, padding=padding, stride=stride, activation=activation)


def _padded(
    writer: Writer, node: Conv, size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], pads: Pads
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


def _write_max_pool(writer: Writer, node: MaxPool) -> None:
    """VALID; in ceil mode after a PAD at the far ends, for TensorFlow's SAME would share it between both ends.

    What is padded is 0, which cannot win: pools read what a ReLU gives.
    """
    # in ceil mode the last window may reach beyond the map: by what `ends` gives, along height and width
    #     |. . . . .|        5 values, kernel 2, stride 2
    #     |a a b b c|c       3 windows end at (3 - 1) * 2 + 2 = 6: one value more
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


def _write_width_mean(writer: Writer, node: WidthMean, source: int) -> None:
    """Mean over time, which is axis 1 of a turned map and axis 2 of another, then (height, channels) as one vector."""
    channels, height, _ = writer.graph.input_shapes(node)[0]
    quantisation = quantisation_of(*writer.ranges[node.name]) if writer.ranges else None
    mean = f"{node.name}_mean"
    tensor = writer.add_map(mean, (None, height, channels), quantisation)
    axes = writer.model.constant(f"{node.name}_axes", np.array([1 if writer.turned else 2], np.int32))
    writer.model.op("MEAN", [source, axes], [tensor])
    writer.reshaped(mean, node.name, (None, height * channels))
