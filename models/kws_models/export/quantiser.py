"""Post-training quantisation: each map's range from training patches, then the int8 file nearest to the float model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from kws_models.data.batches import Batches
from kws_models.export.integer_maps import Ranges
from kws_models.export.onnx_file import onnx_bytes
from kws_models.export.tflite_writer import tflite_bytes
from kws_models.zoo.graph import Graph, Relu, Weights
from kws_serve.backends.onnx_session import new_session
from kws_serve.messages import Float32Array

# percent of the values beyond an end of the range: what is cut there makes every step smaller
_LOW_TAILS = (0.0, 0.1, 0.3, 0.5, 1.0)  # of the input
_HIGH_TAILS = (0.0, 0.02, 0.1, 0.3)  # of the input
_MAP_TAILS = (0.0, 0.01, 0.05, 0.1, 0.2)  # of every other map, at both ends
_FIRST_MAP_TAIL = 0.05  # of the other maps while the input's tails are tried: in the middle of _MAP_TAILS
_BATCH = 64  # patches that are run at once: the maps of all layers are kept meanwhile
CALIBRATION_PATCHES = 1024  # at least: eight or more batches, so that every class is among them
_KEPT_VALUES = 400_000  # of each map, for its percentiles: 400 beyond a tail of 0.1 %


@dataclass(frozen=True)
class Tails:
    """Percent of the values beyond the ends of the ranges."""

    input_low: float
    input_high: float
    maps: float


@dataclass(frozen=True)
class Quantised:
    """The file, its maps' ranges, and how far it is from the float model."""

    content: bytes
    ranges: Ranges
    mean_difference: float  # of the scores from the float model's, on the calibration patches


def quantise(graph: Graph, weights: Weights, patches: Float32Array) -> Quantised:
    """Int8 file of a graph without batch normalisation, calibrated on training patches (n, n_frames, n_coeffs).

    Ranges are percentiles. The input's are chosen first, then the other maps': those whose scores differ least from
    the float model's.
    """
    values = collect_maps(graph, weights, _input_maps(graph, patches))
    wanted = values.pop("scores")

    def best_of(tails: list[Tails]) -> tuple[Tails, Quantised]:
        tried = [(t, _quantised_with(graph, weights, _ranges(graph, values, t), patches, wanted)) for t in tails]
        return min(tried, key=lambda pair: pair[1].mean_difference)

    best, _ = best_of([Tails(low, high, _FIRST_MAP_TAIL) for low in _LOW_TAILS for high in _HIGH_TAILS])
    return best_of([replace(best, maps=tail) for tail in _MAP_TAILS])[1]


def with_ranges(graph: Graph, weights: Weights, ranges: Ranges, patches: Float32Array) -> Quantised:
    """Int8 file whose maps have these ranges: of weights that were trained with them."""
    wanted = collect_maps(graph, weights, _input_maps(graph, patches))["scores"]
    return _quantised_with(graph, weights, ranges, patches, wanted)


def _quantised_with(
    graph: Graph, weights: Weights, ranges: Ranges, patches: Float32Array, wanted: Float32Array
) -> Quantised:
    content = tflite_bytes(graph, weights, ranges)
    return Quantised(content, ranges, float(np.abs(run_tflite(content, patches) - wanted).mean()))


def find_ranges(graph: Graph, weights: Weights, patches: Float32Array) -> Ranges:
    """The ranges that `quantise` chooses."""
    return quantise(graph, weights, patches).ranges


def calibration_patches(batches: Batches) -> Float32Array:
    """Patches (n >= CALIBRATION_PATCHES, n_frames, n_coeffs) from the first batches."""
    parts: list[Float32Array] = []
    while sum(map(len, parts)) < CALIBRATION_PATCHES:
        parts.append(batches.batch(len(parts))[0])
    return np.concatenate(parts)


def collect_maps(graph: Graph, weights: Weights, maps: Float32Array) -> dict[str, Any]:
    """Values of "input" and of each node's map, at most _KEPT_VALUES of each, and all "scores" (n, n_classes)."""
    names = tuple(node.name for node in graph.nodes)
    session = new_session(onnx_bytes(graph, weights, keep=names), threads=0, arena=True)
    kept: dict[str, list[Any]] = {name: [] for name in ("input", *names)}
    scores = []
    rng = np.random.default_rng(0)
    for part in _parts(maps):
        outputs = dict(zip(("scores", *names), session.run(None, {"input": part}), strict=True))
        scores.append(outputs.pop("scores"))
        for name, value in {"input": part, **outputs}.items():
            share = _KEPT_VALUES * len(part) / len(maps)
            flat = value.ravel()
            kept[name].append(flat if flat.size <= share else _sample(rng, flat, int(share)))
    return {"scores": np.concatenate(scores)} | {name: np.concatenate(parts) for name, parts in kept.items()}


def _sample(rng: np.random.Generator, values: Any, n: int) -> Any:
    """`n` values drawn at random, and the extremes."""
    return np.concatenate([values[rng.integers(0, len(values), n)], [values.min(), values.max()]])


def _ranges(graph: Graph, values: dict[str, Any], tails: Tails) -> Ranges:
    ranges: Ranges = {}
    rectified = {node.name for node in graph.nodes if isinstance(node, Relu)}
    for name, kept in values.items():
        low_tail, high_tail = (tails.input_low, tails.input_high) if name == "input" else (tails.maps, tails.maps)
        low, high = (float(x) for x in np.percentile(kept, (low_tail, 100.0 - high_tail)))
        ranges[name] = (0.0 if name in rectified else low, high)
    return ranges


def _input_maps(graph: Graph, patches: Float32Array) -> Float32Array:
    turned = patches if graph.axes == "NCTF" else patches.transpose(0, 2, 1)
    return np.ascontiguousarray(turned if graph.axes == "NCT" else turned[:, None], np.float32)


def _parts(rows: Float32Array) -> Iterator[Float32Array]:
    for first in range(0, len(rows), _BATCH):
        yield rows[first : first + _BATCH]


def run_tflite(content: bytes, patches: Float32Array) -> Float32Array:
    """Scores (n, n_classes) of an int8 or float32 file of axes NTFC for patches (n, n_frames, n_coeffs)."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scores = []
    for part in _parts(patches):
        interpreter.resize_tensor_input(source["index"], [len(part), *part.shape[1:], 1])
        interpreter.allocate_tensors()
        interpreter.set_tensor(source["index"], _quantised(part[..., None], source))
        interpreter.invoke()
        scale, zero_point = target["quantization"]
        out = interpreter.get_tensor(target["index"]).astype(np.float32)
        scores.append((out - zero_point) * scale if scale else out)
    return np.concatenate(scores)


def _quantised(values: Float32Array, details: dict[str, Any]) -> Any:
    scale, zero_point = details["quantization"]
    if not scale:
        return values
    limits = np.iinfo(details["dtype"])
    return np.clip(np.rint(values / scale) + zero_point, limits.min, limits.max).astype(details["dtype"])
