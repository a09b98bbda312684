"""A TFLite file being read: its tensors and constants, checked, and the integer model under way."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kws_board.errors import BoardError
from kws_board.integer_model import Layer, Map


@dataclass
class Reading:
    """The file, what has been made of it, and what it holds that a board cannot run."""

    schema: Any
    file: Any
    graph: Any
    name: str
    maps: list[Map] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    map_of: dict[int, int] = field(default_factory=dict)  # tensor -> map
    pads: dict[int, tuple[int, tuple[int, ...]]] = field(default_factory=dict)  # padded tensor -> source, amounts
    faults: list[str] = field(default_factory=list)
    where: str = ""

    def operator(self, op: Any) -> str:
        code = self.file.operatorCodes[op.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        names: dict[int, str] = {v: k for k, v in vars(self.schema.BuiltinOperator).items() if isinstance(v, int)}
        return names.get(number, f"operator {number}")

    def tensor(self, index: int) -> Any:
        if index < 0:
            raise BoardError(f"{self.name}: {self.where}: found a missing input, wanted one")
        return self.graph.tensors[index]

    def type_name(self, tensor: Any) -> str:
        names: dict[int, str] = {v: k for k, v in vars(self.schema.TensorType).items() if isinstance(v, int)}
        return names.get(tensor.type, str(tensor.type))

    def values(self, index: int, dtype: Any) -> Any:
        """A constant's values. Raises BoardError where it is none or of another type."""
        tensor = self.tensor(index)
        wanted = {np.int8: "INT8", np.int32: "INT32"}[dtype]
        data = self.file.buffers[tensor.buffer].data
        if data is None or self.type_name(tensor) != wanted:
            found = "no constant" if data is None else self.type_name(tensor)
            raise BoardError(f"{self.name}: {self.where}: found {found}, wanted constant {wanted}")
        shape = () if tensor.shape is None else tuple(int(d) for d in tensor.shape)
        return np.frombuffer(np.asarray(data, np.uint8).tobytes(), np.dtype(dtype).newbyteorder("<")).reshape(shape)

    def scales(self, index: int) -> Any:
        q = self.tensor(index).quantization
        if q is None or q.scale is None or not len(q.scale) or not np.all(np.isfinite(q.scale) & (q.scale > 0)):
            raise BoardError(f"{self.name}: {self.where}: found a tensor without scale, wanted int8 with one > 0")
        return np.asarray(q.scale, np.float32)

    def zero_point(self, index: int) -> int:
        points = self.tensor(index).quantization.zeroPoint
        value = int(points[0]) if points is not None and len(points) else 0
        if not -128 <= value <= 127:
            raise BoardError(f"{self.name}: {self.where}: zero point: found {value}, wanted -128 ... 127")
        return value

    def add_map(self, index: int) -> int:
        """The map of a tensor seen for the first time."""
        tensor = self.tensor(index)
        if self.type_name(tensor) != "INT8":
            found = f"a map of type {self.type_name(tensor)} ({text_of(tensor.name)})"
            raise BoardError(f"{self.name}: {self.where}: found {found}, wanted INT8")
        shape = tuple(int(d) for d in tensor.shape)
        if not 1 <= len(shape) <= 4 or shape[0] != 1 or min(shape) < 1 or math.prod(shape) > 1 << 24:
            raise BoardError(f"{self.name}: {self.where}: map: found shape {shape}, wanted batch 1 and at most 4 axes")
        height, width, channels = (*(1,) * (4 - len(shape)), *shape[1:])
        scales = self.scales(index)
        if len(scales) != 1:
            raise BoardError(f"{self.name}: {self.where}: map: found {len(scales)} scales, wanted one")
        self.maps.append(Map(text_of(tensor.name), (height, width, channels), float(scales[0]), self.zero_point(index)))
        self.map_of[index] = len(self.maps) - 1
        return len(self.maps) - 1

    def input_map(self, index: int) -> int:
        if index in self.map_of:
            return self.map_of[index]
        raise BoardError(f"{self.name}: {self.where}: found an input that no layer makes, wanted a map")

    def limits(self, activation: int, output: Map) -> tuple[int, int]:
        kinds = self.schema.ActivationFunctionType
        if activation == kinds.NONE:
            return -128, 127
        if activation not in (kinds.RELU, kinds.RELU6):
            raise BoardError(f"{self.name}: {self.where}: activation: found {activation}, wanted none, RELU or RELU6")
        top = 127
        if activation == kinds.RELU6:
            top = min(127, output.zero_point + rounded(np.float32(6.0) / np.float32(output.scale)))
        return max(-128, output.zero_point), top


def text_of(name: Any) -> str:
    return (name or b"").decode("utf-8", "replace")[:80] if isinstance(name, bytes | None) else str(name)[:80]


def rounded(value: Any) -> int:
    return int(math.floor(abs(float(value)) + 0.5) * (1 if value >= 0 else -1))
