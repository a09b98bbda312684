"""A graph without batch normalisation in torch, that rounds as its int8 file will: quantisation-aware training.

Weights get a scale per channel (convolutions) or per layer (linear ones), maps the ranges that they will have in the
file; gradients pass through the rounding (straight-through estimator, Jacob et al., CVPR 2018).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

from kws_models.export.integer_maps import Ranges, fused_relus, quantisation_of, scale_of
from kws_models.training.torch_module import GraphModule
from kws_models.zoo.graph import Conv, Flatten, Graph, Linear, MaxPool, Node, Softmax

_KEEP_SCALE = (Softmax, MaxPool, Flatten)  # maps that are not rounded anew


class IntegerModule(GraphModule):
    """`forward` as GraphModule's, through int8 maps and weights; `ranges` as tflite_writer wants them."""

    def __init__(self, graph: Graph, ranges: Ranges, dropout: float = 0.0) -> None:
        super().__init__(graph, dropout)
        fused = fused_relus(graph)
        self._rounded: Mapping[str, tuple[float, int]] = {
            name: scale_of(quantisation_of(*ranges[name]))
            for name in ("input", *(n.name for n in graph.nodes if not isinstance(n, _KEEP_SCALE)))
            if name not in fused and not (name == "input" and graph.axes == "NCT")  # samples stay float
        }
        self._float_layers = {graph.nodes[0].name} if graph.axes == "NCT" else set()

    def _input(self, patches: Any) -> Any:
        return self._round("input", patches)

    def _run(self, node: Node, inputs: list[Any]) -> Any:
        match node:
            case Conv() if node.name not in self._float_layers:
                layer = self.layers[node.name]
                values, padding = self._padded(node, inputs[0], layer.padding)
                weight = rounded_per_channel(layer.weight)
                out = functional.conv2d(values, weight, layer.bias, layer.stride, padding, 1, layer.groups)
            case Linear():
                layer = self.layers[node.name]
                out = functional.linear(inputs[0], rounded_per_layer(layer.weight), layer.bias)
            case _:
                out = super()._run(node, inputs)
        return self._round(node.name, out)

    def _round(self, name: str, values: Any) -> Any:
        if name not in self._rounded:
            return values
        scale, zero_point = self._rounded[name]
        return torch.fake_quantize_per_tensor_affine(values, scale, zero_point, -128, 127)


def rounded_per_channel(weight: Any) -> Any:
    """Weight (channels, ...) on its channels' int8 grids, symmetric, -127 ... 127."""
    scale = weight.detach().abs().flatten(1).amax(1).clamp_min(1e-7) / 127.0
    zero = torch.zeros(len(scale), dtype=torch.int32, device=weight.device)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -127, 127)


def rounded_per_layer(weight: Any) -> Any:
    """Weight on one int8 grid, symmetric, -127 ... 127."""
    scale = weight.detach().abs().amax().clamp_min(1e-7) / 127.0
    zero = torch.zeros(1, dtype=torch.int32, device=weight.device)
    return torch.fake_quantize_per_tensor_affine(weight, scale, zero, -127, 127)
