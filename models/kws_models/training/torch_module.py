"""Graph -> torch module (training only), and its weights back as plain arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from kws_models.zoo.graph import (
    Add,
    BatchNorm,
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


class GraphModule(nn.Module):  # type: ignore[misc]  # torch is not there for the type check
    """Runs a graph's nodes in order. `forward` gives logits (n, n_classes): the final softmax is the loss's."""

    def __init__(self, graph: Graph, dropout: float = 0.0) -> None:
        super().__init__()
        self.graph = graph
        self.layers = nn.ModuleDict({node.name: _layer(graph, node) for node in graph.nodes if _has_weights(node)})
        linear = [node.name for node in graph.nodes if isinstance(node, Linear)]
        self._dropped = {*linear[1:], linear[-1]}  # before the last linear layer, and after each hidden one
        self.dropout = nn.Dropout(dropout)
        # a normalised map that only one ReLU reads is rectified where it lies: its backward pass needs the result alone
        read = [name for node in graph.nodes for name in node.inputs]
        norms = {node.name for node in graph.nodes if isinstance(node, BatchNorm)}
        self._replaced = {name for name in norms if read.count(name) == 1}

    def forward(self, patches: Any) -> Any:
        """Patches (n, 1, height, width) -> logits (n, n_classes)."""
        values = {"input": self._input(patches)}
        for node in self.graph.nodes:
            inputs = [values[name] for name in node.inputs]
            if node.name in self._dropped:
                inputs = [self.dropout(inputs[0])]
            values[node.name] = self._run(node, inputs)
        return values[self.graph.nodes[-1].name]

    def _input(self, patches: Any) -> Any:
        return patches

    def _padded(self, node: Conv, values: Any, padding: Any) -> tuple[Any, Any]:
        """The map as torch's convolution needs it: unequal sides are padded beforehand."""
        (top, bottom), (left, right) = node.pads
        if top == bottom and left == right:
            return values, padding
        return functional.pad(values, (left, right, top, bottom)), 0

    def _run(self, node: Node, inputs: list[Any]) -> Any:
        match node:
            case Conv():
                return self.layers[node.name](self._padded(node, inputs[0], None)[0])
            case Linear() | BatchNorm():
                return self.layers[node.name](inputs[0])
            case Relu():
                return functional.relu(inputs[0], inplace=node.inputs[0] in self._replaced)
            case Sigmoid():
                return torch.sigmoid(inputs[0])
            case Add():
                return inputs[0] + inputs[1]
            case Scale():
                return inputs[0] * inputs[1][:, :, None, None]
            case MapMean():
                return inputs[0].mean((2, 3))
            case WidthMean():
                return inputs[0].mean(3).flatten(1)
            case MaxPool():
                # what torch's ceil mode gives is what TensorFlow's SAME gives here: no window begins beyond the edge
                return functional.max_pool2d(inputs[0], node.kernel, node.stride, ceil_mode=node.ceil)
            case Flatten():
                return inputs[0].flatten(1)
            case Softmax():
                return inputs[0]
        raise ValueError(f"{node.name}: no torch layer for {type(node).__name__}")


def as_input(patches: Any, axes: str) -> Any:
    """Patches (n, n_frames, n_coeffs) -> (n, 1, height, width) as the graph's axes say; a view."""
    return (patches.transpose(1, 2) if axes == "NCFT" else patches)[:, None]


def _has_weights(node: Node) -> bool:
    return isinstance(node, Conv | Linear | BatchNorm)


def _layer(graph: Graph, node: Node) -> nn.Module:
    shape = graph.input_shapes(node)[0]
    if isinstance(node, Conv):
        (top, bottom), (left, right) = node.pads
        padding = (top, left) if top == bottom and left == right else (0, 0)
        groups = shape[0] if node.depthwise else 1
        return nn.Conv2d(shape[0], node.channels, node.kernel, node.stride, padding, groups=groups, bias=node.bias)
    if isinstance(node, Linear):
        return nn.Linear(shape[0], node.channels, bias=node.bias)
    assert isinstance(node, BatchNorm)
    norm = nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d
    return norm(shape[0], eps=node.epsilon)


_NORM_NAMES = {"running_mean": "mean", "running_var": "variance"}


def weights_of(module: GraphModule) -> dict[str, npt.NDArray[np.float32]]:
    """The module's arrays as `<node>.weight`, `.bias`, and of a BatchNorm also `.mean` and `.variance`."""
    weights = {}
    for key, value in module.layers.state_dict().items():
        node, _, short = key.rpartition(".")
        if short != "num_batches_tracked":
            weights[f"{node}.{_NORM_NAMES.get(short, short)}"] = value.detach().cpu().float().numpy().copy()
    return weights


def load_weights(module: GraphModule, weights: Weights) -> None:
    """Put what `weights_of` gave back into the module; a missing array raises KeyError."""
    state = module.layers.state_dict()
    for key, value in state.items():
        node, _, short = key.rpartition(".")
        if short != "num_batches_tracked":
            value.copy_(torch.from_numpy(np.asarray(weights[f"{node}.{_NORM_NAMES.get(short, short)}"])))
    module.layers.load_state_dict(state)
