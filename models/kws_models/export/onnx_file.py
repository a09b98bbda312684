"""Graph without batch normalisation -> float32 ONNX, node by node.

Initialisers keep the graph's names, so that weights can be read back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kws_models.zoo.graph import (
    Add,
    Conv,
    Flatten,
    Graph,
    Linear,
    MapMean,
    MaxPool,
    Node,
    Relu,
    Scale,
    Sigmoid,
    Softmax,
    Weights,
    WidthMean,
)

OPSET = 17  # of ONNX 1.12 and later: what ONNX Runtime 1.12 of mid-2022 reads
IR_VERSION = 8  # the file format that goes with it


def onnx_bytes(graph: Graph, weights: Weights, keep: tuple[str, ...] = ()) -> bytes:
    """The file: `input` (batch, *graph.file_shape("input")) -> `scores` (batch, n_classes), then the `keep` maps.

    `graph` has no BatchNorm. The same graph and weights give the same bytes.
    """
    nodes = [made for node in graph.nodes for made in _nodes(graph, node)]
    flat = graph.axes == "NCT"  # one-dimensional operators
    arrays: dict[str, Any] = {}
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name], np.float32)
        arrays[name] = array[..., 0] if flat and array.ndim == 4 else array
    arrays |= _shape_constants(graph)
    last = graph.nodes[-1]
    nodes.append(helper.make_node("Identity", [last.name], ["scores"]))
    values = [("scores", graph.shapes[last.name]), *((name, graph.file_shape(name)) for name in keep)]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            graph.name,
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *graph.file_shape("input")])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape]) for name, shape in values],
            [numpy_helper.from_array(array, name) for name, array in arrays.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="kws-models",
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The weights of a file that `onnx_bytes` made."""
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(str(path)).graph.initializer}
    return {name: array for name, array in arrays.items() if not name.startswith("shape.")}


def _shape_constants(graph: Graph) -> dict[str, Any]:
    constants: dict[str, Any] = {}
    for node in graph.nodes:
        if isinstance(node, Scale):
            constants["shape.gate"] = np.array([0, -1, 1, 1], np.int64)
        if isinstance(node, WidthMean):
            constants["shape.vector"] = np.array([0, -1], np.int64)
    return constants


def _nodes(graph: Graph, node: Node) -> list[Any]:
    name, inputs = node.name, list(node.inputs)
    match node:
        case Conv():
            (top, bottom), (left, right) = node.pads
            named = [f"{name}.{short}" for short in graph.weight_shapes(node)]
            group = node.channels if node.depthwise else 1
            n = 1 if graph.axes == "NCT" else 2
            options = {"kernel_shape": node.kernel[:n], "strides": node.stride[:n], "group": group}
            pads = [*(top, left)[:n], *(bottom, right)[:n]]
            return [_make("Conv", inputs + named, name, pads=pads, **options)]
        case Linear():
            named = [f"{name}.{short}" for short in graph.weight_shapes(node)]
            return [_make("Gemm", inputs + named, name, transB=1)]
        case Relu():
            return [_make("Relu", inputs, name)]
        case Sigmoid():
            return [_make("Sigmoid", inputs, name)]
        case Softmax():
            return [_make("Softmax", inputs, name, axis=-1)]
        case Add():
            return [_make("Add", inputs, name)]
        case Scale():
            gate = f"{name}_gate_map"
            return [_make("Reshape", [inputs[1], "shape.gate"], gate), _make("Mul", [inputs[0], gate], name)]
        case MaxPool():
            n = 1 if graph.axes == "NCT" else 2
            options = {"kernel_shape": node.kernel[:n], "strides": node.stride[:n], "ceil_mode": int(node.ceil)}
            return [_make("MaxPool", inputs, name, **options)]
        case Flatten():
            return [_make("Flatten", inputs, name, axis=1)]
        case MapMean():
            return [_make("ReduceMean", inputs, name, axes=[2, 3], keepdims=0)]
        case WidthMean():
            mean = f"{name}_mean"
            return [
                _make("ReduceMean", inputs, mean, axes=[3], keepdims=0),
                _make("Reshape", [mean, "shape.vector"], name),
            ]
    raise ValueError(f"{name}: no ONNX operator for {type(node).__name__}, wanted a graph without batch normalisation")


def _make(operator: str, inputs: list[str], output: str, **attributes: Any) -> Any:
    return helper.make_node(operator, inputs, [output], name=output, **attributes)
