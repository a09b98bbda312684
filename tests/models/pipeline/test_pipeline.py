"""Steps that are skipped, and what a card is made of: all of it without torch."""

from __future__ import annotations

import xml.etree.ElementTree
from pathlib import Path

import pytest

from kws_models.pipeline.drawings import det_svg, draw_filters
from kws_models.pipeline.facts import layers, measured_clips, worst_pairs
from kws_models.pipeline.steps import RECORD, Steps, code, digest
from kws_models.zoo.architectures import find_architecture
from kws_serve.manifest.folder import find_model, shipped_models_dir
from tests.models.data.test_training_list import write_clip

SHIPPED = shipped_models_dir()


def test_a_step_is_done_again_only_where_something_changed(tmp_path: Path, capsys) -> None:
    done: list[str] = []
    out = tmp_path / "out.txt"

    def run(inputs: dict[str, str], fails: bool = False) -> str:
        def do() -> None:
            done.append("once")
            if fails:
                raise ValueError("no")
            out.write_text(inputs["a"])

        Steps(tmp_path / "work").run("make", inputs, [out], do)
        return capsys.readouterr().out.strip()

    assert run({"a": "1", "b": "2"}) == "make: new"
    assert run({"a": "1", "b": "2"}) == "make: nothing has changed" and len(done) == 1
    assert run({"a": "1", "b": "3"}) == "make: changed: b" and len(done) == 2
    out.write_text("by somebody else")
    assert run({"a": "1", "b": "3"}) == "make: changed: out.txt"
    out.unlink()
    assert run({"a": "1", "b": "3"}) == "make: changed: out.txt" and out.read_text() == "1"
    with pytest.raises(ValueError, match="no"):
        run({"a": "4", "b": "3"}, fails=True)
    capsys.readouterr()
    assert run({"a": "4", "b": "3"}) == "make: changed: a" and out.read_text() == "4"
    assert (tmp_path / "work" / RECORD).is_file()


def test_a_digest_sees_names_and_content_and_no_hidden_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    before = digest(tmp_path)
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "y").write_text("2")
    assert digest(tmp_path) == before
    (tmp_path / "a" / "x").rename(tmp_path / "a" / "z")
    renamed = digest(tmp_path)
    (tmp_path / "a" / "z").write_text("3")
    assert len({before, renamed, digest(tmp_path)}) == 3
    assert digest(tmp_path / "none") == ""


def test_the_code_of_each_package_is_told_apart() -> None:
    assert code("kws_models.data") != code("kws_models.zoo") and code("kws_models.data") == code("kws_models.data")


def test_the_worst_pairs_are_those_of_the_greatest_share() -> None:
    rows = worst_pairs(("a", "b", "c"), [[90, 10, 0], [5, 5, 0], [2, 0, 198]])
    assert rows == [{"pair": ["a", "b"], "mixed_up": 15, "of": 110}, {"pair": ["a", "c"], "mixed_up": 2, "of": 300}]


@pytest.mark.parametrize("points", [[(0.0, 0.2), (12.0, 0.1), (140.0, 0.05)], [(0.0, 1.0)], [(0.001, 0.5), (3e5, 0.0)]])
def test_a_det_curve_stays_on_its_paper(points: list[tuple[float, float]]) -> None:
    text = det_svg(points, 0.5)
    root = xml.etree.ElementTree.fromstring(text)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    circles = list(root.iter("{http://www.w3.org/2000/svg}circle"))
    assert len(circles) == len(points) and len(text) < 8_000
    for circle in circles:
        assert 0 < float(circle.attrib["cx"]) < width and 0 < float(circle.attrib["cy"]) < height
    across = [float(circle.attrib["cx"]) for circle in circles]
    assert across == sorted(across)


@pytest.mark.parametrize("name", ["dscnn-s", "tcs-m-stream", "resnetse", "cnn1d-custom32-8"])
def test_filters_are_a_small_picture(name: str, tmp_path: Path) -> None:
    words = draw_filters(find_model(name, [SHIPPED]), tmp_path / "f.png")
    assert "filters of" in words and 100 < (tmp_path / "f.png").stat().st_size < 20_000


def test_layers_stand_beside_the_references_table() -> None:
    facts = layers(find_architecture("dscnn-s"), SHIPPED / "dscnn-s" / "model.int8.tflite")
    assert facts["reference_cycles"] == sum(layer["reference_cycles"] for layer in facts["layers"]) == 807_975
    assert facts["params_folded"] == 22_604 and "modelled" in facts["cycles_are"]
    assert facts["ms"] == pytest.approx(facts["cycles"] / 175e3)
    other = layers(find_architecture("tcs-m-stream"), SHIPPED / "tcs-m-stream" / "model.int8.tflite")
    assert other["reference_cycles"] is None and other["cycles"] > 0
    raw = layers(find_architecture("cnn1d-custom32-8"), SHIPPED / "cnn1d-custom32-8" / "model.int8.tflite")
    assert "not_on_the_board" in raw and raw["layers"][0]["macs"] > 0


def test_both_files_on_the_folds_clips(tmp_path: Path) -> None:
    spec = find_model("dscnn-s", [SHIPPED])
    for word in spec.detection:
        for i in range(10):
            write_clip(tmp_path / word / f"s{i}_nohash_0.wav", 7 * i)
    facts = measured_clips(spec, tmp_path, 1)
    assert facts["float32"]["n"] == facts["int8"]["n"] > 0 and facts["float32"]["left_out"] == 0
    low, high = facts["int8_less_float"]["interval"]
    assert low <= facts["int8_less_float"]["points"] <= high
