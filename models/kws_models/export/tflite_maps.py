"""The maps of a TFLite file under way: their shapes, types and grids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kws_models.export.integer_maps import SHARES, Ranges, quantisation_of
from kws_models.export.tflite_file import Quantisation, TfliteModel
from kws_models.zoo.graph import Graph, Node, Sigmoid, Softmax, Weights


@dataclass
class Writer:
    """The file under way: the tensor of each map by name.

    The graph's maps are (channels, height, width), the file's (batch, time, frequency, channels). In most graphs height
    is time; where it is mel (axes NCFT) the file's map is `turned`:

        NCTF, NCT   graph (c, time, frequency)  ->  file (n, time, frequency, c)    axes 1, 2 -> 1, 2
        NCFT        graph (c, mel, time)        ->  file (n, time, mel, c)          axes 1, 2 -> 2, 1
    """

    graph: Graph
    weights: Weights
    ranges: Ranges | None  # None: float32
    model: TfliteModel
    tensors: dict[str, int]
    quantisations: dict[str, Quantisation]
    float_maps: frozenset[str] = frozenset()  # of an int8 file: maps that stay float32

    @property
    def turned(self) -> bool:
        """Whether height and width change places."""
        return self.graph.axes == "NCFT"

    def map_shape(self, name: str) -> tuple[int | None, ...]:
        """The file's shape of a map or vector; None is the batch."""
        shape = self.graph.shapes[name]
        if len(shape) == 1:
            return (None, shape[0])
        channels, height, width = shape
        return (None, width, height, channels) if self.turned else (None, height, width, channels)

    def add_map(self, name: str, shape: tuple[int | None, ...], quantisation: Quantisation | None) -> int:
        """A tensor for the map, int8 on that grid where the file is int8 and the map does not stay float32."""
        integer = self.ranges is not None and name not in self.float_maps
        dtype = "int8" if integer else "float32"
        self.tensors[name] = self.model.tensor(name, shape, dtype, quantisation if integer else None)
        if integer and quantisation is not None:
            self.quantisations[name] = quantisation
        return self.tensors[name]

    def output(self, node: Node, name: str) -> int:
        """The tensor of the map that `node` (with a fused ReLU: `name`) makes."""
        quantisation = None
        if self.ranges is not None:
            fixed = isinstance(node, Softmax | Sigmoid)
            quantisation = SHARES if fixed else quantisation_of(*self.ranges[name])
        return self.add_map(name, self.map_shape(name), quantisation)

    def reshaped(self, source: str, name: str, shape: tuple[int | None, ...]) -> int:
        """The tensor of map `source` in another shape of as many values, known as `name`."""
        tensor = self.add_map(name, shape, self.quantisations.get(source))
        wanted = self.model.constant(f"{name}_shape", np.array([-1 if d is None else d for d in shape], np.int32))
        self.model.op("RESHAPE", [self.tensors[source], wanted], [tensor])
        return tensor
