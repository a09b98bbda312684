"""Folded graph without padding in time -> ONNX that takes new frames only: layers keep their last columns.

The file: `frames` (n, m, n_coeffs) and `state` (n, state_size) -> `scores` (n, m, n_classes), of the patches that end
with each of the frames, and `next_state`. A patch may end at any frame, so layers do not stride in time: those behind a
stride are dilated by it instead.

A state of zeros is a stream that has not begun: scores are those of whole patches once as many frames have come.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kws_models.export_onnx import IR_VERSION, OPSET
from kws_models.graph import Conv, Graph, Linear, MapMean, Node, Relu, Softmax, Weights


@dataclass(frozen=True)
class StepFile:
    """What `step_bytes` made, and what a scorer has to know of it."""

    data: bytes
    state_size: int  # float32 values of a stream


def step_bytes(graph: Graph, weights: Weights) -> StepFile:
    """Raises ValueError for a graph that pads in time or has layers that look at the whole patch."""
    made = _Step(graph, weights)
    return StepFile(made.bytes(), made.state_size)


class _Step:
    """See `step_bytes`."""

    def __init__(self, graph: Graph, weights: Weights) -> None:
        self.graph = graph
        self._apart = 1  # frames from one column of the graph's map to the next
        self._nodes: list[Any] = []
        self._arrays: dict[str, Any] = {name: np.ascontiguousarray(a, np.float32) for name, a in weights.items()}
        self._kept: list[tuple[str, tuple[int, int, int]]] = []  # state of a node: (channels, columns, width)
        self._fed: list[tuple[str, tuple[int, int, int]]] = []
        self._constant("axis1", [1])
        self._constant("axis2", [2])
        self._add("Unsqueeze", ["frames", "axis1"], "input")
        for node in graph.nodes:
            self._layer(node)
        self.state_size = sum(prod(shape) for _, shape in self._kept)

    def bytes(self) -> bytes:
        """The file."""
        nodes = [*self._split(), *self._nodes, *self._join()]
        n_coeffs, n_classes = self.graph.shapes["input"][2], self.graph.shapes[self.graph.nodes[-1].name][0]
        model = helper.make_model(
            helper.make_graph(
                nodes,
                f"{self.graph.name}-step",
                [_value("frames", ["n", "m", n_coeffs]), _value("state", ["n", self.state_size])],
                [_value("scores", ["n", "m", n_classes]), _value("next_state", ["n", self.state_size])],
                [numpy_helper.from_array(self._arrays[name], name) for name in sorted(self._arrays)],
            ),
            opset_imports=[helper.make_opsetid("", OPSET)],
            producer_name="kws-models",
            ir_version=IR_VERSION,
        )
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString(deterministic=True))

    def _layer(self, node: Node) -> None:
        match node:
            case Conv():
                self._conv(node)
            case Relu():
                self._add("Relu", list(node.inputs), node.name)
            case MapMean():
                self._mean(node)
            case Linear():  # over (n, m, channels)
                self._arrays[f"{node.name}.weight"] = np.ascontiguousarray(self._arrays[f"{node.name}.weight"].T)
                self._add("MatMul", [node.inputs[0], f"{node.name}.weight"], f"{node.name}_product")
                self._add("Add", [f"{node.name}_product", f"{node.name}.bias"], node.name)
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

    def _mean(self, node: MapMean) -> None:
        """The mean over width, then over the graph's last columns: (n, m, channels)."""
        channels, columns, _ = self.graph.shapes[node.inputs[0]]
        self._add("ReduceMean", list(node.inputs), f"{node.name}_width", axes=[3], keepdims=1)
        source = self._with_past(node.name, f"{node.name}_width", columns, channels, 1)
        self._arrays[f"{node.name}_shares"] = np.full((channels, 1, columns, 1), 1 / columns, np.float32)
        self._over_time(f"{node.name}_time", [source, f"{node.name}_shares"], (columns, 1), channels, {})
        self._constant("axis3", [3])
        self._add("Squeeze", [f"{node.name}_time", "axis3"], f"{node.name}_columns")
        self._add("Transpose", [f"{node.name}_columns"], node.name, perm=[0, 2, 1])

    def _over_time(
        self, name: str, inputs: list[str], kernel: tuple[int, int], group: int, options: dict[str, Any]
    ) -> None:
        """A convolution at each frame, its columns as far apart as the graph's are."""
        self._add("Conv", inputs, name, kernel_shape=kernel, dilations=[self._apart, 1], group=group, **options)

    def _with_past(self, name: str, source: str, columns: int, channels: int, width: int) -> str:
        """`source` (n, channels, m, width) behind as much as `columns` columns reach back, which is kept."""
        kept = (columns - 1) * self._apart
        if not kept:
            return source
        whole = f"{name}_whole"
        self._fed.append((f"{name}_past", (channels, kept, width)))
        self._add("Concat", [f"{name}_past", source], whole, axis=2)
        self._constant(f"{name}_from", [-kept])
        self._constant("end", [np.iinfo(np.int64).max])
        self._add("Slice", [whole, f"{name}_from", "end", "axis2"], f"{name}_keep")
        self._kept.append((f"{name}_keep", (channels, kept, width)))
        return whole

    def _split(self) -> list[Any]:
        """`state` -> each layer's past."""
        self._constant("sizes", [prod(shape) for _, shape in self._fed])
        parts = [f"{name}_flat" for name, _ in self._fed]
        nodes = [helper.make_node("Split", ["state", "sizes"], parts, name="split", axis=1)]
        for name, shape in self._fed:
            self._constant(f"{name}_shape", [-1, *shape])
            nodes.append(_node("Reshape", [f"{name}_flat", f"{name}_shape"], name))
        return nodes

    def _join(self) -> list[Any]:
        """What is kept -> `next_state`."""
        nodes = [_node("Flatten", [name], f"{name}_flat", axis=1) for name, _ in self._kept]
        return [*nodes, _node("Concat", [f"{name}_flat" for name, _ in self._kept], "next_state", axis=1)]

    def _add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self._nodes.append(_node(operator, inputs, output, **attributes))

    def _constant(self, name: str, values: list[int]) -> None:
        self._arrays[name] = np.array(values, np.int64)


def _node(operator: str, inputs: list[str], output: str, **attributes: Any) -> Any:
    return helper.make_node(operator, inputs, [output], name=output, **attributes)


def _value(name: str, shape: list[Any]) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
