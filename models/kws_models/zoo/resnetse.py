"""ResNetSE: sound events from FBANK patches, a residual network with squeeze and excitation.

Height is mel, width is time. Sources: He et al., Deep Residual Learning (2016), the bottleneck;
Hu et al., Squeeze-and-Excitation Networks (2018), reduction 8.
"""

from __future__ import annotations

from kws_models.zoo.graph import (
    Add,
    BatchNorm,
    Conv,
    Graph,
    Linear,
    MapMean,
    Node,
    Relu,
    Scale,
    Sigmoid,
    Softmax,
    WidthMean,
)
from kws_models.zoo.labels import BACKGROUND

LABELS = (BACKGROUND, "babycry", "glassbreak", "gunshot")

STEM_CHANNELS = 4  # and all sizes below: the reference's
STAGES = ((4, 2, 1), (8, 2, 2), (16, 4, 2), (32, 2, 2))  # planes, blocks, stride of the first block
EXPANSION = 2  # channels of a bottleneck's output / its planes
REDUCTION = 8  # of squeeze and excitation: channels / those between its two linear layers
EMBEDDING = 64  # values before the last linear layer

_PAD1 = ((1, 1), (1, 1))  # keeps a 3x3 kernel's map at its size


def resnetse_graph(name: str, n_mels: int, n_frames: int, n_labels: int) -> Graph:
    """Stem, four stages of bottlenecks, mean over time, two linear layers with batch normalisation."""
    nodes: list[Node] = [
        Conv("stem", ("input",), STEM_CHANNELS, (3, 3), pads=_PAD1),
        BatchNorm("stem_norm", ("stem",)),
        Relu("stem_relu", ("stem_norm",)),
    ]
    for stage, (planes, blocks, first_stride) in enumerate(STAGES, start=1):
        for block in range(1, blocks + 1):
            stride = first_stride if block == 1 else 1
            nodes += _bottleneck(f"stage{stage}_{block}", nodes[-1].name, planes, stride, block == 1)
    nodes += [
        WidthMean("pool", (nodes[-1].name,)),
        BatchNorm("pool_norm", ("pool",)),
        Linear("embedding", ("pool_norm",), EMBEDDING),
        BatchNorm("embedding_norm", ("embedding",)),
        Linear("linear", ("embedding_norm",), n_labels),
        Softmax("softmax", ("linear",)),
    ]
    return Graph(name, "NCFT", (1, n_mels, n_frames), tuple(nodes))


def _bottleneck(name: str, source: str, planes: int, stride: int, project: bool) -> list[Node]:
    """1x1, 3x3 (carries the stride), 1x1, SE, plus the shortcut: the input itself or, with `project`, a 1x1 of it."""
    channels = planes * EXPANSION
    nodes: list[Node] = [
        Conv(f"{name}_conv1", (source,), planes, (1, 1)),
        BatchNorm(f"{name}_norm1", (f"{name}_conv1",)),
        Relu(f"{name}_relu1", (f"{name}_norm1",)),
        Conv(f"{name}_conv2", (f"{name}_relu1",), planes, (3, 3), (stride, stride), _PAD1),
        BatchNorm(f"{name}_norm2", (f"{name}_conv2",)),
        Relu(f"{name}_relu2", (f"{name}_norm2",)),
        Conv(f"{name}_conv3", (f"{name}_relu2",), channels, (1, 1)),
        BatchNorm(f"{name}_norm3", (f"{name}_conv3",)),
        MapMean(f"{name}_squeeze", (f"{name}_norm3",)),
        Linear(f"{name}_reduce", (f"{name}_squeeze",), channels // REDUCTION),
        Relu(f"{name}_reduce_relu", (f"{name}_reduce",)),
        Linear(f"{name}_expand", (f"{name}_reduce_relu",), channels),
        Sigmoid(f"{name}_gate", (f"{name}_expand",)),
        Scale(f"{name}_excite", (f"{name}_norm3", f"{name}_gate")),
    ]
    shortcut = source
    if project:
        nodes += [
            Conv(f"{name}_shortcut", (source,), channels, (1, 1), (stride, stride)),
            BatchNorm(f"{name}_shortcut_norm", (f"{name}_shortcut",)),
        ]
        shortcut = f"{name}_shortcut_norm"
    return [
        *nodes,
        Add(f"{name}_add", (f"{name}_excite", shortcut)),
        Relu(f"{name}_relu", (f"{name}_add",)),
    ]
