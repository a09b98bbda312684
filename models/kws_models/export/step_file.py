"""Graph without batch normalisation or padding in time -> ONNX of new frames only: layers keep their last columns.

The file: `frames` (n, m, n_coeffs) and, for each layer that looks back, `LAYER_past` (n, ...) -> `scores` (n, m,
n_classes), of the patches that end with each of the frames, and `LAYER_next`, the past of the call to come. A patch may
end at any frame, so layers do not stride in time: those behind a stride are dilated by it instead. The mean over time
and the linear layer behind it change places, so that what is kept for the mean is a score a class and frame.

A past of zeros is a stream that has not begun: scores are those of whole patches once as many frames have come.

Weights that both files would hold are in the whole-patch file alone, by the same names; the service lends them to this
one. For ONNX Runtime by itself, `whole=True` writes them here too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kws_models.export.onnx_file import IR_VERSION, OPSET
from kws_models.zoo.graph import Conv, Graph, Linear, MapMean, Node, Relu, Softmax, Weights
from kws_serve.backends.onnx_step import NEXT, PAST

_LANES = 16  # channels that ONNX Runtime computes at once; of fewer it makes slower work


def step_bytes(graph: Graph, weights: Weights, *, whole: bool = False) -> bytes:
    """The file; raises ValueError for a graph that pads in time or has layers that look at the whole patch.

    `whole`: with the weights that the whole-patch file has as well.
    """
    made = _Step(graph, weights).model()
    if not whole:
        kept = [tensor for tensor in made.graph.initializer if tensor.name not in weights]
        del made.graph.initializer[:]
        made.graph.initializer.extend(kept)
    return bytes(made.SerializeToString(deterministic=True))


class _Step:
    """The file under way. Layers do not stride in time; those behind a stride are dilated by it instead.

    Columns of a map that lie `apart` frames from each other in the whole patch, here at every frame (apart = 2):

        whole patch, stride 2      c0    c1    c2    c3          one column each 2 frames
        each frame              .  c0 .  c1 .  c2 .  c3          what ends at any frame; kernel 3 reads every 2nd:
                                         ^     ^     ^           (kernel - 1) * apart frames back are kept
    """

    def __init__(self, graph: Graph, weights: Weights) -> None:
        self.graph = graph
        self._apart = 1  # frames from one column of the graph's map to the next
        self._nodes: list[Any] = []
        self._arrays: dict[str, Any] = {name: np.ascontiguousarray(a, np.float32) for name, a in weights.items()}
        self._kept: dict[str, tuple[int, int, int]] = {}  # of a layer: (channels, columns, width)
        self._mean: MapMean | None = None
        self._constant("axis1", [1])
        self._constant("axis2", [2])
        self._add("Unsqueeze", ["frames", "axis1"], "input")
        for node in graph.nodes:
            self._layer(node)

    def model(self) -> Any:
        """The file's message, with all weights: checked."""
        n_coeffs, n_classes = self.graph.shapes["input"][2], self.graph.shapes[self.graph.nodes[-1].name][0]
        model = helper.make_model(
            helper.make_graph(
                self._nodes,
                f"{self.graph.name}-step",
                [_value("frames", ["n", "m", n_coeffs]), *self._values(PAST)],
                [_value("scores", ["n", "m", n_classes]), *self._values(NEXT)],
                [numpy_helper.from_array(self._arrays[name], name) for name in sorted(self._arrays)],
            ),
            opset_imports=[helper.make_opsetid("", OPSET)],
            producer_name="kws-models",
            ir_version=IR_VERSION,
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    def _layer(self, node: Node) -> None:
        match node:
            case Conv():
                self._conv(node)
            case Relu():
                self._add("Relu", list(node.inputs), node.name)
            case MapMean():
                self._mean = node
            case Linear() if self._mean is not None and node.inputs == (self._mean.name,):
                self._mean_of_linear(self._mean, node)
            case Softmax():
                self._add("Softmax", list(node.inputs), "scores", axis=-1)
            case _:
                raise ValueError(f"{node.name}: found {type(node).__name__}, wanted a layer that can go on in time")

    def _conv(self, node: Conv) -> None:
        """Over the columns that it keeps and the new ones."""
        (top, bottom), (left, right) = node.pads
        if top or bottom:
            raise ValueError(f"{node.name}: found padding in time {top, bottom}, wanted none")
        channels, _, width = self.graph.shapes[node.inputs[0]]
        source = self._with_past(node.name, node.inputs[0], node.kernel[0], channels, width)
        named = [f"{node.name}.{short}" for short in self.graph.weight_shapes(node)]
        in_frequency = {"pads": [0, left, 0, right], "strides": [1, node.stride[1]]}
        self._over_time(node.name, [source, *named], node.kernel, node.channels if node.depthwise else 1, in_frequency)
        self._apart *= node.stride[0]

    def _mean_of_linear(self, mean: MapMean, linear: Linear) -> None:
        """The linear layer at each frame, its mean over the graph's last columns: (n, m, n_classes)."""
        # Mean and linear layer change places, for both are linear. With W (n_classes, channels):
        #     W @ mean(map) + b  =  sum over columns of (1 / columns) * [W / width over the column's whole width]  +  b
        # The bracket is a convolution as wide as the map, at each frame: `each` (n, lanes, m, 1); the sum over the last
        # `columns` of it a depthwise one with equal weights. Lanes beyond n_classes are zeros, cut off at the end.
        channels, columns, width = self.graph.shapes[mean.inputs[0]]
        n_classes = linear.channels
        lanes = -(-n_classes // _LANES) * _LANES
        weight = np.zeros((lanes, channels, 1, width), np.float32)
        weight[:n_classes] = self._arrays.pop(f"{linear.name}.weight")[:, :, None, None] / width
        bias = np.zeros(lanes, np.float32)
        bias[:n_classes] = self._arrays.pop(f"{linear.name}.bias")
        shares = np.full((lanes, 1, columns, 1), 1 / columns, np.float32)
        self._arrays |= {f"{linear.name}_weight": weight, f"{linear.name}_bias": bias, f"{mean.name}_shares": shares}
        self._add("Conv", [mean.inputs[0], f"{linear.name}_weight"], f"{linear.name}_each", kernel_shape=[1, width])
        source = self._with_past(mean.name, f"{linear.name}_each", columns, lanes, 1)
        self._over_time(
            f"{mean.name}_all", [source, f"{mean.name}_shares", f"{linear.name}_bias"], (columns, 1), lanes, {}
        )
        self._constant("axis3", [3])
        self._add("Squeeze", [f"{mean.name}_all", "axis3"], f"{mean.name}_columns")
        self._constant("begin", [0])
        self._constant("classes", [n_classes])
        self._add("Slice", [f"{mean.name}_columns", "begin", "classes", "axis1"], f"{mean.name}_classes")
        self._add("Transpose", [f"{mean.name}_classes"], linear.name, perm=[0, 2, 1])

    def _over_time(
        self, name: str, inputs: list[str], kernel: tuple[int, int], group: int, options: dict[str, Any]
    ) -> None:
        """A convolution at each frame, its columns as far apart as the graph's are."""
        self._add("Conv", inputs, name, kernel_shape=kernel, dilations=[self._apart, 1], group=group, **options)

    def _with_past(self, name: str, source: str, columns: int, channels: int, width: int) -> str:
        """`source` (n, channels, m, width) behind as much as `columns` columns reach back, which is kept."""
        # past (n, channels, kept, width) | new (n, channels, m, width)      `whole`, along axis 2
        #       last `kept` columns of the whole: next
        kept = (columns - 1) * self._apart
        if not kept:
            return source
        whole = f"{name}_whole"
        self._kept[name] = channels, kept, width
        self._add("Concat", [name + PAST, source], whole, axis=2)
        self._constant(f"{name}_from", [-kept])
        self._constant("end", [np.iinfo(np.int64).max])
        self._add("Slice", [whole, f"{name}_from", "end", "axis2"], name + NEXT)
        return whole

    def _values(self, ending: str) -> list[Any]:
        return [_value(name + ending, ["n", *shape]) for name, shape in self._kept.items()]

    def _add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self._nodes.append(_node(operator, inputs, output, **attributes))

    def _constant(self, name: str, values: list[int]) -> None:
        self._arrays[name] = np.array(values, np.int64)


def _node(operator: str, inputs: list[str], output: str, **attributes: Any) -> Any:
    return helper.make_node(operator, inputs, [output], name=output, **attributes)


def _value(name: str, shape: list[Any]) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
