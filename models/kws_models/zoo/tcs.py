"""TCS small and medium: keyword spotting from log-mel frames by time-channel separable convolutions, for streams.

Each block is a depthwise convolution over time and a pointwise one over channels (QuartzNet, Kriman et al. 2019;
MatchboxNet, Majumdar and Ginsburg 2020), here without shortcuts and padding: a stream computes each column once.
"""

from __future__ import annotations

from dataclasses import dataclass

from kws_models.zoo.graph import BatchNorm, Conv, Graph, Linear, MapMean, Node, Relu, Softmax


@dataclass(frozen=True)
class TcsSize:
    """`channels` of every layer, and each block's kernel over time, in frames."""

    channels: int
    kernels: tuple[int, ...]


SIZES = {"tcs-s-stream": TcsSize(64, (5, 7, 9, 11, 13)), "tcs-m-stream": TcsSize(128, (5, 7, 9, 11, 13))}


def tcs_graph(name: str, size: TcsSize, n_frames: int, n_mels: int, n_labels: int) -> Graph:
    """A layer over all bands of each frame, then the blocks; BN + ReLU after each convolution, at last the mean."""
    nodes: list[Node] = []

    def conv(layer: str, last: str, kernel: tuple[int, int], depthwise: bool) -> str:
        node = Conv(layer, (last,), size.channels, kernel, depthwise=depthwise)
        nodes.extend([node, BatchNorm(f"{layer}_norm", (layer,)), Relu(f"{layer}_relu", (f"{layer}_norm",))])
        return f"{layer}_relu"

    # (1, n_frames, n_mels) -> (channels, n_frames, 1) -> each block takes kernel - 1 frames away
    last = conv("conv1", "input", (1, n_mels), depthwise=False)
    for i, kernel in enumerate(size.kernels, start=1):
        last = conv(f"depthwise{i}", last, (kernel, 1), depthwise=True)
        last = conv(f"pointwise{i}", last, (1, 1), depthwise=False)
    nodes += [MapMean("pool", (last,)), Linear("linear", ("pool",), n_labels), Softmax("softmax", ("linear",))]
    return Graph(name, "NCTF", (1, n_frames, n_mels), tuple(nodes))
