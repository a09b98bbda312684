"""Batch normalisation absorbed into the layers around it: what is exported has none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kws_models.zoo.graph import BatchNorm, Conv, Graph, Linear, Node, Weights


def absorb(graph: Graph, weights: Weights) -> tuple[Graph, dict[str, np.ndarray]]:
    """The same function without BatchNorm nodes.

    A norm that alone reads a Conv or Linear goes into that layer's weight and bias. One that reads something else
    goes into the Linear that reads it. Raises ValueError where neither is so.
    """
    arrays = {name: np.asarray(value, np.float64) for name, value in weights.items()}
    nodes: dict[str, Node] = {node.name: node for node in graph.nodes}
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        if not isinstance(node, BatchNorm):
            continue
        scale, shift = _affine(node, arrays)
        source = nodes[node.inputs[0]]
        if isinstance(source, Conv | Linear) and len(graph.readers(source.name)) == 1:
            nodes[source.name] = _absorb_backwards(source, arrays, scale, shift)
        else:
            _absorb_forwards(node, graph.readers(node.name), arrays, scale, shift)
        renamed[node.name] = node.inputs[0]
        del nodes[node.name]
    kept = tuple(replace(node, inputs=tuple(renamed.get(i, i) for i in node.inputs)) for node in nodes.values())
    absorbed = Graph(graph.name, graph.axes, graph.input_shape, kept)
    used = {f"{node.name}.{short}" for node in kept for short in absorbed.weight_shapes(node)}
    return absorbed, {name: arrays[name].astype(np.float32) for name in sorted(used)}


def _affine(node: BatchNorm, arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The norm as y = scale * x + shift, each (channels,): scale = weight / sqrt(variance + epsilon)."""
    scale = arrays[f"{node.name}.weight"] / np.sqrt(arrays[f"{node.name}.variance"] + node.epsilon)
    return scale, arrays[f"{node.name}.bias"] - arrays[f"{node.name}.mean"] * scale


def _absorb_backwards(
    source: Conv | Linear, arrays: dict[str, np.ndarray], scale: np.ndarray, shift: np.ndarray
) -> Node:
    """Into the layer before: scale * (W x + b) + shift = (scale W) x + (scale b + shift), output channel by channel."""
    weight = arrays[f"{source.name}.weight"]
    arrays[f"{source.name}.weight"] = weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
    bias = arrays.get(f"{source.name}.bias", np.zeros(len(scale)))
    arrays[f"{source.name}.bias"] = bias * scale + shift
    return replace(source, bias=True)


def _absorb_forwards(
    norm: BatchNorm, readers: list[Node], arrays: dict[str, np.ndarray], scale: np.ndarray, shift: np.ndarray
) -> None:
    """Into the linear layer after: W (scale * x + shift) + b = (W scale) x + (W shift + b), column by column."""
    if len(readers) != 1 or not isinstance(readers[0], Linear) or not readers[0].bias:
        raise ValueError(f"{norm.name}: found no layer to absorb it, wanted a Conv or Linear before or after it")
    name = readers[0].name
    weight = arrays[f"{name}.weight"]
    arrays[f"{name}.bias"] = arrays[f"{name}.bias"] + weight @ shift
    arrays[f"{name}.weight"] = weight * scale
