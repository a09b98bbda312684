"""Operators of TFLite that look at a window or at a whole map with weights: convolutions, linear layers, pools."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kws_board.errors import BoardError
from kws_board.integer_model import Layer, Map, table_of
from kws_board.tflite_reading import Reading


def _window(reading: Reading, options: Any, source: Map, kernel: tuple[int, int]) -> dict[str, Any]:
    """Stride, pads and the output's size, as TFLite computes them."""
    if getattr(options, "dilationHFactor", 1) != 1 or getattr(options, "dilationWFactor", 1) != 1:
        raise BoardError(f"{reading.name}: {reading.where}: found a dilation, wanted none")
    # TFLite pads total = (out - 1) * stride + kernel - size in all, half of it, rounded down, before the map. The board
    # needs only that half: what lies beyond the far edge follows from the output's size.
    #
    #     size 5, kernel 4, stride 2, SAME: out 3, total 3     0|x x x x x|0 0     pads[0] = 1
    stride = (int(options.strideH), int(options.strideW))
    if min(stride) < 1 or min(kernel) < 1:
        raise BoardError(f"{reading.name}: {reading.where}: found stride {stride}, kernel {kernel}, wanted >= 1")
    same = options.padding == reading.schema.Padding.SAME
    pads = []
    for size, k, s in zip(source.shape, kernel, stride, strict=False):
        out = -(-size // s) if same else (size + s - k) // s
        pads.append(max(0, (out - 1) * s + k - size) // 2 if same else 0)
    return {"kernel": kernel, "stride": stride, "pads": (pads[0], pads[1])}


def _source(reading: Reading, op: Any, options: Any) -> tuple[int, tuple[int, ...] | None]:
    """The map that a convolution reads, and the PAD before it (top, bottom, left, right)."""
    index = int(op.inputs[0])
    if index not in reading.pads:
        return reading.input_map(index), None
    source, amounts = reading.pads[index]
    if options.padding != reading.schema.Padding.VALID:
        raise BoardError(f"{reading.name}: {reading.where}: found SAME after a PAD, wanted VALID")
    return source, amounts


def _checked_size(reading: Reading, layer: Layer, padding: tuple[int, ...] | None, same: bool) -> None:
    """The output's height and width are what kernel, stride and padding give."""
    height, width, _ = reading.maps[layer.inputs[0]].shape
    top, bottom, left, right = padding or (0, 0, 0, 0)
    sizes = (height + top + bottom, width + left + right)
    wanted = tuple(
        -(-n // s) if same else (n + s - k) // s for n, k, s in zip(sizes, layer.kernel, layer.stride, strict=True)
    )
    found = reading.maps[layer.output].shape[:2]
    if found != wanted or min(wanted) < 1:
        raise BoardError(f"{reading.name}: {reading.where}: output: found {found}, wanted {wanted}")


def _bias(reading: Reading, op: Any, n: int) -> Any:
    """int32 (n,), zeros where the file has none. Raises BoardError."""
    if len(op.inputs) < 3 or int(op.inputs[2]) < 0:
        return np.zeros(n, np.int32)
    bias = reading.values(int(op.inputs[2]), np.int32).ravel()
    if len(bias) != n:
        raise BoardError(f"{reading.name}: {reading.where}: bias: found {len(bias)}, wanted {n}")
    return bias


def _weight_scales(reading: Reading, index: int, n: int) -> Any:
    """float64 (n,): of each output channel, the same for all where the file has one. Raises BoardError."""
    scales, points = reading.scales(index), reading.tensor(index).quantization.zeroPoint
    if points is not None and np.any(np.asarray(points) != 0):
        raise BoardError(f"{reading.name}: {reading.where}: found weights with a zero point, wanted 0")
    if len(scales) not in (1, n):
        raise BoardError(f"{reading.name}: {reading.where}: found {len(scales)} weight scales, wanted 1 or {n}")
    return np.broadcast_to(scales, n).astype(np.float64)


def _kernels(reading: Reading, op: Any, channels: int, depthwise: bool) -> tuple[Any, int, int]:
    """int8 weights of four axes for a map of so many channels, their channels out, and in (depthwise: 1)."""
    weights = reading.values(int(op.inputs[1]), np.int8)
    if weights.ndim != 4:
        raise BoardError(f"{reading.name}: {reading.where}: weights: found {weights.ndim} axes, wanted 4")
    n, inputs = (weights.shape[3], weights.shape[0]) if depthwise else (weights.shape[0], weights.shape[3])
    if (depthwise and (inputs != 1 or n % channels)) or (not depthwise and inputs != channels):
        found = "x".join(map(str, weights.shape))
        raise BoardError(f"{reading.name}: {reading.where}: weights: found {found} for {channels} channels (no groups)")
    return weights, n, inputs


def convolution(reading: Reading, op: Any) -> None:
    """CONV_2D, weights (out, kh, kw, in), and DEPTHWISE_CONV_2D, weights (1, kh, kw, out), out = in * multiplier.

    Raises BoardError; the reading is then of no use.
    """
    options = op.builtinOptions
    source, padding = _source(reading, op, options)
    depthwise = reading.operator(op) == "DEPTHWISE_CONV_2D"
    shape = reading.maps[source].shape
    weights, n, inputs = _kernels(reading, op, shape[2], depthwise)
    kernel = (weights.shape[1], weights.shape[2])
    window = _window(reading, options, reading.maps[source], kernel)
    if padding is not None:
        window["pads"] = (padding[0], padding[2])
    scales = _weight_scales(reading, int(op.inputs[1]), n)
    bias = _bias(reading, op, n)
    output = reading.add_map(int(op.outputs[0]))
    out_map = reading.maps[output]
    if out_map.shape[2] != n:
        raise BoardError(f"{reading.name}: {reading.where}: output: found {out_map.shape[2]} channels, wanted {n}")
    # int32 sums are in steps of in_scale * weight_scale, the output in steps of out_scale: their quotient, a channel
    multipliers, shifts = table_of(np.float64(reading.maps[source].scale) * scales / np.float64(out_map.scale))
    low, high = reading.limits(options.fusedActivationFunction, out_map)
    layer = Layer(
        kind="depthwise" if depthwise else "conv",
        name=out_map.name,
        inputs=(source,),
        output=output,
        depth_multiplier=n // shape[2] if depthwise else 1,
        low=low,
        high=high,
        weights=np.ascontiguousarray(weights[0] if depthwise else weights),
        bias=bias,
        multipliers=multipliers,
        shifts=shifts,
        operations=out_map.size * (kernel[0] * kernel[1] * (1 if depthwise else inputs) + (kernel != (1, 1))),
        **window,
    )
    _checked_size(reading, layer, padding, options.padding == reading.schema.Padding.SAME)
    reading.layers.append(layer)


def linear(reading: Reading, op: Any) -> None:
    """FULLY_CONNECTED: weights (out, in) of the map's values as they lie. Raises BoardError."""
    source = reading.input_map(int(op.inputs[0]))
    weights = reading.values(int(op.inputs[1]), np.int8)
    if weights.ndim != 2 or weights.shape[1] != reading.maps[source].size:
        found = "x".join(map(str, weights.shape))
        raise BoardError(
            f"{reading.name}: {reading.where}: weights: found {found} for {reading.maps[source].size} values"
        )
    n = len(weights)
    bias = _bias(reading, op, n)
    output = reading.add_map(int(op.outputs[0]))
    out_map = reading.maps[output]
    if out_map.size != n:
        raise BoardError(f"{reading.name}: {reading.where}: output: found {out_map.size} values, wanted {n}")
    in_scale, scales = reading.maps[source].scale, _weight_scales(reading, int(op.inputs[1]), n)
    if len(reading.scales(int(op.inputs[1]))) == 1:  # one scale: the product is rounded to float32 first
        products = np.full(n, np.float64(in_scale) * scales[0])
    else:
        products = np.float64(in_scale) * scales
    multipliers, shifts = table_of(products / np.float64(out_map.scale))
    low, high = reading.limits(op.builtinOptions.fusedActivationFunction, out_map)
    reading.layers.append(
        Layer(
            "linear", out_map.name, (source,), output, low=low, high=high, weights=weights, bias=bias,
            multipliers=multipliers, shifts=shifts, operations=weights.size,
        )
    )  # fmt: skip


def same_quantisation(reading: Reading, source: Map, output: Map) -> None:
    if (source.scale, source.zero_point) != (output.scale, output.zero_point):
        raise BoardError(
            f"{reading.name}: {reading.where}: found another scale or zero point after it, wanted the same"
        )


def average_pool(reading: Reading, op: Any) -> None:
    """AVERAGE_POOL_2D: the edge's windows are means of what lies inside the map. Raises BoardError."""
    options, source = op.builtinOptions, reading.input_map(int(op.inputs[0]))
    kernel = (int(options.filterHeight), int(options.filterWidth))
    window = _window(reading, options, reading.maps[source], kernel)
    output = reading.add_map(int(op.outputs[0]))
    out_map = reading.maps[output]
    same_quantisation(reading, reading.maps[source], out_map)
    low, high = reading.limits(options.fusedActivationFunction, out_map)
    operations = math.prod(out_map.shape) * kernel[0] * kernel[1]
    layer = Layer("average_pool", out_map.name, (source,), output, low=low, high=high, operations=operations, **window)
    _checked_size(reading, layer, None, options.padding == reading.schema.Padding.SAME)
    if out_map.shape[2] != reading.maps[source].shape[2]:
        raise BoardError(f"{reading.name}: {reading.where}: found another number of channels, wanted the same")
    reading.layers.append(layer)
