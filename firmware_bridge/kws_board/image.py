"""IntegerModel -> board image: what the firmware runs (layout: firmware/core/kws_image.h), and its memory plan.

Maps share one arena: each has a place while it is needed. The zero point's part of every convolution is in its bias.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from kws_board.errors import BoardError
from kws_board.integer_model import Int8Array, Int32Array, IntegerModel, Layer

MAGIC, VERSION = 0x4253574B, 1
HEADER_WORDS, LAYER_WORDS = 16, 36
ARENA_BYTES = 400 << 10  # that the GAP8 port has for maps, where the image lies in HyperRAM
BAND_ROWS = 8
MAX_LAYERS, MAX_CLASSES, MAX_TAPS = 160, 256, 64
_KINDS = {
    kind: number
    for number, kind in enumerate(
        ("conv", "depthwise", "linear", "average_pool", "mean", "add", "mul", "lookup", "softmax")
    )
}


@dataclass(frozen=True)
class Plan:
    """Where each map lies in the arena; a reshaped map lies where its source does."""

    offsets: tuple[int, ...]
    arena_bytes: int
    scratch_bytes: int  # of each core
    bands: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Map that is never whole -> rows of the depthwise layer after it that run at a time, bytes held of it."""


@dataclass(frozen=True)
class BoardImage:
    """What is sent to a board."""

    content: bytes
    model: IntegerModel
    plan: Plan

    @property
    def steps(self) -> list[Layer]:
        """The layers that the board runs, as its profile lists them."""
        return [layer for layer in self.model.layers if layer.kind != "reshape"]


def make_image(model: IntegerModel) -> BoardImage:
    """Raises BoardError where a model is larger than the firmware's fixed tables."""
    steps = [layer for layer in model.layers if layer.kind != "reshape"]
    for what, found, most in (
        ("layers", len(steps), MAX_LAYERS),
        ("classes", model.output.size, MAX_CLASSES),
        ("kernel taps", max([k.kernel[0] * k.kernel[1] for k in steps if k.kind == "depthwise"], default=0), MAX_TAPS),
    ):
        if found > most:
            raise BoardError(f"{model.name}: {what}: found {found}, wanted at most {most}")
    plan = plan_memory(model)
    constants = _Constants(4 * (HEADER_WORDS + LAYER_WORDS * len(steps)))
    records = b"".join(_record(model, layer, plan, constants) for layer in steps)
    tail = [
        len(steps),
        plan.arena_bytes,
        plan.offsets[0],
        model.input.size,
        model.frame_size,
        plan.offsets[model.layers[-1].output],
        model.output.size,
        plan.scratch_bytes,
    ]
    header = struct.pack("<8I", *tail).ljust(4 * HEADER_WORDS - 16, b"\0")
    body = header + records + bytes(constants.content)
    content = struct.pack("<4I", MAGIC, VERSION, 16 + len(body), zlib.crc32(body)) + body
    return BoardImage(content, model, plan)


def plan_memory(model: IntegerModel) -> Plan:
    """The maps' places; where they need more than GAP8 has, some are kept in bands only."""
    plan, possible = _placed(model, {}), _bands(model)
    for index in sorted(possible, key=lambda i: -model.maps[i].size):
        if plan.arena_bytes <= ARENA_BYTES:
            break
        banded = _placed(model, plan.bands | {index: possible[index]})
        plan = banded if banded.arena_bytes < plan.arena_bytes else plan  # rows at a band's edges are computed twice
    return plan


def _bands(model: IntegerModel) -> dict[int, tuple[int, int]]:
    """Maps that one depthwise layer alone reads, right after the convolution that makes them."""
    bands = {}
    for layer, after in pairwise(model.layers):
        readers = [other for other in model.layers if layer.output in other.inputs]
        if layer.kind == "conv" and after.kind == "depthwise" and readers == [after]:
            height, width, channels = model.maps[layer.output].shape
            held = min(height, (BAND_ROWS - 1) * after.stride[0] + after.kernel[0])
            if held < height:
                bands[layer.output] = (BAND_ROWS, held * width * channels)
    return bands


def _placed(model: IntegerModel, bands: dict[int, tuple[int, int]]) -> Plan:
    """Greedy by size: the largest map first, each at the lowest place that no map of its lifetime holds."""
    sizes = [_aligned(bands[i][1] if i in bands else m.size) for i, m in enumerate(model.maps)]
    owner = list(range(len(model.maps)))
    for layer in model.layers:
        if layer.kind == "reshape":
            owner[layer.output] = owner[layer.inputs[0]]
    first, last = {owner[0]: -1}, {owner[0]: -1}
    for i, layer in enumerate(model.layers):
        for index in (*layer.inputs, layer.output):
            # a band's layers run by turns: what the first reads lives as long as what the second writes
            first.setdefault(owner[index], i - (i > 0 and model.layers[i - 1].output in bands))
            last[owner[index]] = i + (layer.output in bands)
    last[owner[model.layers[-1].output]] = len(model.layers)
    places: dict[int, int] = {}
    for index in sorted(first, key=lambda i: (-sizes[i], i)):
        size = sizes[index]
        taken = sorted(
            (places[other], places[other] + sizes[other])
            for other in places
            if first[other] <= last[index] and first[index] <= last[other]
        )
        place = 0
        for begin, end in taken:
            if place + size <= begin:
                break
            place = max(place, end)
        places[index] = place
    arena = max(places[i] + sizes[i] for i in places)
    scratch = max([2 * _row_bytes(model, layer) for layer in model.layers if layer.kind in ("conv", "linear")] + [4])
    scratch = max([scratch] + [model.maps[k.inputs[0]].shape[2] for k in model.layers if k.kind == "depthwise"])
    return Plan(tuple(places.get(i, 0) for i in owner), arena, _aligned(scratch), bands)


def _aligned(n: int) -> int:
    return -(-n // 4) * 4


def _row_bytes(model: IntegerModel, layer: Layer) -> int:
    return _aligned(layer.weights.size // max(1, len(layer.weights)))


class _Constants:
    """The part of the image behind the layer records."""

    def __init__(self, first: int) -> None:
        self.first, self.content = first, bytearray()

    def add(self, values: Int8Array | Int32Array) -> int:
        """Offset of the values, which are put behind the others."""
        offset = self.first + len(self.content)
        self.content += np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
        self.content += b"\0" * (-len(self.content) % 4)
        return offset


def _record(model: IntegerModel, layer: Layer, plan: Plan, constants: _Constants) -> bytes:
    maps, out = model.maps, model.maps[layer.output]
    source = maps[layer.inputs[0]]
    second = maps[layer.inputs[-1]]
    weights, bias, row_bytes = layer.weights, layer.bias, 0
    if layer.kind in ("conv", "linear"):
        row_bytes = _row_bytes(model, layer)
        rows = layer.weights.reshape(len(layer.weights), -1)
        bias = _with_zero_point(bias, rows.sum(1, dtype=np.int64), source.zero_point)
        weights = np.pad(rows, ((0, 0), (0, row_bytes - rows.shape[1])))
    elif layer.kind == "depthwise":
        bias = _with_zero_point(bias, weights.sum((0, 1), dtype=np.int64), source.zero_point)
        weights = weights.reshape(-1, weights.shape[-1]).T
    words: list[int] = [
        _KINDS[layer.kind], plan.offsets[layer.inputs[0]], plan.offsets[layer.inputs[-1]], plan.offsets[layer.output],
        *source.shape, *out.shape, *layer.kernel, *layer.stride, *layer.pads,
        source.zero_point, second.zero_point, out.zero_point, layer.low, layer.high,
        constants.add(weights) if weights.size else 0, weights.size,
        constants.add(bias) if bias.size else 0,
        constants.add(layer.multipliers) if layer.multipliers.size else 0,
        constants.add(layer.shifts) if layer.shifts.size else 0,
        row_bytes, layer.operations,
        layer.depth_multiplier if layer.kind == "depthwise" else second.size,
        len(layer.multipliers), 0, 0, *plan.bands.get(layer.output, (0, 0)), _quick(layer, weights, bias), 0,
    ]  # fmt: skip
    return struct.pack(f"<{LAYER_WORDS}I", *(w & 0xFFFFFFFF for w in words))


def _quick(layer: Layer, weights: Int8Array, bias: Int32Array) -> int:
    """1 where the firmware may scale sums by its shorter way. `weights`: (outputs, row); `bias` as in the image."""
    if layer.kind in ("add", "mul"):
        return int(layer.shifts.min() >= -20 and layer.shifts.max() <= 0)
    if layer.kind not in ("conv", "depthwise"):
        return 0
    sums = 128 * np.abs(weights.astype(np.int64)).sum(1) + np.abs(bias.astype(np.int64))
    return int(sums.max() < 2**29 and layer.shifts.min() >= -20 and layer.shifts.max() <= -1)


def _with_zero_point(bias: Int32Array, sums: np.ndarray[tuple[int], np.dtype[np.int64]], zero_point: int) -> Int32Array:
    """Bias less zero_point * sum(weights): then kernels multiply maps as they are."""
    return (bias.astype(np.int64) - zero_point * sums).astype(np.int32)
