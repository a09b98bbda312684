"""Each supported operator -> a layer, its real scales turned into the integers of TFLite's reference kernels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from kws_board.errors import BoardError
from kws_board.fixed_point import exp_of_negative, logistic, requantised, rounding_shift
from kws_board.integer_model import Int8Array, Layer, Map, quantised_multiplier, table_of
from kws_board.integer_ops import ADD_LEFT_SHIFT
from kws_board.tflite_reading import Reading
from kws_board.tflite_windows import average_pool, convolution, linear, same_quantisation

# integer bits of the arguments that TFLite's kernels take: differences from 0 to -32, values from -16 to 16
_SOFTMAX_BITS, _LOGISTIC_BITS = 5, 4
_MOST_PAD = 64  # rows or columns at an edge: far beyond any kernel, and sums of it cannot overflow
_SHARE_SCALE, _SHARE_ZERO = 1 / 256, -128  # of softmax and logistic outputs: TFLite fixes these
_Q31_TO_INT8 = 31 - 8  # bits: from a share in 2^-31 to one in 2^-8


def unsupported(reading: Reading, op: Any) -> None:
    raise BoardError(f"{reading.name}: {reading.where}: not supported on the board")


def _mean(reading: Reading, op: Any) -> None:
    """MEAN over height, width or both of (height, width, channels). Raises BoardError."""
    source = reading.input_map(int(op.inputs[0]))
    # axes count from the file's rank, also backwards; here the batch is axis 0 of four: of a file's map of rank 3, axis
    # 1 is axis 2
    rank = len(reading.tensor(int(op.inputs[0])).shape)
    axes = {int(a) % rank + 4 - rank for a in reading.values(int(op.inputs[1]), np.int32).ravel()}
    height, width, channels = reading.maps[source].shape
    if not axes or axes - {1, 2}:
        raise BoardError(
            f"{reading.name}: {reading.where}: axes: found {sorted(axes)}, wanted height and width, or one"
        )
    kernel = (height if 1 in axes else 1, width if 2 in axes else 1)
    output = reading.add_map(int(op.outputs[0]))
    out_map = reading.maps[output]
    if out_map.size != height * width * channels // (kernel[0] * kernel[1]):
        raise BoardError(f"{reading.name}: {reading.where}: output: found {out_map.shape}, wanted the map's mean")
    # the axis that is left may have moved: same bytes
    shape = (height // kernel[0], width // kernel[1], channels)
    reading.maps[output] = Map(out_map.name, shape, out_map.scale, out_map.zero_point)
    # mean = sum / n, and the division goes into the multiplier: with real = multiplier * 2^(shift - 31),
    #     real / n = [(multiplier << by) / n] * 2^(shift - by - 31)
    # `by` keeps the bracket's leading bit: n.bit_length() - 1 bits fit, as TFLite's Mean does; at most 32, and never so
    # many that the shift falls below -31.
    n = kernel[0] * kernel[1]
    multiplier, shift = quantised_multiplier(float(np.float64(reading.maps[source].scale) / np.float64(out_map.scale)))
    by = min(n.bit_length() - 1, 32, 31 + shift)
    table = (np.array([(multiplier << by) // n], np.int32), np.array([shift - by], np.int32))
    reading.layers.append(
        Layer("mean", out_map.name, (source,), output, kernel=kernel, multipliers=table[0], shifts=table[1],
              operations=height * width * channels)
    )  # fmt: skip


def _add(reading: Reading, op: Any) -> None:
    """ADD of two maps of one shape. Raises BoardError."""
    first, second = (reading.input_map(int(i)) for i in op.inputs)
    output = reading.add_map(int(op.outputs[0]))
    one, two, out_map = reading.maps[first], reading.maps[second], reading.maps[output]
    if one.shape != two.shape or one.shape != out_map.shape:
        raise BoardError(f"{reading.name}: {reading.where}: found {one.shape} and {two.shape}, wanted one shape")
    # Both inputs are shifted left by ADD_LEFT_SHIFT and brought to steps of `twice`, half of which neither exceeds, so
    # that the sum fits into int32; then from those steps to the output's, the shift taken back:
    #     one / twice <= 1/2      two / twice <= 1/2      twice / (2^ADD_LEFT_SHIFT * out)
    twice = np.float64(2.0 * max(one.scale, two.scale))
    reals = [one.scale / twice, two.scale / twice, twice / ((1 << ADD_LEFT_SHIFT) * np.float64(out_map.scale))]
    _append_of_two(reading, op, "add", (first, second), output, reals)


def _mul(reading: Reading, op: Any) -> None:
    """MUL of two maps of one shape, or of a map and a value a channel. Raises BoardError."""
    first, second = (reading.input_map(int(i)) for i in op.inputs)
    # the larger one first: the other may be a value a channel, (1, 1, channels)
    if reading.maps[first].size < reading.maps[second].size:
        first, second = second, first
    output = reading.add_map(int(op.outputs[0]))
    one, two, out_map = reading.maps[first], reading.maps[second], reading.maps[output]
    if one.shape != out_map.shape or two.shape not in (one.shape, (1, 1, one.shape[2])):
        raise BoardError(f"{reading.name}: {reading.where}: found {one.shape} and {two.shape}, wanted (1, 1, channels)")
    real = np.float64(one.scale) * np.float64(two.scale) / np.float64(out_map.scale)
    _append_of_two(reading, op, "mul", (first, second), output, [real])


def _append_of_two(
    reading: Reading,
    op: Any,
    kind: Literal["add", "mul"],
    inputs: tuple[int, int],
    output: int,
    reals: list[np.float64],
) -> None:
    """A layer of two maps, value by value, scaled by these real numbers."""
    out_map = reading.maps[output]
    multipliers, shifts = table_of(reals)
    low, high = reading.limits(op.builtinOptions.fusedActivationFunction, out_map)
    reading.layers.append(
        Layer(kind, out_map.name, inputs, output, low=low, high=high, multipliers=multipliers, shifts=shifts,
              operations=out_map.size)
    )  # fmt: skip


def _fixed_output(reading: Reading, output: Map) -> None:
    if output.zero_point != _SHARE_ZERO or output.scale != _SHARE_SCALE:
        raise BoardError(f"{reading.name}: {reading.where}: output: found scale {output.scale}, wanted 1/256 and -128")


def _logistic(reading: Reading, op: Any) -> None:
    """LOGISTIC: 256 possible values make a table (256,), index q + 128. Raises BoardError."""
    source = reading.input_map(int(op.inputs[0]))
    output = reading.add_map(int(op.outputs[0]))
    _fixed_output(reading, reading.maps[output])
    in_map = reading.maps[source]
    multiplier, shift = quantised_multiplier(in_map.scale * float(1 << (31 - _LOGISTIC_BITS)))
    # centred (256,) = q - zero_point for q = -128 ... 127; the argument is that in Q4.27 (4 bits before the point).
    # Beyond +-radius Q4.27 would overflow, and the result is 0 or 1: -128 or 127 at 1/256 a step.
    radius = _input_radius(_LOGISTIC_BITS, shift)
    centred = np.arange(-128, 128) - in_map.zero_point
    argument = requantised(np.clip(centred, -radius, radius), multiplier, shift)
    values = rounding_shift(logistic(np.clip(argument, -(2**31) + 1, 2**31 - 1), _LOGISTIC_BITS), _Q31_TO_INT8) - 128
    values = np.where(centred <= -radius, -128, np.where(centred >= radius, 127, np.clip(values, -128, 127)))
    _lookup(reading, source, output, values.astype(np.int8))


def _relu(reading: Reading, op: Any) -> None:
    """A ReLU of its own requantises; 256 possible values make a table."""
    source = reading.input_map(int(op.inputs[0]))
    output = reading.add_map(int(op.outputs[0]))
    in_map, out_map = reading.maps[source], reading.maps[output]
    kinds = reading.schema.ActivationFunctionType
    low, high = reading.limits(kinds.RELU6 if reading.operator(op) == "RELU6" else kinds.RELU, out_map)
    multiplier, shift = quantised_multiplier(float(np.float64(in_map.scale) / np.float64(out_map.scale)))
    centred = requantised(np.arange(-128, 128) - in_map.zero_point, multiplier, shift)
    _lookup(reading, source, output, np.clip(centred + out_map.zero_point, low, high).astype(np.int8))


def _lookup(reading: Reading, source: int, output: int, table: Int8Array) -> None:
    if reading.maps[source].shape != reading.maps[output].shape:
        raise BoardError(f"{reading.name}: {reading.where}: found another shape after it, wanted the same")
    size = reading.maps[output].size
    name = reading.maps[output].name
    reading.layers.append(Layer("lookup", name, (source,), output, weights=table, operations=size))


def _input_radius(integer_bits: int, shift: int) -> int:
    """Steps of the input beyond which the result is at its limit, from TFLite's CalculateInputRadius.

    The largest argument, 2^integer_bits - 1 in Q(integer_bits), taken back through the requantisation by 2^shift.
    """
    return math.floor(((1 << integer_bits) - 1) * (1 << (31 - integer_bits)) / 2.0**shift)


def _softmax(reading: Reading, op: Any) -> None:
    """SOFTMAX over one row of scores. Raises BoardError."""
    source = reading.input_map(int(op.inputs[0]))
    output = reading.add_map(int(op.outputs[0]))
    in_map, out_map = reading.maps[source], reading.maps[output]
    _fixed_output(reading, out_map)
    if in_map.shape != out_map.shape or in_map.size != in_map.shape[2]:
        raise BoardError(f"{reading.name}: {reading.where}: found {in_map.shape}, wanted one row of scores")
    real = min(float(op.builtinOptions.beta) * in_map.scale * (1 << (31 - _SOFTMAX_BITS)), 2.0**31 - 1.0)
    multiplier, shift = quantised_multiplier(real)
    # A score's difference from the greatest is one of 0, -1, ..., -255 steps: their exponentials, in 2^-31, are a table
    # (256,). Index: how far below the greatest a score is.
    differences = -np.arange(256)
    arguments = requantised(differences, multiplier, shift)
    exponentials = exp_of_negative(np.minimum(arguments, 0), _SOFTMAX_BITS)
    exponentials = np.where(differences >= -_input_radius(_SOFTMAX_BITS, shift), exponentials, 0)
    table = exponentials.astype(np.int32)
    reading.layers.append(Layer("softmax", out_map.name, (source,), output, bias=table, operations=in_map.size))


def _reshape(reading: Reading, op: Any) -> None:
    """RESHAPE: the same bytes, known by another shape; where that is the same too, by another index only."""
    source = reading.input_map(int(op.inputs[0]))
    before, index = reading.maps[source], int(op.outputs[0])
    output = reading.add_map(index)
    after = reading.maps.pop(output)
    same_quantisation(reading, before, after)
    if after.size != before.size:
        raise BoardError(
            f"{reading.name}: {reading.where}: found {before.shape} to {after.shape}, wanted as many values"
        )
    if after.shape == before.shape:
        reading.map_of[index] = source
        return
    reading.maps.append(after)
    reading.layers.append(Layer("reshape", after.name, (source,), output))


def _pad(reading: Reading, op: Any) -> None:
    """PAD: no layer of its own; the convolution that reads it takes the amounts (_source). Raises BoardError."""
    # amounts (4, 2): before and after, of batch, height, width, channels
    source = reading.input_map(int(op.inputs[0]))
    index = int(op.outputs[0])
    amounts = reading.values(int(op.inputs[1]), np.int32)
    if amounts.shape != (4, 2) or np.any(amounts < 0) or np.any(amounts[[0, 3]] != 0) or np.any(amounts > _MOST_PAD):
        raise BoardError(f"{reading.name}: {reading.where}: found {amounts.tolist()}, wanted height and width padded")
    reading.add_map(index)
    padded = reading.maps.pop()
    del reading.map_of[index]
    same_quantisation(reading, reading.maps[source], padded)
    reading.pads[index] = (source, tuple(int(a) for a in amounts[1:3].ravel()))


OPERATORS: dict[str, Callable[[Reading, Any], None]] = {
    "CONV_2D": convolution,
    "DEPTHWISE_CONV_2D": convolution,
    "FULLY_CONNECTED": linear,
    "AVERAGE_POOL_2D": average_pool,
    "MEAN": _mean,
    "ADD": _add,
    "MUL": _mul,
    "LOGISTIC": _logistic,
    "RELU": _relu,
    "RELU6": _relu,
    "SOFTMAX": _softmax,
    "RESHAPE": _reshape,
    "PAD": _pad,
}
