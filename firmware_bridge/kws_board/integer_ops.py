"""NumPy reference of every layer: what the board computes, bit by bit. Maps are (n, height, width, channels) int8.

Source: TFLite's reference kernels (kernels/internal/reference), with which a test compares it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from kws_board.fixed_point import high_mul, reciprocal, requantised, requantised_once, rounding_shift
from kws_board.integer_model import Int8Array, IntegerModel, Layer, Map

ADD_LEFT_SHIFT = 20  # headroom that ADD gives both its inputs
_SUM_BITS = 12  # integer bits of softmax's sum


def run(model: IntegerModel, patches: Int8Array) -> Int8Array:
    """Scores (n, n_classes), int8, of patches (n, height, width, channels) or (n, height * width * channels), int8."""
    return run_maps(model, patches)[model.layers[-1].output].reshape(len(patches), -1)


def run_maps(model: IntegerModel, patches: Int8Array) -> dict[int, Int8Array]:
    """Every map by its index."""
    maps = {0: np.asarray(patches, np.int8).reshape(len(patches), *model.input.shape)}
    for layer in model.layers:
        values = [maps[i] for i in layer.inputs]
        maps[layer.output] = _OPS[layer.kind](layer, model.maps, values).astype(np.int8)
    return maps


def _zero_points(layer: Layer, maps: tuple[Map, ...]) -> tuple[list[int], int]:
    return [maps[i].zero_point for i in layer.inputs], maps[layer.output].zero_point


def _activated(layer: Layer, values: Any, zero_point: int) -> Any:
    return np.clip(values + zero_point, layer.low, layer.high)


def _windows(layer: Layer, values: Any, size: tuple[int, int], zero_point: int) -> Any:
    """Padded input's windows (n, out_h, out_w, channels, kh, kw), less the zero point."""
    (kh, kw), (sh, sw), (top, left) = layer.kernel, layer.stride, layer.pads
    _, height, width, _ = values.shape
    bottom = max(0, (size[0] - 1) * sh + kh - height - top)
    right = max(0, (size[1] - 1) * sw + kw - width - left)
    centred = values.astype(np.int32) - zero_point
    padded = np.pad(centred, ((0, 0), (top, bottom), (left, right), (0, 0)))
    return sliding_window_view(padded, (kh, kw), axis=(1, 2))[:, ::sh, ::sw][:, : size[0], : size[1]]


def _conv(layer: Layer, maps: tuple[Map, ...], values: list[Any]) -> Any:
    (zero_point,), out_zero_point = _zero_points(layer, maps)
    windows = _windows(layer, values[0], maps[layer.output].shape[:2], zero_point)
    # sums stay below 2^53: exact in float64, whose matrix product is the fast one
    flat = windows.transpose(0, 1, 2, 4, 5, 3).reshape(*windows.shape[:3], -1).astype(np.float64)
    sums = (flat @ layer.weights.reshape(len(layer.weights), -1).T.astype(np.float64)).astype(np.int64)
    return _activated(layer, requantised(sums + layer.bias, layer.multipliers, layer.shifts), out_zero_point)


def _depthwise(layer: Layer, maps: tuple[Map, ...], values: list[Any]) -> Any:
    (zero_point,), out_zero_point = _zero_points(layer, maps)
    repeated = np.repeat(values[0], layer.depth_multiplier, axis=3)
    windows = _windows(layer, repeated, maps[layer.output].shape[:2], zero_point)
    sums = np.einsum("nhwcij,ijc->nhwc", windows, layer.weights.astype(np.int32)).astype(np.int64)
    return _activated(layer, requantised(sums + layer.bias, layer.multipliers, layer.shifts), out_zero_point)


def _linear(layer: Layer, maps: tuple[Map, ...], values: list[Any]) -> Any:
    (zero_point,), out_zero_point = _zero_points(layer, maps)
    centred = values[0].reshape(len(values[0]), -1).astype(np.int64) - zero_point
    sums = centred @ layer.weights.T.astype(np.int64) + layer.bias
    out = _activated(layer, requantised_once(sums, layer.multipliers, layer.shifts), out_zero_point)
    return out[:, None, None, :]


def _average_pool(layer: Layer, maps: tuple[Map, ...], values: list[Any]) -> Any:
    """Mean of what lies inside the map, rounded half away from zero; same scale in and out."""
    size = maps[layer.output].shape[:2]
    sums = _windows(layer, values[0], size, 0).sum((4, 5))
    counts = _windows(layer, np.ones_like(values[0]), size, 0).sum((4, 5))
    halves = np.where(sums > 0, counts // 2, -(counts // 2))
    return np.clip(np.trunc((sums + halves) / counts).astype(np.int64), layer.low, layer.high)


def _mean(layer: Layer, maps: tuple[Map, ...], values: list[Any]) -> Any:
    (zero_point,), out_zero_point = _zero_points(layer, maps)
    axes = tuple(axis for axis, size in zip((1, 2), layer.kernel, strict=True) if size > 1)
    sums = values[0].astype(np.int64).sum(axes, keepdims=True) - zero_point * layer.kernel[0] * layer.kernel[1]
    return _activated(layer, requantised(sums, layer.multipliers[0], layer.shifts[0]), out_zero_point)


def _add(layer: Layer, maps: tuple[Map, ...], values: list[Any]) -> Any:
    zero_points, out_zero_point = _zero_points(layer, maps)
    total: Any = 0
    for value, zero_point, multiplier, shift in zip(
        values, zero_points, layer.multipliers[:2], layer.shifts[:2], strict=True
    ):
        centred = (value.astype(np.int64) - zero_point) << ADD_LEFT_SHIFT
        total = total + requantised(centred, multiplier, shift)
    return _activated(layer, requantised(total, layer.multipliers[2], layer.shifts[2]), out_zero_point)


def _mul(layer: Layer, maps: tuple[Map, ...], values: list[Any]) -> Any:
    (first, second), out_zero_point = _zero_points(layer, maps)
    product = (values[0].astype(np.int64) - first) * (values[1].astype(np.int64) - second)
    return _activated(layer, requantised(product, layer.multipliers[0], layer.shifts[0]), out_zero_point)


def _lookup(layer: Layer, maps: tuple[Map, ...], values: list[Any]) -> Any:
    return layer.weights[values[0].astype(np.int64) + 128]


def _softmax(layer: Layer, maps: tuple[Map, ...], values: list[Any]) -> Any:
    rows = values[0].reshape(len(values[0]), -1).astype(np.int64)
    exponentials = layer.bias.astype(np.int64)[rows.max(1, keepdims=True) - rows]
    sums = rounding_shift(exponentials, _SUM_BITS).sum(1)
    out = np.empty(rows.shape, np.int64)
    for i, total in enumerate(sums):
        share, bits_over_unit = reciprocal(int(total), _SUM_BITS)
        out[i] = rounding_shift(high_mul(share, exponentials[i]), bits_over_unit + 31 - 8) - 128
    return np.clip(out, -128, 127)[:, None, None, :]


def _reshape(layer: Layer, maps: tuple[Map, ...], values: list[Any]) -> Any:
    return values[0].reshape(len(values[0]), *maps[layer.output].shape)


_OPS = {
    "conv": _conv,
    "depthwise": _depthwise,
    "linear": _linear,
    "average_pool": _average_pool,
    "mean": _mean,
    "add": _add,
    "mul": _mul,
    "lookup": _lookup,
    "softmax": _softmax,
    "reshape": _reshape,
}
