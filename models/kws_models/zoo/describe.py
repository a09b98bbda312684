"""Counts of an architecture, taken from its layers one by one (MODEL_ZOO section 5); no torch needed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from kws_models.zoo.architectures import Architecture, row_of
from kws_models.zoo.graph import BatchNorm, Conv, Graph, Linear, MapMean, Node, Shape, Softmax, WidthMean
from kws_models.zoo.reference_accuracy import REFERENCE_ACCURACY

_CNN1D_PARAMS: dict[str, tuple[int, int, tuple[int, ...]]] = {  # family: first depth, step, parameters by depth
    "cnn1d-only-conv": (4, 1, (123_856, 288_848)),
    "cnn1d-k5": (1, 1, (682_576, 455_424, 306_016, 214_560, 186_272, 301_728, 925_856, 3_517_600)),
    "cnn1d-ch32": (1, 1, (2_727_824, 931_824, 673_968, 371_056, 496_368, 816_240)),
    "cnn1d-ch64": (1, 1, (6_137_360, 2_141_136, 1_650_512, 1_148_112, 1_788_368, 3_224_784)),
    "cnn1d-ch128": (1, 1, (10_911_248, 4_034_448, 3_617_424, 3_634_576, 6_593_424, 12_788_112)),
    "cnn1d-custom32": (3, 1, (920_336, 318_768, 227_696, 113_072, 88_560, 94_768, 132_784)),
    "cnn1d-custom64": (3, 1, (1_861_520, 668_752, 507_344, 319_312, 311_504, 365_136, 523_600)),
    "cnn1d-custom128": (3, 1, (3_804_944, 1_460_368, 1_219_472, 1_007_248, 1_155_472, 1_426_576, 2_071_184)),
    "cnn1d-vgg": (
        2,
        2,
        (16_396_624, 5_498_320, 1_881_680, 692_944, 564_176, 392_400, 400_848, 470_736, 760_016),
    ),
}
CNN1D: dict[str, dict[str, float]] = {
    "cnn1d-base-4conv-1fc": {"params": 3_689_424.0},
    "cnn1d-base-4conv-2fc": {"params": 4_206_032.0},
    "cnn1d-base-5conv-1fc": {"params": 1_338_448.0},
    "cnn1d-base-5conv-2fc": {"params": 1_855_056.0},
} | {
    f"{family}-{first + i * step}": {"params": float(params)}
    for family, (first, step, by_depth) in _CNN1D_PARAMS.items()
    for i, params in enumerate(by_depth)
}

# The reference documents' own figures: shown beside ours, never used to compute ours.
REFERENCE: dict[str, dict[str, float]] = {
    "resnetse": {"params": 61_574, "mult_adds": 10_727_154, "accuracy": 0.96124},
    "dscnn-s": {"params_folded": 22_604, "macs": 2_656_768, "ops": 2_704_780, "accuracy": 0.8922},
    "dscnn-m": {"params_folded": 135_032, "macs": 9_816_384, "ops": 9_915_296, "accuracy": 0.9269},
    "dscnn-l": {"params_folded": 410_700, "macs": 218_291_712, "ops": 219_660_684, "accuracy": 0.9277},
    "m1": {"memory": 80_552, "accuracy": 0.865},
    "m2": {"memory": 123_624, "accuracy": 0.938},
    "cnn-trad-fpool3": {"memory": 250_880},
    **CNN1D,
}


@dataclass(frozen=True)
class LayerCounts:
    """One layer; shapes without the batch axis."""

    name: str
    kind: str
    input_shape: Shape
    output_shape: Shape
    params: int
    macs: int  # multiplications by a weight
    ops: int  # as the DS-CNN tables count: bias of conv1 and depthwise, pool and softmax included


def describe(architecture: Architecture) -> dict[str, Any]:
    """Counts of the architecture's graph, keys as `kws-models describe --json` prints them.

    `params_folded`: what the reference calls parameters without batch normalisation.
    """
    graph = architecture.graph
    layers = [_layer(graph, node) for node in graph.nodes]
    trainable = sum(layer.params for layer in layers)
    absorbed = params_absorbed(graph)
    return {
        "name": architecture.name,
        "params": absorbed if architecture.params_absorbed else trainable,
        "params_trainable": trainable,
        "params_folded": absorbed,
        "macs": sum(layer.macs for layer in layers),
        "ops": sum(layer.ops for layer in layers),
        "mult_adds": sum(_mult_adds(graph, node) for node in graph.nodes),
        "memory": {"bytes": _memory_bytes(graph), "reference": REFERENCE.get(architecture.name, {}).get("memory")},
        "input_shape": list(graph.file_shape("input")),
        "labels": list(architecture.labels),
        "reference": REFERENCE.get(architecture.name, {}),
        "reference_accuracy": REFERENCE_ACCURACY.get(row_of(architecture.name), {}),
        "layers": [asdict(layer) for layer in layers],
    }


def params_absorbed(graph: Graph) -> int:
    """Parameters once batch normalisation has become weights and biases."""
    total = 0
    for node in graph.nodes:
        if isinstance(node, BatchNorm):
            continue
        shapes = graph.weight_shapes(node)
        gains_bias = any(isinstance(reader, BatchNorm) for reader in graph.readers(node.name))
        total += sum(prod(shape) for shape in shapes.values())
        total += graph.shapes[node.name][0] if shapes and "bias" not in shapes and gains_bias else 0
    return total


def _layer(graph: Graph, node: Node) -> LayerCounts:
    shape_in, shape_out = graph.file_shape(node.inputs[0]), graph.file_shape(node.name)
    params = sum(prod(shape) for shape in graph.weight_shapes(node).values())
    macs = _macs(graph, node)
    return LayerCounts(node.name, _kind(node), shape_in, shape_out, params, macs, _ops(graph, node, macs))


def _kind(node: Node) -> str:
    return "DepthwiseConv" if isinstance(node, Conv) and node.depthwise else type(node).__name__


def _macs(graph: Graph, node: Node) -> int:
    if not isinstance(node, Conv | Linear):
        return 0
    return prod(graph.weight_shapes(node)["weight"]) * prod(graph.shapes[node.name][1:])


def _ops(graph: Graph, node: Node, macs: int) -> int:
    out = graph.shapes[node.name]
    match node:
        case Conv() if node.kernel != (1, 1):
            return macs + prod(out)  # one bias a value
        case MapMean() | WidthMean():
            return prod(graph.input_shapes(node)[0])
        case Softmax():
            return out[0]
    return macs


def _mult_adds(graph: Graph, node: Node) -> int:
    """torchinfo's count: a convolution's parameters at every place of the map, any other layer's once."""
    params = sum(prod(shape) for shape in graph.weight_shapes(node).values())
    return params * (prod(graph.shapes[node.name][1:]) if isinstance(node, Conv) else 1)


# Which maps the reference's `Memory Usage` adds up, where it prints one: M2 counts the last map again after pooling's
# input, cnn-trad-fpool3 leaves the input out. Its figure for M1 is 128 more than any such sum.
_COUNTED_MAPS = {
    "m1": ("input", "conv1", "depthwise1", "pointwise1"),
    "m2": ("input", "conv1", "depthwise1", "pointwise1", "depthwise2", "pointwise2", "pointwise2"),
    "cnn-trad-fpool3": ("conv1", "pool", "conv2"),
}


def _memory_bytes(graph: Graph) -> int:
    """int8 maps, a byte a value: the input's, every convolution's and linear layer's, or the reference's choice."""
    maps = ["input", *(node.name for node in graph.nodes if isinstance(node, Conv | Linear))]
    return sum(prod(graph.shapes[name]) for name in _COUNTED_MAPS.get(graph.name, maps))


def as_text(counts: dict[str, Any]) -> str:
    """A table of layers and totals, the reference's figures beside ours."""
    lines = [f"{counts['name']}: input {'x'.join(map(str, counts['input_shape']))}, {len(counts['labels'])} labels"]
    lines.append(f"{'layer':28}{'kind':16}{'output':>14}{'params':>10}{'macs':>13}{'ops':>13}")
    for layer in counts["layers"]:
        shape = "x".join(map(str, layer["output_shape"]))
        numbers = f"{layer['params']:>10,}{layer['macs']:>13,}{layer['ops']:>13,}"
        lines.append(f"{layer['name']:28}{layer['kind']:16}{shape:>14}{numbers}")
    memory = counts["memory"]
    lines.append(
        f"{'memory':18}{memory['bytes']:>14,}"
        + (f"   reference {memory['reference']:,}" if memory["reference"] else "")
    )
    for key in ("params", "params_trainable", "params_folded", "macs", "ops", "mult_adds"):
        reference = counts["reference"].get(key)
        lines.append(f"{key:18}{counts[key]:>14,}" + (f"   reference {reference:,.0f}" if reference else ""))
    lines += [f"reference accuracy {value:.4f}  {what}" for what, value in counts["reference_accuracy"].items()]
    return "\n".join(lines)
