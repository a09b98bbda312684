"""The counts of `kws-models describe` come from the layers and equal the reference documents' figures."""

from __future__ import annotations

import json
from dataclasses import replace
from math import prod

import pytest

from kws_models.cli import main
from kws_models.zoo import dscnn
from kws_models.zoo.architectures import ARCHITECTURES, Architecture
from kws_models.zoo.describe import describe
from kws_models.zoo.graph import Conv, same_pads

# params without batch normalisation, macs, ops: MODEL_ZOO's table
DSCNN = {
    "dscnn-s": (22_604, 2_656_768, 2_704_780),
    "dscnn-m": (135_032, 9_816_384, 9_915_296),
    "dscnn-l": (410_700, 218_291_712, 219_660_684),
}


@pytest.mark.parametrize("name", DSCNN)
def test_dscnn_counts_equal_the_reference(name: str) -> None:
    counts = describe(ARCHITECTURES[name])
    assert (counts["params"], counts["macs"], counts["ops"]) == DSCNN[name]
    assert counts["params_folded"] == counts["params"]


def test_resnetse_counts_equal_the_reference() -> None:
    counts = describe(ARCHITECTURES["resnetse"])
    assert (counts["params"], counts["mult_adds"], counts["macs"]) == (61_574, 10_727_154, 10_724_768)


def test_squeeze_and_excitation_has_the_reference_s_parameters() -> None:
    layers = {layer["name"]: layer["params"] for layer in describe(ARCHITECTURES["resnetse"])["layers"]}
    gates = [layers[f"stage{stage}_1_reduce"] + layers[f"stage{stage}_1_expand"] for stage in (1, 2, 3, 4)]
    assert gates == [25, 82, 292, 1096]


def test_maps_have_the_reference_s_shapes() -> None:
    shapes = ARCHITECTURES["dscnn-m"].graph.shapes
    assert shapes["conv1"] == (172, 25, 10)
    assert shapes["pointwise4"] == (172, 13, 5)
    shapes = ARCHITECTURES["dscnn-l"].graph.shapes
    assert shapes["conv1"] == (276, 49, 40) and shapes["pointwise5"] == (276, 25, 20)
    assert ARCHITECTURES["resnetse"].graph.shapes["stage4_2_relu"] == (64, 3, 24)


def test_one_channel_more_changes_the_counts() -> None:
    info = list(dscnn.MODEL_SIZE_INFO["dscnn-s"])
    before = describe(ARCHITECTURES["dscnn-s"])
    info[-5] += 1  # the last pointwise convolution's channels
    wider = _with_sizes(tuple(info))
    after = describe(wider)
    assert after["params"] - before["params"] == 64 + 1 + 12
    assert after["macs"] - before["macs"] == 64 * 25 * 5 + 12


def _with_sizes(info: tuple[int, ...]) -> Architecture:
    return replace(ARCHITECTURES["dscnn-s"], build=lambda n: dscnn.dscnn_graph("dscnn-s", 49, 10, info, n))


def test_layers_add_up() -> None:
    counts = describe(ARCHITECTURES["resnetse"])
    assert counts["macs"] == sum(layer["macs"] for layer in counts["layers"])
    assert counts["params_trainable"] == sum(layer["params"] for layer in counts["layers"])
    convs = [n for n in ARCHITECTURES["resnetse"].graph.nodes if isinstance(n, Conv)]
    assert all(prod(n.stride) in (1, 4) for n in convs)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pads"),
    [
        ((49, 10), (10, 4), (2, 2), ((4, 5), (1, 1))),
        ((25, 5), (3, 3), (1, 1), ((1, 1), (1, 1))),
        ((24, 192), (3, 3), (2, 2), ((0, 1), (0, 1))),
    ],
)
def test_same_padding_is_tensorflow_s(size, kernel, stride, pads) -> None:
    assert same_pads(size, kernel, stride) == pads


def test_the_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["describe", "dscnn-s", "--json"])
    counts = json.loads(capsys.readouterr().out)
    keys = "name params params_trainable params_folded macs ops mult_adds memory input_shape labels layers"
    assert set(keys.split()) <= set(counts)
    assert set(counts["layers"][0]) == {"name", "kind", "input_shape", "output_shape", "params", "macs", "ops"}


def test_an_unknown_name_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["describe", "dscnn-xl"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: model: found 'dscnn-xl', wanted one of the ")
