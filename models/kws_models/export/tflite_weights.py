"""Weights and biases as TFLite lays them out, in float32 or int8."""

from __future__ import annotations

from typing import Any

import numpy as np

from kws_models.export.tflite_file import Quantisation
from kws_models.export.tflite_maps import Writer
from kws_models.zoo.graph import Conv, Flatten, Linear, WidthMean

_LIMIT = 127  # of int8 weights: symmetric, so that -128 is not used
_LEAST_SCALE = 1e-9  # of weights that are all 0, which any scale represents
_BIAS_LIMIT = 2**31 - 1  # of an int32 bias, symmetric as well


def linear_constants(writer: Writer, node: Linear) -> tuple[int, int]:
    """A linear layer's weight (channels, channels_in) and bias, in the order in which the file's vector lies.

    One scale for the whole weight matrix: older runtimes know no other for FULLY_CONNECTED.
    """
    # Column j of the weight belongs to value j of the vector. A vector that was a map lies channels first in the graph
    # and channels last in the file, so the columns are taken apart, turned and put together again:
    #
    #     graph  c0h0w0 c0h0w1 c0h1w0 ...  c1h0w0 ...        (c, h, w)
    #     file   h0w0c0 h0w0c1 ...  h0w1c0 ...               (h, w, c)
    weight = np.asarray(writer.weights[f"{node.name}.weight"])
    source = next((n for n in writer.graph.nodes if n.name == node.inputs[0]), None)
    if isinstance(source, Flatten):  # the file's vector is (height, width, channels), the graph's channels first
        channels, *_ = shape = writer.graph.input_shapes(source)[0]
        weight = weight.reshape(-1, *shape).transpose(0, 2, 3, 1).reshape(len(weight), -1)
    if isinstance(source, WidthMean):  # the file's vector is (height, channels), the graph's (channels, height)
        channels, height, _ = writer.graph.input_shapes(source)[0]
        weight = weight.reshape(-1, channels, height).transpose(0, 2, 1).reshape(len(weight), -1)
    return constants(writer, node, weight, channel_axis=None)


def constants(writer: Writer, node: Conv | Linear, weight: Any, channel_axis: int | None) -> tuple[int, int]:
    """Weight (int8, symmetric) and bias (int32, scale = input x weight), or both float32; their tensors.

    `channel_axis`: of the weight, the one that has a scale for each index; None: one scale for all.
    """
    # accumulator (int32) = sum of q_weight * (q_input - zero_point) + q_bias, in steps of input_scale * weight_scale:
    # so the bias is on that grid too. `scale` keeps the weight's rank, 1 on all axes but channel_axis, and divides it.
    name, model = node.name, writer.model
    bias = np.asarray(writer.weights.get(f"{name}.bias", np.zeros(node.channels, np.float32)))
    if node.inputs[0] not in writer.quantisations:
        return model.constant(f"{name}.weight", weight.astype(np.float32)), model.constant(f"{name}.bias", bias)
    axes = None if channel_axis is None else tuple(a for a in range(weight.ndim) if a != channel_axis)
    scale = np.maximum(np.abs(weight).max(axis=axes, keepdims=True) / _LIMIT, _LEAST_SCALE).astype(np.float32)
    quantised = np.clip(np.rint(weight / scale), -_LIMIT, _LIMIT).astype(np.int8)
    bias_scale = np.float64(writer.quantisations[node.inputs[0]].scales[0]) * scale.ravel().astype(np.float64)
    quantised_bias = np.clip(np.rint(bias / bias_scale), -_BIAS_LIMIT, _BIAS_LIMIT).astype(np.int32)
    if channel_axis is None:
        of_weight, of_bias = Quantisation.of(float(scale.ravel()[0])), Quantisation.of(float(bias_scale[0]))
    else:
        of_weight = Quantisation.per_channel(scale, channel_axis)
        of_bias = Quantisation.per_channel(bias_scale, 0)
    return (
        model.constant(f"{name}.weight", quantised, of_weight),
        model.constant(f"{name}.bias", quantised_bias, of_bias),
    )
