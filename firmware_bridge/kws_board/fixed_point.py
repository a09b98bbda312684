"""Fixed-point arithmetic of TFLite's reference kernels, on int64 arrays that hold int32 values.

Source: gemmlowp fixedpoint.h and TFLite kernels/internal/common.h, softmax.h, logistic.h (double rounding).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Int64Array: TypeAlias = npt.NDArray[np.int64]
_MAX, _MIN = 2**31 - 1, -(2**31)


def high_mul(a: Any, b: Any) -> Int64Array:
    """SaturatingRoundingDoublingHighMul: round(a * b / 2^31), halves away from zero... as C's division makes them."""
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    quotient = np.where(nudged >= 0, nudged >> 31, -((-nudged) >> 31))
    return np.asarray(np.where((np.asarray(a) == _MIN) & (np.asarray(b) == _MIN), _MAX, quotient), np.int64)


def rounding_shift(x: Any, exponent: Any) -> Int64Array:
    """RoundingDivideByPOT: x / 2^exponent, halves away from zero."""
    x, exponent = np.asarray(x, np.int64), np.asarray(exponent, np.int64)
    mask = (np.int64(1) << exponent) - 1
    threshold = (mask >> 1) + (x < 0)
    return np.asarray((x >> exponent) + ((x & mask) > threshold), np.int64)


def requantised(x: Any, multiplier: Any, shift: Any) -> Int64Array:
    """MultiplyByQuantizedMultiplier: x * multiplier * 2^(shift - 31)."""
    shift = np.asarray(shift, np.int64)
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    return rounding_shift(high_mul(_wrapped(np.asarray(x, np.int64) << left), multiplier), right)


def requantised_once(x: Any, multiplier: Any, shift: Any) -> Int64Array:
    """The same rounded once, halves up: what TFLite's FULLY_CONNECTED does (ruy apply_multiplier)."""
    total = 31 - np.asarray(shift, np.int64)
    return np.asarray(
        (np.asarray(x, np.int64) * np.asarray(multiplier, np.int64) + (np.int64(1) << (total - 1))) >> total
    )


def _wrapped(x: Int64Array) -> Int64Array:
    """As int32 arithmetic leaves it."""
    return x.astype(np.int32).astype(np.int64)


def _saturating_left(x: Int64Array, exponent: int) -> Int64Array:
    return np.asarray(np.clip(x << exponent, _MIN, _MAX), np.int64)


def exp_of_negative(a: Any, integer_bits: int) -> Int64Array:
    """exp(a) in Q0.31 of a <= 0 in Q(integer_bits).(31 - integer_bits). Source: gemmlowp exp_on_negative_values."""
    a = np.asarray(a, np.int64)
    fraction_bits = 31 - integer_bits
    quarter = 1 << (fraction_bits - 2)
    modulo = (a & (quarter - 1)) - quarter
    result = _exp_quarter(_saturating_left(modulo, integer_bits))
    remainder = modulo - a
    factors = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
    for exponent, factor in zip(range(-2, 5), factors, strict=True):  # exp(-1/4) ... exp(-16), Q0.31
        if integer_bits > exponent:
            bit = 1 << (fraction_bits + exponent)
            result = np.where(remainder & bit, high_mul(result, factor), result)
    if integer_bits > 5:
        result = np.where(a < -(1 << (fraction_bits + 5)), 0, result)
    return np.asarray(np.where(a == 0, _MAX, result), np.int64)


def _exp_quarter(a: Int64Array) -> Int64Array:
    """exp(a) in Q0.31 for a in [-1/4, 0), Q0.31: a polynomial around -1/8."""
    x = a + (1 << 28)
    x2 = high_mul(x, x)
    x3 = high_mul(x2, x)
    x4 = high_mul(x2, x2)
    sixth = high_mul(rounding_shift(x4, 2) + x3, 715827883)
    return 1895147668 + high_mul(1895147668, x + rounding_shift(sixth + x2, 1))


def reciprocal(x: int, integer_bits: int) -> tuple[int, int]:
    """1 / x of a positive x in Q(integer_bits): the value in Q0.31, and bits to shift by. Source: GetReciprocal."""
    leading = 32 - int(x).bit_length()
    share = ((x << leading) & 0xFFFFFFFF) - (1 << 31)
    return int(_one_over_one_plus(np.int64(share))), integer_bits - leading


def _one_over_one_plus(a: Any) -> Int64Array:
    """1 / (1 + a) in Q0.31 for a in [0, 1], Q0.31: three Newton-Raphson steps."""
    total = np.asarray(a, np.int64) + _MAX
    half = np.where(total >= 0, (total + 1) // 2, -((-total + 1) // 2))  # RoundingHalfSum
    x = 1515870810 + high_mul(half, -1010580540)  # 48/17, -32/17 in Q2.29
    for _ in range(3):
        product = high_mul(half, x)
        x = x + _saturating_left(high_mul(x, (1 << 29) - product), 2)
    return _saturating_left(x, 1)


def logistic(a: Any, integer_bits: int) -> Int64Array:
    """1 / (1 + exp(-a)) in Q0.31 of a in Q(integer_bits). Source: gemmlowp logistic."""
    a = np.asarray(a, np.int64)
    positive = _one_over_one_plus(exp_of_negative(-np.abs(a), integer_bits))
    result = np.where(a > 0, positive, _MAX - positive)
    return np.asarray(np.where(a == 0, 1 << 30, result), np.int64)
