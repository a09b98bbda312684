"""M1, M2 and cnn-trad-fpool3: keyword spotting from 65 x 40 MFCC patches (time, coefficients).

Sources: the M1/M2 report of the reference; Sainath and Parada, Convolutional Neural Networks for Small-footprint
Keyword Spotting (2015), for cnn-trad-fpool3 as TensorFlow's speech commands tutorial builds it.
"""

from __future__ import annotations

from typing import Literal

from kws_models.zoo.graph import (
    BatchNorm,
    Conv,
    Flatten,
    Graph,
    Linear,
    MapMean,
    MaxPool,
    Node,
    Pads,
    Relu,
    Softmax,
    same_pads,
)

VALID: Pads = ((0, 0), (0, 0))

# (name, channels, kernel, stride, padding, depthwise); BN + ReLU after each
Row = tuple[str, int, int, int, Literal["valid", "same"], bool]
M1: tuple[Row, ...] = (
    ("conv1", 32, 3, 2, "valid", False),
    ("depthwise1", 32, 3, 1, "same", True),
    ("pointwise1", 64, 1, 1, "same", False),
)
M2: tuple[Row, ...] = (
    *M1,
    ("depthwise2", 64, 3, 2, "valid", True),
    ("pointwise2", 128, 1, 1, "same", False),
)


def m_graph(name: str, rows: tuple[Row, ...], n_frames: int, n_coeffs: int, n_labels: int) -> Graph:
    """M1 or M2."""
    nodes: list[Node] = []
    last, size = "input", (n_frames, n_coeffs)
    for layer, channels, k, s, padding, depthwise in rows:
        pads = same_pads(size, (k, k), (s, s)) if padding == "same" else VALID
        conv = Conv(layer, (last,), channels, (k, k), (s, s), pads, depthwise)
        nodes += [conv, BatchNorm(f"{layer}_norm", (layer,)), Relu(f"{layer}_relu", (f"{layer}_norm",))]
        last = f"{layer}_relu"
        _, *out = conv.output_shape([(channels, *size)])
        size = (out[0], out[1])
    nodes += [MapMean("pool", (last,)), Linear("linear", ("pool",), n_labels), Softmax("softmax", ("linear",))]
    return Graph(name, "NCTF", (1, n_frames, n_coeffs), tuple(nodes))


def cnn_trad_graph(name: str, n_frames: int, n_coeffs: int, n_labels: int) -> Graph:
    """Two convolutions, a 2 x 2 max-pool between them, a linear layer over the whole map."""
    size, pooled = (n_frames, n_coeffs), (-(-n_frames // 2), -(-n_coeffs // 2))
    nodes: tuple[Node, ...] = (
        Conv("conv1", ("input",), 64, (20, 8), (1, 1), same_pads(size, (20, 8), (1, 1)), bias=True),
        Relu("conv1_relu", ("conv1",)),
        MaxPool("pool", ("conv1_relu",), (2, 2), (2, 2), ceil=True),
        Conv("conv2", ("pool",), 64, (10, 4), (1, 1), same_pads(pooled, (10, 4), (1, 1)), bias=True),
        Relu("conv2_relu", ("conv2",)),
        Flatten("flatten", ("conv2_relu",)),
        Linear("linear", ("flatten",), n_labels),
        Softmax("softmax", ("linear",)),
    )
    return Graph(name, "NCTF", (1, n_frames, n_coeffs), nodes)
