"""The integer model that a board runs: layers in order, each with its int8 weights and requantisation tables.

Maps are (height, width, channels), int8, row-major; a vector is a map (1, 1, channels). A layer's constants are
whole: nothing of the TFLite file is needed after `read_tflite`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Int8Array: TypeAlias = npt.NDArray[np.int8]
Int32Array: TypeAlias = npt.NDArray[np.int32]

Kind = Literal["conv", "depthwise", "linear", "average_pool", "mean", "add", "mul", "lookup", "softmax", "reshape"]


@dataclass(frozen=True)
class Map:
    """An int8 tensor between two layers: real = (q - zero_point) * scale."""

    name: str
    shape: tuple[int, int, int]  # height, width, channels
    scale: float
    zero_point: int

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layer:
    """One step. Which fields mean something depends on `kind`; see integer_ops for the arithmetic."""

    kind: Kind
    name: str
    inputs: tuple[int, ...]  # indexes of maps
    output: int
    kernel: tuple[int, int] = (1, 1)  # of conv, depthwise, average_pool; of mean: what is averaged
    stride: tuple[int, int] = (1, 1)
    pads: tuple[int, int] = (0, 0)  # top, left
    depth_multiplier: int = 1
    low: int = -128  # the activation's limits
    high: int = 127
    weights: Int8Array = field(default_factory=lambda: np.zeros(0, np.int8))
    """conv (out, kh, kw, in); depthwise (kh, kw, out); linear (out, in); lookup (256,)."""
    bias: Int32Array = field(default_factory=lambda: np.zeros(0, np.int32))
    """(out,); of softmax the 256 exponentials of differences 0, -1, ..., in 2^-31."""
    multipliers: Int32Array = field(default_factory=lambda: np.zeros(0, np.int32))
    shifts: Int32Array = field(default_factory=lambda: np.zeros(0, np.int32))
    """Requantisation: of each output channel; of add: first input, second input, output; else one."""
    operations: int = 0
    """As the reference's tables count them: MACs, and one a value for a bias (not of 1x1 kernels), pool and softmax."""


@dataclass(frozen=True)
class IntegerModel:
    """Maps and layers; map 0 is the input, the last layer's output the scores."""

    name: str
    maps: tuple[Map, ...]
    layers: tuple[Layer, ...]
    input_shape: tuple[int, ...]  # as the file has it, batch first

    @property
    def frame_size(self) -> int:
        """Values of one frame: the axis after the batch is time."""
        return self.input.size // self.input_shape[1]

    @property
    def input(self) -> Map:
        """The patch."""
        return self.maps[0]

    @property
    def output(self) -> Map:
        """The scores."""
        return self.maps[self.layers[-1].output]

    @property
    def weight_bytes(self) -> int:
        """Of int8 weights."""
        return sum(layer.weights.size for layer in self.layers)


def quantised_multiplier(real: float) -> tuple[int, int]:
    """`real` >= 0 as multiplier * 2^(shift - 31), multiplier in [2^30, 2^31). Source: TFLite QuantizeMultiplier."""
    if not math.isfinite(real) or real < 0:
        raise ValueError(f"scale: found {real}, wanted a number >= 0")
    if real == 0.0:
        return 0, 0
    share, shift = math.frexp(real)
    fixed = math.floor(share * (1 << 31) + 0.5)
    if fixed == 1 << 31:
        fixed, shift = fixed // 2, shift + 1
    if shift < -31:
        return 0, 0
    if shift > 30:
        raise ValueError(f"scale: found {real}, wanted less than 2^30")
    return fixed, shift


def table_of(values: Any) -> tuple[Int32Array, Int32Array]:
    """Multipliers and shifts of each real value."""
    pairs = [quantised_multiplier(float(v)) for v in values]
    return np.array([m for m, _ in pairs], np.int32), np.array([s for _, s in pairs], np.int32)
