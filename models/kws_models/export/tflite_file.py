"""TFLite files written straight from the official schema (ai-edge-litert's, with flatbuffers): no TensorFlow needed.

    model = TfliteModel()
    x = model.tensor("x", (None, 49, 10, 1), "int8", Quantisation.of(0.5, -3))
    w = model.constant("w", weights_int8, Quantisation.per_channel(scales, axis=0))  # (out, kh, kw, in)
    b = model.constant("b", bias_int32, Quantisation.per_channel(x_scale * scales, axis=0))
    y = model.tensor("y", (None, 25, 5, 64), "int8", Quantisation.of(0.1, -128))
    model.op("CONV_2D", [x, w, b], [y], padding="SAME", stride=(2, 2), activation="relu")
    data = model.to_bytes([x], [y])

Conventions of TFLite: maps are NHWC; CONV_2D weights (out, kh, kw, in), quantised axis 0; DEPTHWISE_CONV_2D weights
(1, kh, kw, out), quantised axis 3; FULLY_CONNECTED weights (out, in), quantised axis 0; bias int32 with scale
input x weight and zero point 0; int8 weights have zero point 0; int8 SOFTMAX and LOGISTIC outputs have scale 1/256
and zero point -128 (uint8: 0). The same calls give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "int8": schema.TensorType.INT8,
    "uint8": schema.TensorType.UINT8,
    "int16": schema.TensorType.INT16,
    "int32": schema.TensorType.INT32,
    "int64": schema.TensorType.INT64,
}
_ACTIVATIONS = {
    None: schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}
_PADDINGS = {"SAME": schema.Padding.SAME, "VALID": schema.Padding.VALID}

_ALIGNMENT = 16  # bytes, of a buffer's data: the schema's force_align
_FIRST_BYTES = 1 << 16  # of the builder's memory; it grows by itself

_WINDOW: dict[str, Any] = {"padding": "SAME", "stride": (1, 1), "activation": None}
OPERATORS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "CONV_2D": ("Conv2DOptions", 3, _WINDOW | {"dilation": (1, 1)}),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", 3, _WINDOW | {"dilation": (1, 1), "depth_multiplier": 1}),
    "AVERAGE_POOL_2D": ("Pool2DOptions", 2, _WINDOW | {"size": (1, 1)}),
    "MAX_POOL_2D": ("Pool2DOptions", 2, _WINDOW | {"size": (1, 1)}),
    "MEAN": ("ReducerOptions", 2, {"keep_dims": False}),  # inputs: map, int32 axes
    "FULLY_CONNECTED": ("FullyConnectedOptions", 4, {"activation": None, "keep_num_dims": False}),
    "SOFTMAX": ("SoftmaxOptions", 2, {"beta": 1.0}),
    "LOGISTIC": ("", 2, {}),
    "RELU": ("", 2, {}),
    "ADD": ("AddOptions", 2, {"activation": None}),
    "MUL": ("MulOptions", 2, {"activation": None}),
    "RESHAPE": ("ReshapeOptions", 1, {}),  # inputs: map, int32 shape with -1 for the batch
    "TRANSPOSE": ("TransposeOptions", 2, {}),  # inputs: map, int32 permutation
    "PAD": ("PadOptions", 2, {}),  # inputs: map, int32 (rank, 2) paddings
    "CONCATENATION": ("ConcatenationOptions", 2, {"axis": -1, "activation": None}),
    "QUANTIZE": ("QuantizeOptions", 2, {}),
    "DEQUANTIZE": ("DequantizeOptions", 2, {}),
}
"""Operator -> its options table in the schema, its version where a tensor is int8, its options with defaults."""


@dataclass(frozen=True, slots=True)
class Quantisation:
    """real = (q - zero_point) * scale, one pair for the tensor or one for each index of `axis`."""

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int = 0

    @classmethod
    def of(cls, scale: float, zero_point: int = 0) -> Quantisation:
        """One scale and zero point for the whole tensor."""
        return cls((float(scale),), (int(zero_point),))

    @classmethod
    def per_channel(cls, scales: npt.ArrayLike, axis: int) -> Quantisation:
        """One scale for each index of `axis`, zero points 0 (weights and bias)."""
        values = tuple(float(s) for s in np.asarray(scales, np.float64).ravel())
        return cls(values, (0,) * len(values), axis)


class TfliteModel:
    """A model of one subgraph, built tensor by tensor and operator by operator, in execution order."""

    def __init__(self, description: str = "") -> None:
        """`description`: free text kept in the file."""
        self._model = schema.ModelT(version=3, description=description or None)
        self._model.operatorCodes = []
        self._model.buffers = [_Buffer()]  # buffer 0 is empty by convention
        self._graph = schema.SubGraphT(tensors=[], operators=[], name="main")
        self._model.subgraphs = [self._graph]

    def tensor(
        self, name: str, shape: Sequence[int | None], dtype: str, quantisation: Quantisation | None = None
    ) -> int:
        """Add a map; None in `shape` is a free axis (the batch). Returns its index. Raises ValueError."""
        return self._add(name, shape, dtype, quantisation, 0)

    def constant(self, name: str, values: npt.NDArray[Any], quantisation: Quantisation | None = None) -> int:
        """Add weights, a bias, axes or a shape. Returns the index. Raises ValueError."""
        values = np.ascontiguousarray(values)
        self._model.buffers.append(_Buffer(values.astype(values.dtype.newbyteorder("<")).tobytes()))
        return self._add(name, values.shape, values.dtype.name, quantisation, len(self._model.buffers) - 1)

    def op(self, operator: str, inputs: Sequence[int], outputs: Sequence[int], **options: Any) -> None:
        """Add an operator of `OPERATORS`; options not given have the defaults there. Raises ValueError.

        padding "SAME" or "VALID"; stride, dilation, size (height, width); activation None, "relu" or "relu6".
        """
        if operator not in OPERATORS:
            raise ValueError(f"operator: found {operator!r}, wanted one of {', '.join(OPERATORS)}")
        table, int8_version, defaults = OPERATORS[operator]
        unknown = set(options) - set(defaults)
        if unknown:
            raise ValueError(f"{operator}: found option {sorted(unknown)[0]!r}, wanted one of {sorted(defaults)}")
        wrong = [i for i in (*inputs, *outputs) if not -1 <= i < len(self._graph.tensors)]
        if wrong:
            raise ValueError(f"{operator}: found tensor {wrong[0]}, wanted one of {len(self._graph.tensors)}")
        types = {self._graph.tensors[i].type for i in (*inputs, *outputs) if i >= 0}
        version = int8_version if schema.TensorType.INT8 in types else 1
        self._graph.operators.append(
            schema.OperatorT(
                opcodeIndex=self._code(operator, version),
                inputs=np.asarray(inputs, np.int32),
                outputs=np.asarray(outputs, np.int32),
                builtinOptionsType=getattr(schema.BuiltinOptions, table) if table else 0,
                builtinOptions=_options(table, defaults | options) if table else None,
            )
        )

    def to_bytes(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """The file, with these tensors as the model's inputs and outputs."""
        self._graph.inputs = np.asarray(inputs, np.int32)
        self._graph.outputs = np.asarray(outputs, np.int32)
        builder = flatbuffers.Builder(_FIRST_BYTES)
        builder.Finish(self._model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def _add(
        self, name: str, shape: Sequence[int | None], dtype: str, quantisation: Quantisation | None, buffer: int
    ) -> int:
        if dtype not in TYPES:
            raise ValueError(f"{name}: type: found {dtype}, wanted one of {', '.join(TYPES)}")
        tensor = schema.TensorT(
            shape=np.asarray([1 if d is None else d for d in shape], np.int32),
            type=TYPES[dtype],
            buffer=buffer,
            name=name,
            hasRank=True,
        )
        if None in shape:
            tensor.shapeSignature = np.asarray([-1 if d is None else d for d in shape], np.int32)
        if quantisation is not None:
            n = len(quantisation.scales)
            if n > 1 and shape[quantisation.axis] != n:
                raise ValueError(f"{name}: scales: found {n}, wanted {shape[quantisation.axis]} (axis of {shape})")
            tensor.quantization = schema.QuantizationParametersT(
                scale=np.asarray(quantisation.scales, np.float32),
                zeroPoint=np.asarray(quantisation.zero_points, np.int64),
                quantizedDimension=quantisation.axis,
            )
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _code(self, operator: str, version: int) -> int:
        """Index of this operator and version in the model's operator codes."""
        builtin = getattr(schema.BuiltinOperator, operator)
        for i, code in enumerate(self._model.operatorCodes):
            if (code.builtinCode, code.version) == (builtin, version):
                return i
        # readers from before builtinCode existed read an int8 field; what does not fit stands there as 127
        code = schema.OperatorCodeT(deprecatedBuiltinCode=min(builtin, 127), builtinCode=builtin, version=version)
        self._model.operatorCodes.append(code)
        return len(self._model.operatorCodes) - 1


def _options(table: str, values: dict[str, Any]) -> Any:
    """The schema's options object of `values`."""
    options = getattr(schema, table + "T")()
    for key, value in values.items():
        if key == "padding":
            options.padding = _known(value, key, _PADDINGS)
        elif key == "activation":
            options.fusedActivationFunction = _known(value, key, _ACTIVATIONS)
        elif key == "stride":
            options.strideH, options.strideW = value
        elif key == "dilation":
            options.dilationHFactor, options.dilationWFactor = value
        elif key == "size":
            options.filterHeight, options.filterWidth = value
        else:
            name = {"keep_dims": "keepDims", "keep_num_dims": "keepNumDims", "depth_multiplier": "depthMultiplier"}
            setattr(options, name.get(key, key), value)
    return options


def _known(value: Any, key: str, table: dict[Any, int]) -> int:
    if value not in table:
        raise ValueError(f"{key}: found {value!r}, wanted one of {list(table)}")
    return table[value]


class _Buffer(schema.BufferT):  # type: ignore[misc]
    """A buffer whose data starts on a multiple of 16 bytes, as the schema demands and its Python writer forgets."""

    def __init__(self, content: bytes = b"") -> None:
        super().__init__()
        self.content = content

    def Pack(self, builder: Any) -> Any:  # noqa: N802  (the schema's name)
        # The builder writes from the end of the file to its beginning: `head` falls. StartVector puts padding at the
        # place that follows the content, so that its first byte falls on a multiple of _ALIGNMENT.
        #
        #     | length u32 | content ... | padding | what was written before |
        #                  ^ head, after the content is copied
        vector = 0
        if self.content:
            builder.StartVector(1, len(self.content), _ALIGNMENT)
            builder.head -= len(self.content)
            builder.Bytes[builder.head : builder.head + len(self.content)] = self.content
            vector = builder.EndVector()
        schema.BufferStart(builder)
        if vector:
            schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)
