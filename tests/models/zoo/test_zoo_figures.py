"""Every figure of the reference documents, reproduced by counting layers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kws_models.zoo import cnn1d, mnets
from kws_models.zoo.architectures import ARCHITECTURES, find_architecture
from kws_models.zoo.describe import REFERENCE, describe


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name in REFERENCE])
def test_counts_equal_the_reference_s(name: str) -> None:
    counts = describe(ARCHITECTURES[name])
    for key, wanted in REFERENCE[name].items():
        if key in counts and key != "memory":
            assert counts[key] == wanted, key


def test_every_row_of_the_families_is_there() -> None:
    assert len(cnn1d.rows()) == 4 + 5 + 8 + 3 * 6 + 3 * 7 + 9
    assert sum(name in REFERENCE for name in cnn1d.rows()) == 62  # the reports print no figure for only-conv 1 to 3
    assert {"m1", "m2", "cnn-trad-fpool3"} <= set(ARCHITECTURES)


def test_maps_and_memory_are_the_reference_s() -> None:
    shapes = ARCHITECTURES["m2"].graph.shapes
    assert (shapes["conv1"], shapes["pointwise2"]) == ((32, 32, 19), (128, 15, 9))
    assert describe(ARCHITECTURES["m2"])["memory"] == {"bytes": 123_624, "reference": 123_624}
    assert describe(ARCHITECTURES["cnn-trad-fpool3"])["memory"] == {"bytes": 250_880, "reference": 250_880}
    assert describe(ARCHITECTURES["m1"])["memory"] == {"bytes": 80_424, "reference": 80_552}  # 128 unexplained
    assert ARCHITECTURES["cnn-trad-fpool3"].graph.shapes["flatten"] == (42_240,)


def test_one_channel_more_changes_the_counts() -> None:
    rows = (*mnets.M1[:2], ("pointwise1", 65, 1, 1, "same", False))
    wider = replace(ARCHITECTURES["m1"], build=lambda n: mnets.m_graph("m1", rows, 65, 40, n))
    before, after = describe(ARCHITECTURES["m1"]), describe(wider)
    assert after["params"] - before["params"] == 32 + 1 + 12
    assert after["macs"] - before["macs"] == 32 * 32 * 19 + 12


def test_without_batch_normalisation_as_the_report_says() -> None:
    family, depth, hidden = cnn1d.rows()["cnn1d-custom64-8"]
    plain = cnn1d.cnn1d_graph("cnn1d-custom64-8", family, depth, hidden, 16, batch_norm=False)
    assert describe(find_architecture("cnn1d-custom64-8-nobn"))["params"] == 363_600
    assert describe(find_architecture("cnn1d-custom64-8", batch_norm=False))["name"] == "cnn1d-custom64-8-nobn"
    assert find_architecture("cnn1d-custom64-8-bn").name == "cnn1d-custom64-8"  # the table's own
    assert describe(replace(ARCHITECTURES["cnn1d-custom64-8"], build=lambda _: plain))["params"] == 363_600


def test_raw_models_show_their_input_as_the_file_has_it() -> None:
    assert describe(ARCHITECTURES["cnn1d-custom32-8"])["input_shape"] == [1, 16000]


def test_the_reference_s_accuracy_stands_beside_the_counts() -> None:
    assert describe(find_architecture("cnn1d-custom32-8"))["reference_accuracy"]["dropout 0.75"] == 0.9533
    assert (
        describe(find_architecture("cnn1d-custom128-9-nobn"))["reference_accuracy"]["dropout 0.25, batch norm"]
        == 0.9701
    )
    assert set(describe(find_architecture("cnn1d-vgg-16"))["reference_accuracy"].values()) >= {0.9630, 0.9620}  # a slip
    known = [name for name in ARCHITECTURES if describe(find_architecture(name))["reference_accuracy"]]
    assert set(cnn1d.rows()) <= set(known) and {"dscnn-s", "dscnn-m", "dscnn-l", "m1", "m2", "resnetse"} <= set(known)
