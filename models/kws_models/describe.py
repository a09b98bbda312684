"""Counts of an architecture, taken from its layers one by one (MODEL_ZOO section 5); no torch needed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from kws_models.architectures import Architecture
from kws_models.graph import BatchNorm, Conv, Graph, Linear, MapMean, Node, Shape, Softmax, WidthMean

# The reference documents' own figures: shown beside ours, never used to compute ours.
REFERENCE: dict[str, dict[str, float]] = {
    "resnetse": {"params": 61_574, "mult_adds": 10_727_154, "accuracy": 0.96124},
    "dscnn-s": {"params_folded": 22_604, "macs": 2_656_768, "ops": 2_704_780, "accuracy": 0.8922},
    "dscnn-m": {"params_folded": 135_032, "macs": 9_816_384, "ops": 9_915_296, "accuracy": 0.9269},
    "dscnn-l": {"params_folded": 410_700, "macs": 218_291_712, "ops": 219_660_684, "accuracy": 0.9277},
}


@dataclass(frozen=True)
class LayerCounts:
    """One layer; shapes without the batch axis."""

    name: str
    kind: str
    input_shape: Shape
    output_shape: Shape
    params: int
    macs: int  # multiplications by a weight
    ops: int  # as the DS-CNN tables count: bias of conv1 and depthwise, pool and softmax included


def describe(architecture: Architecture) -> dict[str, Any]:
    """Counts of the architecture's graph, keys as `kws-models describe --json` prints them."""
    graph = architecture.graph
    layers = [_layer(graph, node) for node in graph.nodes]
    trainable = sum(layer.params for layer in layers)
    folded = params_folded(graph)
    is_dscnn = architecture.task == "keyword" and graph.axes == "NCTF"
    return {
        "name": architecture.name,
        "params": folded if is_dscnn else trainable,
        "params_trainable": trainable,
        "params_folded": folded,
        "macs": sum(layer.macs for layer in layers),
        "ops": sum(layer.ops for layer in layers),
        "mult_adds": sum(_mult_adds(graph, node) for node in graph.nodes),
        "memory": {"bytes": _memory_bytes(graph), "reference": None},
        "input_shape": list(graph.input_shape),
        "labels": list(architecture.labels),
        "reference": REFERENCE.get(architecture.name, {}),
        "layers": [asdict(layer) for layer in layers],
    }


def params_folded(graph: Graph) -> int:
    """Parameters once batch normalisation has become weights and biases."""
    total = 0
    for node in graph.nodes:
        if isinstance(node, BatchNorm):
            continue
        shapes = graph.weight_shapes(node)
        gains_bias = any(isinstance(reader, BatchNorm) for reader in graph.readers(node.name))
        total += sum(prod(shape) for shape in shapes.values())
        total += graph.shapes[node.name][0] if shapes and "bias" not in shapes and gains_bias else 0
    return total


def _layer(graph: Graph, node: Node) -> LayerCounts:
    shape_in, shape_out = graph.input_shapes(node)[0], graph.shapes[node.name]
    params = sum(prod(shape) for shape in graph.weight_shapes(node).values())
    macs = _macs(graph, node)
    return LayerCounts(node.name, _kind(node), shape_in, shape_out, params, macs, _ops(graph, node, macs))


def _kind(node: Node) -> str:
    return "DepthwiseConv" if isinstance(node, Conv) and node.depthwise else type(node).__name__


def _macs(graph: Graph, node: Node) -> int:
    if not isinstance(node, Conv | Linear):
        return 0
    return prod(graph.weight_shapes(node)["weight"]) * prod(graph.shapes[node.name][1:])


def _ops(graph: Graph, node: Node, macs: int) -> int:
    out = graph.shapes[node.name]
    match node:
        case Conv() if node.kernel != (1, 1):
            return macs + prod(out)  # one bias a value
        case MapMean() | WidthMean():
            return prod(graph.input_shapes(node)[0])
        case Softmax():
            return out[0]
    return macs


def _mult_adds(graph: Graph, node: Node) -> int:
    """torchinfo's count: a convolution's parameters at every place of the map, any other layer's once."""
    params = sum(prod(shape) for shape in graph.weight_shapes(node).values())
    return params * (prod(graph.shapes[node.name][1:]) if isinstance(node, Conv) else 1)


def _memory_bytes(graph: Graph) -> int:
    """int8 maps: the input and the output of every layer that has one of its own in the exported file."""
    fused = {n.name for n in graph.nodes if isinstance(n, BatchNorm)}
    return prod(graph.input_shape) + sum(
        prod(graph.shapes[node.name])
        for node in graph.nodes
        if isinstance(node, Conv | Linear) and node.name not in fused
    )


def as_text(counts: dict[str, Any]) -> str:
    """A table of layers and totals, the reference's figures beside ours."""
    lines = [f"{counts['name']}: input {'x'.join(map(str, counts['input_shape']))}, {len(counts['labels'])} labels"]
    lines.append(f"{'layer':28}{'kind':16}{'output':>14}{'params':>10}{'macs':>13}{'ops':>13}")
    for layer in counts["layers"]:
        shape = "x".join(map(str, layer["output_shape"]))
        numbers = f"{layer['params']:>10,}{layer['macs']:>13,}{layer['ops']:>13,}"
        lines.append(f"{layer['name']:28}{layer['kind']:16}{shape:>14}{numbers}")
    for key in ("params", "params_trainable", "params_folded", "macs", "ops", "mult_adds"):
        reference = counts["reference"].get(key)
        lines.append(f"{key:18}{counts[key]:>14,}" + (f"   reference {reference:,}" if reference else ""))
    return "\n".join(lines)
