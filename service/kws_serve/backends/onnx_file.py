"""What must be known of an ONNX file before a runtime loads it, read from its protobuf without the onnx package.

Two things: that no tensor's data lies in another file (ONNX Runtime would open it, relative to the current folder
even when given bytes), and the scale and zero point where an input or output is an integer tensor, which the file
tells only through the node that reads or writes it. Field numbers: onnx.proto3 of ONNX 1.x.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

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

Value = int | memoryview


class NotOnnx(ValueError):
    """The bytes are not an ONNX model, or one that a service does not load."""


@dataclass(slots=True)
class Node:
    """A node of the main graph: its operator and the names it reads and writes."""

    operator: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)


class OnnxFile:
    """The nodes of the main graph and where its constants lie. Raises NotOnnx."""

    def __init__(self, data: bytes) -> None:
        self.nodes: list[Node] = []
        self._tensors: dict[str, memoryview] = {}
        graphs = [v for number, v in _fields(memoryview(data)) if number == 7 and isinstance(v, memoryview)]
        if len(graphs) != 1:
            raise NotOnnx(f"found {len(graphs)} graphs, wanted an ONNX model with one")
        _refuse_external_data(memoryview(data), "Model", 0)
        for number, value in _fields(graphs[0]):
            if number == 1:
                self._add_node(_message(value))
            elif number == 5:
                self._tensors[_text(value, 8)] = _message(value)

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
        tensor = self._tensors.get(name)
        if tensor is None:
            return None
        code = next((v for n, v in _fields(tensor) if n == 2 and isinstance(v, int)), 0)
        raw = next((bytes(v) for n, v in _fields(tensor) if n == 9 and isinstance(v, memoryview)), None)
        dtype = _TENSOR_TYPES.get(code)
        if raw is not None and dtype and len(raw) == np.dtype(dtype).itemsize:
            return float(np.frombuffer(raw, dtype)[0])
        for number, value in _fields(tensor):  # not raw: float_data packed or alone, int32_data packed or alone
            if number == 4:
                floats = np.frombuffer(_message(value), "<f4")
                return float(floats[0]) if len(floats) == 1 else None
            if number == 5:
                whole = value if isinstance(value, int) else _varint(value, 0)[0]
                return float(whole - (1 << 64) if whole >> 63 else whole)
        return None

    def _add_node(self, data: memoryview) -> None:
        node = Node(_text(data, 4))
        for number, value in _fields(data):
            if number == 1:
                node.inputs.append(_decoded(value))
            elif number == 2:
                node.outputs.append(_decoded(value))
            elif number == 5 and _text(value, 1) == "value":
                tensor = next((v for n, v in _fields(_message(value)) if n == 5), None)
                if tensor is not None and len(node.outputs) == 1 and _text(data, 4) == "Constant":
                    self._tensors[node.outputs[0]] = _message(tensor)
        self.nodes.append(node)


def _refuse_external_data(data: memoryview, kind: str, depth: int) -> None:
    """Every tensor's data is in this file."""
    if depth > MAX_DEPTH:
        raise NotOnnx(f"found messages nested deeper than {MAX_DEPTH}, wanted a plain model")
    inner = _MESSAGES[kind]
    for number, value in _fields(data):
        if kind == "Tensor" and (number == 13 or (number == 14 and value == 1)):
            raise NotOnnx(f"found external data of tensor {_text(data, 8)[:80]!r}, wanted all data inside the file")
        if number in inner:
            _refuse_external_data(_message(value), inner[number], depth + 1)


def _fields(data: memoryview) -> Iterator[tuple[int, Value]]:
    """Field numbers and values of a protobuf message: int for varints, bytes for everything else."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise NotOnnx(f"found wire type {wire} at byte {at}, wanted an ONNX model")
        if size > end - at:
            raise NotOnnx("found a file cut short or no ONNX model, wanted a whole ONNX model")
        yield tag >> 3, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """The integer at `at` and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise NotOnnx("found a file cut short or no ONNX model, wanted a whole ONNX model")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise NotOnnx(f"found no varint at byte {at}, wanted an ONNX model")


def _message(value: Value) -> memoryview:
    if isinstance(value, int):
        raise NotOnnx("found a number where a message is due, wanted an ONNX model")
    return value


def _decoded(value: Value) -> str:
    return bytes(_message(value)).decode("utf-8", "replace")


def _text(data: Value, number: int) -> str:
    """Text field `number` of a message; empty where it has none."""
    return next((_decoded(v) for n, v in _fields(_message(data)) if n == number), "")
