"""weights.npz: what a training hands to the export. Arrays by node, and of int8-trained weights the maps' ranges."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kws_models.export.integer_maps import Ranges
from kws_models.zoo.absorbing import absorb
from kws_models.zoo.architectures import Architecture
from kws_models.zoo.graph import BatchNorm, Graph
from kws_serve.messages import Float32Array, KwsError

WEIGHTS_FILE = "weights.npz"
_RANGE = "range."  # before a map's name: its least and greatest value (2,)


@dataclass(frozen=True)
class Checkpoint:
    """Arrays `<node>.weight`, `.bias`, `.mean`, `.variance`; with `ranges`, of a graph without BatchNorm."""

    arrays: Mapping[str, Float32Array]
    ranges: Ranges | None = None

    def absorbed(self, graph: Graph) -> tuple[Graph, Mapping[str, Float32Array]]:
        """The graph without batch normalisation, and its arrays."""
        return absorb(graph, self.arrays) if self.ranges is None else (absorbed_graph(graph), self.arrays)


def absorbed_graph(graph: Graph) -> Graph:
    """The graph that `absorb` gives, whatever the weights."""
    shapes = {f"{n.name}.{short}": shape for n in graph.nodes for short, shape in graph.weight_shapes(n).items()}
    ones = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    norms = [node.name for node in graph.nodes if isinstance(node, BatchNorm)]
    statistics = {f"{norm}.{short}": ones[f"{norm}.weight"] for norm in norms for short in ("mean", "variance")}
    return absorb(graph, ones | statistics)[0]


def weights_bytes(checkpoint: Checkpoint) -> bytes:
    """The file's content."""
    content = io.BytesIO()
    ranges = {f"{_RANGE}{name}": np.array(bounds, np.float32) for name, bounds in (checkpoint.ranges or {}).items()}
    np.savez(content, allow_pickle=False, **checkpoint.arrays, **ranges)
    return content.getvalue()


def read_weights(path: Path, architecture: Architecture) -> Checkpoint:
    """The file's arrays; KwsError if it is not there or is of another architecture."""
    if not path.is_file():
        raise KwsError(f"weights: found no file {path}, wanted the {WEIGHTS_FILE} of a training run")
    try:
        found = dict(np.load(path))
    except (OSError, ValueError) as error:
        raise KwsError(f"weights: {path}: {error}; wanted the {WEIGHTS_FILE} of a training run") from error
    bounds = {name.removeprefix(_RANGE): found.pop(name) for name in list(found) if name.startswith(_RANGE)}
    ranges = {name: (float(low), float(high)) for name, (low, high) in bounds.items()} or None
    graph = absorbed_graph(architecture.graph) if ranges else architecture.graph
    wanted = {f"{n.name}.{short}": shape for n in graph.nodes for short, shape in graph.weight_shapes(n).items()}
    wrong = [key for key, shape in wanted.items() if key not in found or found[key].shape != shape]
    if wrong:
        raise KwsError(f"weights: {path}: {wrong[0]} does not fit {architecture.name}, wanted {wanted[wrong[0]]}")
    return Checkpoint(found, ranges)
