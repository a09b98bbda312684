"""A graph with random weights, and its ONNX file run: what the exporters' tests compare."""

from __future__ import annotations

import numpy as np

from kws_models.zoo.graph import BatchNorm, Graph
from kws_serve.backends.onnx_session import new_session


def random_weights(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    """He-scaled weights and lively statistics of every norm."""
    rng = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {}
    for node in graph.nodes:
        for short, shape in graph.weight_shapes(node).items():
            fan_in = max(1, int(np.prod(shape[1:])))
            scale = np.sqrt(2.0 / fan_in) if short == "weight" else 0.1
            weights[f"{node.name}.{short}"] = rng.normal(0.0, scale, shape).astype(np.float32)
        if isinstance(node, BatchNorm):
            n = graph.input_shapes(node)[0][0]
            weights[f"{node.name}.weight"] = rng.uniform(0.5, 1.5, n).astype(np.float32)
            weights[f"{node.name}.mean"] = rng.normal(0.0, 0.3, n).astype(np.float32)
            weights[f"{node.name}.variance"] = rng.uniform(0.5, 2.0, n).astype(np.float32)
    return weights


def random_patches(graph: Graph, n: int) -> np.ndarray:
    """(n, n_frames, n_coeffs)."""
    _, height, width = graph.input_shape
    n_frames, n_coeffs = (width, height) if graph.axes == "NCFT" else (height, width)
    return np.random.default_rng(1).normal(0.0, 2.0, (n, n_frames, n_coeffs)).astype(np.float32)


def run_onnx(content: bytes, graph: Graph, patches: np.ndarray) -> np.ndarray:
    maps = patches if graph.axes == "NCTF" else patches.transpose(0, 2, 1)
    session = new_session(content)
    return session.run(None, {"input": np.ascontiguousarray(maps if graph.axes == "NCT" else maps[:, None])})[0]
