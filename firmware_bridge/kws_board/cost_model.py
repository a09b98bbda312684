"""Cycles of a layer on GAP8's eight cores, from the reference's three tables: modelled, not measured.

conv = a * interior MACs + b * MACs of windows that touch the padding; depthwise = a * MACs + b * channels;
pointwise = a * MACs + b * outputs; linear and pool = a * MACs + b; softmax constant. Elementwise layers, which no table
has, are taken as pool is. The coefficients are fitted to relative errors, so that small layers count too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kws_board.image import BoardImage
from kws_board.integer_model import IntegerModel, Layer

CLOCK_HZ = 175e6  # of the reference's later figures
L1_BYTES, L2_BYTES = 64 << 10, 350 << 10  # cluster memory; what a network can have of the 512 kB


@dataclass(frozen=True)
class Row:
    """One layer of a reference table, and what its cost depends on."""

    kind: str  # conv, depthwise, pointwise, pool, linear, softmax
    features: tuple[float, float]
    cycles: int


# model_size_info of the reference (channels, kernel, stride) and its cycles measured on gvsoc, in order
_SIZES: dict[str, tuple[tuple[int, int], tuple[tuple[int, int, int, int, int], ...]]] = {
    "dscnn-s": ((49, 10), ((64, 10, 4, 2, 2), *((64, 3, 3, 1, 1),) * 4)),
    "dscnn-m": ((49, 10), ((172, 10, 4, 2, 1), (172, 3, 3, 2, 2), *((172, 3, 3, 1, 1),) * 3)),
    "dscnn-l": ((98, 40), ((276, 10, 4, 2, 1), (276, 3, 3, 2, 2), *((276, 3, 3, 1, 1),) * 4)),
}
REFERENCE_CYCLES: dict[str, tuple[int, ...]] = {
    "dscnn-s": (452888, 25941, 61355, 25110, 61014, 24764, 60839, 24688, 60851, 6854, 1997, 1674),
    "dscnn-m": (2272137, 40641, 183783, 40043, 183693, 39190, 183416, 38997, 183318, 10874, 2327, 1725),
    "dscnn-l": (
        17633372, 988987, 3520441, 357840, 3522691, 357554, 3520868, 381909, 3675423, 357884, 3522190,
        46264, 2663, 1613,
    ),
}  # fmt: skip
"""MODEL_ZOO 2: per layer, in order conv1, (depthwise, pointwise) x n, pool, linear, softmax."""


def reference_rows(name: str) -> list[Row]:
    """The reference's table of `name` with each layer's features."""
    size, layers = _SIZES[name]
    shapes: list[tuple[str, tuple[float, float]]] = []
    channels = 1
    for i, (out, kh, kw, sh, sw) in enumerate(layers):
        after = (-(-size[0] // sh), -(-size[1] // sw))
        if i == 0:
            shapes.append(("conv", _conv_features(size, after, (kh, kw), (sh, sw), channels, out)))
        else:
            shapes.append(("depthwise", (float(math.prod(after) * channels * kh * kw), float(channels))))
            shapes.append(("pointwise", (float(math.prod(after) * channels * out), float(math.prod(after) * out))))
        size, channels = after, out
    shapes += [
        ("pool", (float(math.prod(size) * channels), 1.0)),
        ("linear", (float(channels * 12), 1.0)),
        ("softmax", (0.0, 1.0)),
    ]
    cycles = REFERENCE_CYCLES[name]
    return [Row(kind, features, n) for (kind, features), n in zip(shapes, cycles, strict=True)]


def _conv_features(
    size: tuple[int, int],
    after: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    c_in: int,
    c_out: int,
) -> tuple[float, float]:
    """MACs of windows wholly inside the map, and of those that touch the padding."""
    inside = []
    for n, out, k, s in zip(size, after, kernel, stride, strict=True):
        pad = max(0, (out - 1) * s + k - n) // 2
        first = np.arange(out) * s - pad
        inside.append(int(((first >= 0) & (first + k <= n)).sum()))
    macs = math.prod(kernel) * c_in * c_out
    interior = math.prod(inside)
    return float(interior * macs), float((math.prod(after) - interior) * macs)


Coefficients = dict[str, tuple[float, float]]


def fit(names: tuple[str, ...]) -> Coefficients:
    """Least squares of relative errors over the reference's tables `names`; coefficients are never negative."""
    rows = [row for name in names for row in reference_rows(name)]
    fitted: Coefficients = {}
    for kind in {row.kind for row in rows}:
        mine = [row for row in rows if row.kind == kind]
        features = np.array([row.features for row in mine])
        cycles = np.array([row.cycles for row in mine], np.float64)
        fitted[kind] = _non_negative(features / cycles[:, None])
    return fitted


def _non_negative(shares: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> tuple[float, float]:
    """Coefficients (a, b) >= 0 for which shares @ (a, b) is nearest to 1."""
    ones = np.ones(len(shares))
    best, least = (0.0, 0.0), math.inf
    for kept in ([0, 1], [0], [1]):
        found, *_ = np.linalg.lstsq(shares[:, kept], ones, rcond=None)
        if (found < 0).any():
            continue
        error = float(((shares[:, kept] @ found - ones) ** 2).sum())
        if error < least - 1e-12:
            full = [0.0, 0.0]
            for i, value in zip(kept, found, strict=True):
                full[i] = float(value)
            best, least = (full[0], full[1]), error
    return best


def predicted(rows: list[Row], coefficients: Coefficients) -> list[float]:
    """Cycles of each row."""
    return [a * row.features[0] + b * row.features[1] for row in rows for a, b in [coefficients[row.kind]]]


@dataclass(frozen=True)
class Estimate:
    """What a model would take on GAP8, by the model of the reference's tables."""

    cycles: tuple[int, ...]  # of each layer
    ms: float  # at CLOCK_HZ
    image_bytes: int
    arena_bytes: int

    @property
    def place(self) -> str:
        """The nearest memory that holds weights and maps."""
        total = self.image_bytes + self.arena_bytes
        if total <= L1_BYTES:
            return "L1"
        if total <= L2_BYTES:
            return "L2"
        return "L3 (weights or maps streamed from HyperRAM: slower than modelled)"


def estimate(image: BoardImage) -> Estimate:
    """Modelled cycles of each step of the image."""
    coefficients = fit(tuple(REFERENCE_CYCLES))
    cycles = tuple(round(_layer_cycles(image.model, layer, coefficients)) for layer in image.steps)
    weights = len(image.content)
    return Estimate(cycles, 1000.0 * sum(cycles) / CLOCK_HZ, weights, image.plan.arena_bytes)


def _layer_cycles(model: IntegerModel, layer: Layer, coefficients: Coefficients) -> float:
    source, out = model.maps[layer.inputs[0]].shape, model.maps[layer.output].shape
    if layer.kind == "conv" and layer.kernel == (1, 1):
        kind, features = "pointwise", (float(layer.operations), float(math.prod(out)))
    elif layer.kind == "conv":
        kind = "conv"
        features = _conv_features(source[:2], out[:2], layer.kernel, layer.stride, source[2], out[2])
    elif layer.kind == "depthwise":
        macs = layer.operations - (math.prod(out) if layer.kernel != (1, 1) else 0)
        kind, features = "depthwise", (float(macs), float(out[2]))
    elif layer.kind in ("linear", "softmax"):
        kind, features = layer.kind, (float(layer.operations) if layer.kind == "linear" else 0.0, 1.0)
    else:
        kind, features = "pool", (float(layer.operations), 1.0)
    a, b = coefficients[kind]
    return a * features[0] + b * features[1]
