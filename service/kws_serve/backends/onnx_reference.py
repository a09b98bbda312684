"""An integer ONNX file with its products in float: what the self-test holds this processor's integer kernels against.

Run unoptimised, quantise and dequantise nodes are computed one by one, and what stands between them in float: a file of
such pairs (QDQ) is its own reference. Operators that multiply integers themselves (QLinearConv, ConvInteger, ...) are
replaced by the float ones, with weights that are dequantised here. Operators: onnx.ai and ONNX Runtime's contributed.
Graphs inside nodes (If, Loop) stay as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from kws_serve.backends.onnx_file import Node, OnnxFile
from kws_serve.backends.protobuf_wire import fields, message, written

Array = npt.NDArray[Any]

_FLOAT, _INT32 = 1, 6  # TensorProto.DataType
_OTHER_PRODUCTS = {
    "DynamicQuantizeLSTM",
    "DynamicQuantizeMatMul",
    "MatMulIntegerToFloat",
    "QAttention",
    "QEmbedLayerNormalization",
}


class NoReference(ValueError):
    """The file has an integer product that is not known here, or one of two tensors that are no constants."""


def is_integer(file: OnnxFile) -> bool:
    """Whether the file computes with integers at all."""
    words = ("Quantize", "QLinear", "Integer", "QGemm", "QAttention")
    return any(word in node.operator for node in file.nodes for word in words)


def float_reference(file: OnnxFile) -> bytes:
    """The file, to be run unoptimised, its integer products in float. Raises NoReference."""
    return _Rewriter(file).written()


class _Rewriter:
    """Collects the new graph's nodes and initialisers."""

    def __init__(self, file: OnnxFile) -> None:
        self._file = file
        self._out: list[bytes] = []  # fields of the new graph
        self._n_names = 0

    def written(self) -> bytes:
        """The file, its integer products rewritten into float ones."""
        products = {
            "QLinearConv": self._qlinear_conv,
            "QLinearMatMul": self._qlinear_matmul,
            "QGemm": self._qgemm,
            "ConvInteger": self._conv_integer,
            "MatMulInteger": self._matmul_integer,
        }
        for node in self._file.nodes:
            if node.operator in _OTHER_PRODUCTS:
                raise NoReference(f"found operator {node.operator}")
            if node.operator in products:
                products[node.operator](node)
            else:
                self._out.append(written(1, node.data))
        parts = []
        for number, value in fields(memoryview(self._file.data)):
            if number == 7:
                kept = [written(n, v) for n, v in fields(message(value)) if n != 1]
                parts.append(written(7, b"".join(kept + self._out)))
            else:
                parts.append(written(number, value))
        return b"".join(parts)

    def _qlinear_conv(self, node: Node) -> None:
        x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, *bias = node.inputs
        inputs = [
            self._node("DequantizeLinear", [x, x_scale, x_zero]),
            self._constant(self._weight(w, w_scale, w_zero, 0)),
        ]
        if bias and bias[0]:
            inputs.append(self._constant(self._array(bias[0]) * self._array(x_scale) * self._array(w_scale)))
        product = self._node("Conv", inputs, like=node)
        self._node("QuantizeLinear", [product, y_scale, y_zero], node.outputs[0])

    def _qlinear_matmul(self, node: Node) -> None:
        a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = node.inputs
        weight = self._weight(b, b_scale, b_zero, -1)
        product = self._node("MatMul", [self._node("DequantizeLinear", [a, a_scale, a_zero]), self._constant(weight)])
        self._node("QuantizeLinear", [product, y_scale, y_zero], node.outputs[0])

    def _qgemm(self, node: Node) -> None:
        """alpha (A B + C) of transposed B or not; C has the scale of the products; without y_scale a float result."""
        a, a_scale, a_zero, b, b_scale, b_zero, c, y_scale, y_zero = [*node.inputs, "", "", ""][:9]
        alpha, transposed_a, transposed_b = (_number(node, name) for name in ("alpha", "transA", "transB"))
        if transposed_a:
            raise NoReference("found QGemm with transA")
        weight = self._weight(b, b_scale, b_zero, 0 if transposed_b else 1)
        factor = 1.0 if alpha is None else alpha
        inputs = [self._node("DequantizeLinear", [a, a_scale, a_zero])]
        inputs.append(self._constant(factor * (weight.T if transposed_b else weight)))
        end = self._node("MatMul", inputs, "" if c or y_scale else node.outputs[0])
        if c:
            scaled = factor * self._array(c) * self._array(a_scale) * self._array(b_scale)
            end = self._node("Add", [end, self._constant(scaled)], "" if y_scale else node.outputs[0])
        if y_scale:
            self._node("QuantizeLinear", [end, y_scale, y_zero], node.outputs[0])

    def _conv_integer(self, node: Node) -> None:
        self._integer_product("Conv", node, 0)

    def _matmul_integer(self, node: Node) -> None:
        self._integer_product("MatMul", node, -1)

    def _integer_product(self, operator: str, node: Node, axis: int) -> None:
        """Sums of integers are whole in float32 too; beyond 2^24 they are rounded to seven digits."""
        x, w, x_zero, w_zero = [*node.inputs, "", ""][:4]
        real = self._node("Cast", [x], to=_FLOAT)
        if x_zero:
            real = self._node("Sub", [real, self._node("Cast", [x_zero], to=_FLOAT)])
        weight = self._constant(self._weight(w, "", w_zero, axis))
        product = self._node(operator, [real, weight], like=node)
        self._node("Cast", [product], node.outputs[0], to=_INT32)

    def _weight(self, name: str, scale: str, zero: str, axis: int) -> Array:
        """Real values of integer weights, with one scale and zero point or one for each index of `axis`."""
        values = self._array(name)

        def along(part: Array) -> Array:
            shape = [1] * values.ndim
            shape[axis] = -1
            return part.reshape(shape) if part.size > 1 else part.reshape(())

        whole = values - along(self._array(zero)) if zero else values
        return whole * along(self._array(scale)) if scale else whole

    def _array(self, name: str) -> Array:
        values = self._file.array(name)
        if values is None:
            raise NoReference(f"found no constant {name[:80]!r}")
        return values.astype(np.float64)

    def _constant(self, values: Array) -> str:
        """A new float initialiser."""
        name = self._new_name()
        dims = b"".join(written(1, d) for d in values.shape)
        raw = written(9, values.astype("<f4").tobytes())
        self._out.append(written(5, dims + written(2, _FLOAT) + written(8, name) + raw))
        return name

    def _node(
        self, operator: str, inputs: list[str], output: str = "", *, like: Node | None = None, to: int | None = None
    ) -> str:
        """A new node of the standard domain, with the attributes of `like`; its output's name."""
        output = output or self._new_name()
        parts = [written(1, name) for name in inputs] + [written(2, output), written(4, operator)]
        if like is not None:
            parts += [written(5, value) for number, value in fields(like.data) if number == 5]
        if to is not None:
            parts.append(written(5, written(1, "to") + written(3, to) + written(20, 2)))
        self._out.append(written(1, b"".join(parts)))
        return output

    def _new_name(self) -> str:
        self._n_names += 1
        return f"float reference {self._n_names}"


def _number(node: Node, name: str) -> float | None:
    """Attribute `name` of a node, a float (field 2) or an integer (field 3)."""
    for number, value in fields(node.data):
        if number != 5:
            continue
        attribute = dict(fields(message(value)))
        if bytes(message(attribute.get(1, memoryview(b"")))) == name.encode():
            whole = attribute.get(3)
            if isinstance(whole, int):
                return float(whole)
            return float(np.frombuffer(message(attribute[2]), "<f4")[0]) if 2 in attribute else None
    return None
