"""The raw-waveform 1D-CNN family: 16 words from one second at 16 kHz.

Every row of the reference report is one `Family` row and a depth. A map is (channels, time, 1). Our order, which the
report does not tell: convolution, batch normalisation, ReLU, pool; dropout before the final linear layer.
"""

from __future__ import annotations

from dataclasses import dataclass

from kws_models.zoo.graph import BatchNorm, Conv, Flatten, Graph, Linear, MaxPool, Node, Relu, Softmax

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LABELS: tuple[str, ...] = (*_DIGITS, "bed", "bird", "tree", "cat", "house", "dog")
N_SAMPLES = 16000  # a second at 16 kHz


@dataclass(frozen=True)
class Family:
    """What all depths of a family share."""

    kernel: int
    same: bool  # zero padding that keeps the length
    pool: int  # kernel and stride of the max-pool
    ceil: bool
    pool_last: bool  # also after the last convolution
    start: int  # channels of the first convolution
    grow_every: int  # convolutions after which the channels double
    batch_norm: bool = False  # whether the report's parameters count it
    batch_norm_flat: bool = False  # and one after the flattening
    pool_every: int = 1  # convolutions between pools


FAMILIES: dict[str, tuple[Family, range]] = {
    "cnn1d-only-conv": (Family(25, False, 4, True, True, 8, 1), range(1, 6)),
    "cnn1d-k5": (Family(5, False, 3, True, True, 8, 1, True), range(1, 9)),
    "cnn1d-ch32": (Family(25, False, 3, True, True, 32, 2, True), range(1, 7)),
    "cnn1d-ch64": (Family(25, False, 3, True, True, 64, 2, True, True), range(1, 7)),
    "cnn1d-ch128": (Family(25, False, 3, True, True, 128, 2, True), range(1, 7)),
    "cnn1d-custom32": (Family(5, True, 3, False, False, 32, 4), range(3, 10)),
    "cnn1d-custom64": (Family(5, True, 3, False, False, 64, 4, True), range(3, 10)),
    "cnn1d-custom128": (Family(5, True, 3, False, False, 128, 4, True), range(3, 10)),
    "cnn1d-vgg": (Family(3, True, 3, False, False, 64, 8, pool_every=2), range(2, 19, 2)),
}
BASE = Family(25, False, 4, True, True, 8, 1)
HEADS = {"1fc": (1024,), "2fc": (1024, 512)}


def rows() -> dict[str, tuple[Family, int, tuple[int, ...]]]:
    """Every row's name -> family, depth, hidden linear layers."""
    found: dict[str, tuple[Family, int, tuple[int, ...]]] = {
        f"cnn1d-base-{depth}conv-{head}": (BASE, depth, hidden) for depth in (4, 5) for head, hidden in HEADS.items()
    }
    for name, (family, depths) in FAMILIES.items():
        found |= {f"{name}-{depth}": (family, depth, ()) for depth in depths}
    return found


def cnn1d_graph(
    name: str, family: Family, depth: int, hidden: tuple[int, ...], n_labels: int, batch_norm: bool | None = None
) -> Graph:
    """`batch_norm`: None for what the report's parameters count."""
    norm = family.batch_norm if batch_norm is None else batch_norm
    nodes: list[Node] = []
    last = "input"

    def add(node: Node) -> None:
        nonlocal last
        nodes.append(node)
        last = node.name

    side = family.kernel // 2 if family.same else 0
    for i in range(depth):
        channels = family.start * 2 ** (i // family.grow_every)
        conv = f"conv{i + 1}"
        add(Conv(conv, (last,), channels, (family.kernel, 1), (1, 1), ((side, side), (0, 0)), bias=True))
        if norm:
            add(BatchNorm(f"{conv}_norm", (last,)))
        add(Relu(f"{conv}_relu", (last,)))
        if (i + 1) % family.pool_every == 0 and (family.pool_last or i + 1 < depth):
            add(MaxPool(f"pool{i + 1}", (last,), (family.pool, 1), (family.pool, 1), family.ceil))
    add(Flatten("flatten", (last,)))
    if family.batch_norm_flat and norm:
        add(BatchNorm("flatten_norm", (last,)))
    for i, width in enumerate(hidden):
        add(Linear(f"hidden{i + 1}", (last,), width))
        add(Relu(f"hidden{i + 1}_relu", (last,)))
    add(Linear("linear", (last,), n_labels))
    add(Softmax("softmax", (last,)))
    return Graph(name, "NCT", (1, N_SAMPLES, 1), tuple(nodes))
