"""What must be known of an ONNX file before a runtime loads it, read from its protobuf without the onnx package.

Two things: that no tensor's data lies in another file (ONNX Runtime would open it, relative to the current folder
even when given bytes), and the scale and zero point where an input or output is an integer tensor, which the file
tells only through the node that reads or writes it. Field numbers: onnx.proto3 of ONNX 1.x.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from kws_serve.backends.protobuf_wire import NotOnnx, decoded, fields, integers, message, text_field, written

MAX_DEPTH = 24
"""Messages within messages: Model, Graph, Node, Attribute, Graph, ..."""

# message -> field number -> message of that field; what is not here holds no tensor
_MESSAGES: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
_TENSOR_TYPES = {1: "<f4", 2: "u1", 3: "i1", 4: "<u2", 5: "<i2", 6: "<i4", 7: "<i8", 10: "<f2", 11: "<f8"}
_MOVES_VALUES = {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten"}
_INPUT_SCALE = {"DequantizeLinear": 1, "QLinearConv": 1, "QLinearMatMul": 1}  # operator -> index of its x_scale
_OUTPUT_SCALE = {"QuantizeLinear": 1, "QLinearConv": 6, "QLinearMatMul": 6, "QLinearSoftmax": 3}  # ... of its y_scale


@dataclass(slots=True)
class Node:
    """A node of the main graph: its operator, the names it reads and writes, and its message."""

    operator: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    data: memoryview = field(default_factory=lambda: memoryview(b""))


class OnnxFile:
    """The nodes of the main graph and where its constants lie. Raises NotOnnx."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.nodes: list[Node] = []
        self._tensors: dict[str, memoryview] = {}
        graphs = [v for number, v in fields(memoryview(data)) if number == 7 and isinstance(v, memoryview)]
        if len(graphs) != 1:
            raise NotOnnx(f"found {len(graphs)} graphs, wanted an ONNX model with one")
        _refuse_external_data(memoryview(data), "Model", 0)
        for number, value in fields(graphs[0]):
            if number == 1:
                self._add_node(message(value))
            elif number == 5:
                self._tensors[text_field(value, 8)] = message(value)

    def input_quantisation(self, name: str) -> tuple[float, int] | None:
        """Scale and zero point of integer input `name`, from the first node that reads its values; or None."""
        for _ in range(MAX_DEPTH):
            node = next((n for n in self.nodes if name in n.inputs[:1]), None)
            if node is None or node.operator not in _MOVES_VALUES or not node.outputs:
                return self._scale_of(node, _INPUT_SCALE)
            name = node.outputs[0]
        return None

    def output_quantisation(self, name: str) -> tuple[float, int] | None:
        """Scale and zero point of integer output `name`, from the node that writes its values; or None."""
        for _ in range(MAX_DEPTH):
            node = next((n for n in self.nodes if name in n.outputs), None)
            if node is None or node.operator not in _MOVES_VALUES or not node.inputs:
                return self._scale_of(node, _OUTPUT_SCALE)
            name = node.inputs[0]
        return None

    def _scale_of(self, node: Node | None, table: dict[str, int]) -> tuple[float, int] | None:
        at = table.get(node.operator) if node else None
        if node is None or at is None or len(node.inputs) <= at:
            return None
        scale = self._constant(node.inputs[at])
        zero_name = node.inputs[at + 1] if len(node.inputs) > at + 1 else ""
        zero_point = self._constant(zero_name) if zero_name else 0.0
        return None if scale is None or zero_point is None else (scale, int(zero_point))

    def _constant(self, name: str) -> float | None:
        """The single value of initialiser or Constant node `name`."""
        values = self.array(name)
        return float(values.item()) if values is not None and values.size == 1 else None

    def array(self, name: str) -> npt.NDArray[Any] | None:
        """Values of initialiser or Constant node `name`; None where there are none of a known type."""
        tensor = self._tensors.get(name)
        if tensor is None:
            return None
        dims: list[int] = []
        listed: list[float] = []  # float_data, int32_data, int64_data; most files have raw_data instead
        raw: memoryview | None = None
        dtype: str | None = None
        try:
            for number, value in fields(tensor):
                if number == 1:
                    dims += integers(value)
                elif number == 2 and isinstance(value, int):
                    dtype = _TENSOR_TYPES.get(value)
                elif number == 4:
                    listed += np.frombuffer(message(value), "<f4").tolist()
                elif number in (5, 7):
                    listed += integers(value)
                elif number == 9:
                    raw = message(value)
            if dtype is None:
                return None
            return (np.array(listed, dtype) if raw is None else np.frombuffer(raw, dtype)).reshape(dims)
        except (ValueError, OverflowError):  # as many values as the dimensions say, within the type
            return None

    def with_weights_of(self, other: OnnxFile) -> bytes:
        """This file's bytes and those initialisers of `other` that nodes here read and nothing here has."""
        # Protobuf: two messages of one type end to end are one whose repeated fields go on. So a second graph field
        # (7) that holds nothing but initialisers (5) adds them to the first.
        read = {name for node in self.nodes for name in node.inputs} - set(self._tensors)
        lent = b"".join(
            written(5, tensor)
            for name, tensor in other._tensors.items()
            if name in read and text_field(tensor, 8) == name  # a Constant node's tensor may have no name
        )
        return self.data + written(7, lent) if lent else self.data

    def _add_node(self, data: memoryview) -> None:
        node = Node(text_field(data, 4), data=data)
        for number, value in fields(data):
            if number == 1:
                node.inputs.append(decoded(value))
            elif number == 2:
                node.outputs.append(decoded(value))
            elif number == 5 and text_field(value, 1) == "value":
                tensor = next((v for n, v in fields(message(value)) if n == 5), None)
                if tensor is not None and len(node.outputs) == 1 and text_field(data, 4) == "Constant":
                    self._tensors[node.outputs[0]] = message(tensor)
        self.nodes.append(node)


def _refuse_external_data(data: memoryview, kind: str, depth: int) -> None:
    """Every tensor's data is in this file."""
    if depth > MAX_DEPTH:
        raise NotOnnx(f"found messages nested deeper than {MAX_DEPTH}, wanted a plain model")
    inner = _MESSAGES[kind]
    for number, value in fields(data):
        if kind == "Tensor" and (number == 13 or (number == 14 and value != 0)):
            raise NotOnnx(
                f"found external data of tensor {text_field(data, 8)[:80]!r}, wanted all data inside the file"
            )
        if number in inner:
            _refuse_external_data(message(value), inner[number], depth + 1)
