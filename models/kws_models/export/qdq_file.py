"""Graph without batch normalisation -> QDQ ONNX: Quantize-/DequantizeLinear pairs at the int8 file's own scales."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from kws_models.export.integer_maps import SHARES, Ranges, float_maps, fused_relus, quantisation_of, scale_of
from kws_models.export.onnx_file import onnx_bytes
from kws_models.zoo.graph import Conv, Flatten, Graph, Linear, MaxPool, Sigmoid, Softmax, Weights


def qdq_bytes(graph: Graph, weights: Weights, ranges: Ranges) -> bytes:
    """The file: input and output float32; every map that the int8 file rounds is rounded the same, weights too."""
    model = onnx.load_from_string(onnx_bytes(graph, weights))
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    fused, kept = fused_relus(graph), float_maps(graph)
    renamed: dict[str, str] = {}
    nodes: list[Any] = []
    made: dict[str, Any] = {}

    def pair(name: str, scale: float, zero_point: int) -> None:
        """Consumers of `name` read it rounded."""
        made[f"{name}.scale"], made[f"{name}.zero"] = np.float32(scale), np.int8(zero_point)
        extra = [f"{name}.scale", f"{name}.zero"]
        nodes.append(helper.make_node("QuantizeLinear", [name, *extra], [f"{name}.q"], name=f"{name}.q"))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}.q", *extra], [f"{name}.dq"], name=f"{name}.dq"))
        renamed[name] = f"{name}.dq"

    if "input" not in kept:
        pair("input", *scale_of(quantisation_of(*ranges["input"])))
    graph_nodes = {node.name: node for node in graph.nodes}
    rounded_weights = _rounded_weights(graph, arrays, made, nodes)
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = rounded_weights.get(name, renamed.get(name, name))
        nodes.append(node)
        ours = graph_nodes.get(node.output[0])
        if ours is None or ours.name in fused or isinstance(ours, MaxPool | Flatten):
            continue
        if isinstance(ours, Sigmoid | Softmax):
            pair(ours.name, *scale_of(SHARES))
        else:
            pair(ours.name, *scale_of(quantisation_of(*ranges[ours.name])))
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    left = {name: array for name, array in arrays.items() if name not in rounded_weights} | made
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), name) for name, a in left.items())
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _rounded_weights(graph: Graph, arrays: dict[str, Any], made: dict[str, Any], nodes: list[Any]) -> dict[str, str]:
    """Weights as int8 with a DequantizeLinear each: per channel of a convolution, one scale of a linear layer."""
    renamed = {}
    first = graph.nodes[0].name if float_maps(graph) else ""
    for node in graph.nodes:
        if not isinstance(node, Conv | Linear) or node.name == first:
            continue
        name = f"{node.name}.weight"
        weight = arrays[name]
        axes = tuple(range(1, weight.ndim)) if isinstance(node, Conv) else None
        scale = np.maximum(np.abs(weight).max(axis=axes, keepdims=True) / 127.0, 1e-9).astype(np.float32)
        made[f"{name}.int8"] = np.clip(np.rint(weight / scale), -127, 127).astype(np.int8)
        made[f"{name}.scale"] = scale.ravel() if isinstance(node, Conv) else scale.ravel()[0]
        made[f"{name}.zero"] = np.zeros_like(made[f"{name}.scale"], np.int8)
        inputs = [f"{name}.int8", f"{name}.scale", f"{name}.zero"]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}.dq"], name=f"{name}.dq", axis=0))
        renamed[name] = f"{name}.dq"
    return renamed
