"""Which maps of an int8 file are rounded, and on which grid: the same for TFLite, QDQ ONNX and training."""

from __future__ import annotations

import numpy as np

from kws_models.export.tflite_file import Quantisation
from kws_models.zoo.graph import Add, Conv, Graph, Linear, Relu

Ranges = dict[str, tuple[float, float]]  # of each map: least and greatest value to represent
SHARES = Quantisation.of(1 / 256, -128)  # softmax and logistic outputs: TFLite fixes these
LEAST_SPAN = 1e-2  # of a map's range, in its real values: one that hardly varies still gets a scale to divide by


def float_maps(graph: Graph) -> frozenset[str]:
    """Raw samples and the first convolution stay float32: eight bits of a waveform lose quiet speech."""
    if graph.axes != "NCT":
        return frozenset()
    first = graph.nodes[0].name
    return frozenset({"input", fused_relus(graph).get(first, first)})


def fused_relus(graph: Graph) -> dict[str, str]:
    """Node -> the ReLU that alone reads it, for the layers that TFLite fuses one into."""
    fused = {}
    for node in graph.nodes:
        readers = graph.readers(node.name)
        if isinstance(node, Conv | Linear | Add) and len(readers) == 1 and isinstance(readers[0], Relu):
            fused[node.name] = readers[0].name
    return fused


def quantisation_of(low: float, high: float) -> Quantisation:
    """int8 over [low, high] widened to hold 0, which is then represented exactly.

    A map that hardly varies (a unit that never fires) gets a range that runtimes can still divide by.
    """
    #   low          0                high        real value
    #    |-----------|-----------------|          255 steps of `scale`
    #  -128      zero_point           127         int8
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32(max(high - low, LEAST_SPAN) / 255.0))
    return Quantisation.of(scale, int(np.clip(round(-128 - low / scale), -128, 127)))


def scale_of(quantisation: Quantisation) -> tuple[float, int]:
    """Scale and zero point of a map: it has one pair."""
    return float(quantisation.scales[0]), int(quantisation.zero_points[0])
