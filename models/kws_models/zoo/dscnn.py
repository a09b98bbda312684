"""DS-CNN small, medium, large: keyword spotting from MFCC patches (time, coefficients).

Source: Zhang et al., Hello Edge (2017), in the GAP8 sizes. A table row is
[layers, then per layer: channels, kernel time, kernel frequency, stride time, stride frequency].

The `-stream` variants have the same layers without padding in time, and patches of more frames in its place: what a
column of a layer says does not depend on where the patch begins or ends, so a stream computes each column once.
"""

from __future__ import annotations

from kws_models.zoo.graph import (
    BatchNorm,
    Conv,
    Graph,
    Linear,
    MapMean,
    Node,
    Relu,
    Softmax,
    same_pads,
)
from kws_models.zoo.labels import SILENCE, UNKNOWN

LABELS = (SILENCE, UNKNOWN, "yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")

MODEL_SIZE_INFO: dict[str, tuple[int, ...]] = {
    "dscnn-s": (5, 64, 10, 4, 2, 2, *(64, 3, 3, 1, 1) * 4),
    "dscnn-m": (5, 172, 10, 4, 2, 1, 172, 3, 3, 2, 2, *(172, 3, 3, 1, 1) * 3),
    "dscnn-l": (6, 276, 10, 4, 2, 1, 276, 3, 3, 2, 2, *(276, 3, 3, 1, 1) * 4),
}


def dscnn_graph(
    name: str, n_frames: int, n_coeffs: int, model_size_info: tuple[int, ...], n_labels: int, streams: bool = False
) -> Graph:
    """Layer 0 is an ordinary convolution, each later one a depthwise and a pointwise; BN + ReLU after each.

    `streams`: without padding in time.
    """
    layers = [model_size_info[1 + 5 * i : 6 + 5 * i] for i in range(model_size_info[0])]
    nodes: list[Node] = []
    size, last = (n_frames, n_coeffs), "input"

    def conv(layer_name: str, layer: tuple[int, ...], depthwise: bool) -> None:
        nonlocal last, size
        channels, *rest = layer
        kernel, stride = (rest[0], rest[1]), (rest[2], rest[3])
        in_time, in_frequency = same_pads(size, kernel, stride)
        pads = ((0, 0) if streams else in_time, in_frequency)
        node = Conv(layer_name, (last,), channels, kernel, stride, pads, depthwise)
        nodes.extend(
            [
                node,
                BatchNorm(f"{layer_name}_norm", (layer_name,)),
                Relu(f"{layer_name}_relu", (f"{layer_name}_norm",)),
            ]
        )
        _, *after = node.output_shape([(channels, *size)])
        last, size = f"{layer_name}_relu", (after[0], after[1])

    conv("conv1", layers[0], depthwise=False)
    for i, layer in enumerate(layers[1:], start=1):
        conv(f"depthwise{i}", (layers[i - 1][0], *layer[1:]), depthwise=True)
        conv(f"pointwise{i}", (layer[0], 1, 1, 1, 1), depthwise=False)
    nodes += [
        MapMean("pool", (last,)),
        Linear("linear", ("pool",), n_labels),
        Softmax("softmax", ("linear",)),
    ]
    return Graph(name, "NCTF", (1, n_frames, n_coeffs), tuple(nodes))
